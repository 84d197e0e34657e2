"""The engine without Ray: everything in this process. The distributed engine must give the same bytes; a test compares them."""

from __future__ import annotations

from pathlib import Path

from diet_ray.blocks import BlockManifest, Log
from diet_ray.config import StreamConfig
from diet_ray.crew import Crew, Solo
from diet_ray.scoring import ShardScorer
from diet_ray.select import Sketch, merge
from diet_ray.store import FileEntry, memory_path, write_units
from diet_ray.units import Units, split


class LocalEngine:
    """Scores shards one by one and keeps the memory as a Python object."""

    def __init__(self, config: StreamConfig) -> None:
        self.crew: Crew = Solo()
        self.n_shards = config.cluster.memory_shards
        self._units: Units | None = None

    def score(
        self, log: Log, block: BlockManifest, checkpoints: list[Path], config: StreamConfig, keep: int, seed: int
    ) -> Sketch:
        """See `Engine.score`."""
        scorer = ShardScorer(log, checkpoints, config, keep=keep, seed=seed)
        return merge([scorer.sketch(block, shard) for shard in block.shards], keep=keep)

    def publish(self, units: Units) -> None:
        """See `Engine.publish`."""
        self._units = units

    def memory(self) -> Units:
        """See `Engine.memory`."""
        assert self._units is not None, "nothing has been published yet"
        return self._units

    def write_memory(self, folder: Path) -> list[FileEntry]:
        """See `Engine.write_memory`."""
        parts = split(self.memory(), self.n_shards)
        return [write_units(memory_path(folder, index), part) for index, part in enumerate(parts)]
