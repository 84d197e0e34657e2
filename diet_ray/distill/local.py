"""The engine without Ray: everything in this process. The distributed engine with one worker gives the same bytes; a test compares them."""

from __future__ import annotations

from pathlib import Path

from diet_ray.config import StreamConfig
from diet_ray.distill.pipeline import open_for, run_stream
from diet_ray.distill.score import ScoreJob, score_rows
from diet_ray.distill.select import Sketch
from diet_ray.distill.sharded_memory import LocalShards, ShardedMemory
from diet_ray.errors import ConfigError
from diet_ray.logs.block_rows import BlockRows
from diet_ray.memory.events import Events
from diet_ray.memory.layout import events_file
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.storage.lock import locked
from diet_ray.training.device import device_of
from diet_ray.training.workers import Crew, Solo


class LocalEngine:
    """Scores shards one by one and keeps the memory in this process."""

    def __init__(self, config: StreamConfig) -> None:
        cluster = config.cluster
        self.crew: Crew = Solo(device_of(cluster.gpus_per_worker, cluster.precision))
        self.memory = ShardedMemory(LocalShards(config.cluster.memory_shards))

    def score(self, job: ScoreJob, rows: BlockRows) -> Sketch:
        """See `Engine.score`."""
        return score_rows(job, rows, device=self.crew.device)


def distil_locally(run: Path, config: StreamConfig, *, resume: bool = False) -> list[StageManifest]:
    """Run the stream in this process; returns the committed stages.

    Args:
        run: the run folder.
        config: the run's config. Scorers, and how many CPUs anything may have, change nothing here; the bytes are those of the cluster.
        resume: continue behind the last committed stage of `run`.

    Raises:
        DietError: the log, the config or the run folder is at fault, or another driver works in the run folder.
    """
    if config.cluster.workers > 1:
        raise ConfigError(
            f"key 'cluster.workers': {config.cluster.workers} workers, whose sums differ from one's in the last bits, need Ray; leave out "
            "--local, or set it to 1"
        )
    run = run.resolve()
    config, log, n_blocks = open_for(config)
    with locked(run):
        committed = open_run(run, config, resume=resume)
        if len(committed) < n_blocks:
            run_stream(run, log, config, LocalEngine(config), Events(events_file(run)), committed)
        return committed_stages(run)
