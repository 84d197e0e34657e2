"""The engine without Ray, in this process. The Ray engine with one worker gives the same bytes; a test compares them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diet_ray.config import StreamConfig
from diet_ray.distill.pipeline import Engine, check_processor, finish, open_for, run_stream
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


def distil_locally(
    run: Path,
    config: StreamConfig,
    *,
    resume: bool = False,
    allow_different_bytes: bool = False,
    make_engine: Callable[[StreamConfig], Engine] = LocalEngine,
) -> list[StageManifest]:
    """Run the stream in this process; returns the committed stages.

    Args:
        run: the run folder.
        config: the run's config. The number of scorers and the numbers of CPUs have no effect here; the bytes are those of a cluster.
        resume: continue after the last committed stage of `run`.
        allow_different_bytes: let a resumed run go on in a way that gives other bytes (`diet_ray.memory.same_bytes`).
        make_engine: gives the engine whose worker is this process.

    Raises:
        DietError: the log, the config or the run folder is at fault, or another driver works in the run folder.
    """
    if config.cluster.workers > 1:
        raise ConfigError(
            f"key 'cluster.workers': {config.cluster.workers} workers need Ray, because their sums differ from those of one worker in the "
            "last bits; leave out --local, or set the key to 1"
        )
    run = run.resolve()
    config, log, n_blocks = open_for(config)
    with locked(run):
        committed = open_run(run, config, resume=resume, allow_different_bytes=allow_different_bytes)
        if len(committed) >= n_blocks:
            finish(run, log, config, committed)
        else:  # the stream checks the log when it begins
            engine = make_engine(config)
            if not allow_different_bytes:
                check_processor(run, committed, engine.crew.device)
            run_stream(run, log, config, engine, Events(events_file(run)), committed)
        return committed_stages(run)
