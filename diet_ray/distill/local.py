"""The engine without Ray: everything in this process. The distributed engine must give the same bytes; a test compares them."""

from __future__ import annotations

from pathlib import Path

from diet_ray.config import StreamConfig
from diet_ray.distill.score import score_alone
from diet_ray.distill.select import Sketch
from diet_ray.distill.sharded_memory import LocalShards, ShardedMemory
from diet_ray.logs.blocks import BlockManifest, Log
from diet_ray.training.workers import Crew, Solo


class LocalEngine:
    """Scores shards one by one and keeps the memory in this process."""

    def __init__(self, config: StreamConfig) -> None:
        self.crew: Crew = Solo()
        self.memory = ShardedMemory(LocalShards(config.cluster.memory_shards))

    def score(
        self, log: Log, block: BlockManifest, checkpoints: list[Path], config: StreamConfig, keep: int, seed: int
    ) -> Sketch:
        """See `Engine.score`."""
        return score_alone(log, block, checkpoints, config, keep, seed)
