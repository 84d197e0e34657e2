"""The engine on a Ray cluster: one Ray Train worker group for the whole stream, Ray Data for scoring, the memory in the object store."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError

from diet_ray.config import ClusterConfig, StreamConfig
from diet_ray.distill.pipeline import check_log, check_processor, open_for, run_stream
from diet_ray.distill.score import ScoreJob, Scorer, score_rows
from diet_ray.distill.select import Sketch, merge_as_they_come
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.engine.cluster import own_signals
from diet_ray.engine.data import Pool, fan_out_to
from diet_ray.engine.failures import describe, explain, restore
from diet_ray.engine.owners import OwnedShards
from diet_ray.errors import DietError, ResourceError
from diet_ray.logs.block_rows import BlockRows
from diet_ray.logs.blocks import LogShard, open_log
from diet_ray.memory.events import Events
from diet_ray.memory.layout import RECORDS, events_file
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.storage.lock import locked
from diet_ray.training.device import device_of, exact_products, gpu_fault
from diet_ray.training.workers import Crew, Group, Solo


class RayEngine:
    """The engine in one Ray Train worker."""

    def __init__(self, crew: Crew, shards: OwnedShards) -> None:
        self.crew, self.memory = crew, ShardedMemory(shards)

    def score(self, job: ScoreJob, rows: BlockRows) -> Sketch:
        """See `Engine.score`: Ray Data streams the shards through a pool of actors, which read them, and each shard gives a sketch."""
        if job.config.cluster.scorers == 0:
            return score_rows(job, rows, device=self.crew.device)
        sketch, failure = ray.get(_score.remote(job.model_dump_json()))
        if failure is not None:
            raise restore(failure)
        return Sketch.from_ipc(sketch)


def distil(
    run: Path, config: StreamConfig, *, resume: bool = False, allow_different_bytes: bool = False
) -> list[StageManifest]:
    """Run the stream on the Ray cluster to which this process is connected; returns the committed stages.

    Args:
        run: the run folder; every node of the cluster must see it, and the log, under the same path.
        config: the run's config.
        resume: continue after the last committed stage of `run`.
        allow_different_bytes: let a resumed run go on in a way that gives other bytes (`diet_ray.memory.same_bytes`).

    Raises:
        DietError: the log, the config, the run folder or the cluster has a fault, which the message names, or another driver works in
            the run folder. BrokenOffError where a process or a node died or a disk was full: `resume` continues the run.
    """
    run = run.resolve()
    config, log, n_blocks = open_for(config)
    check_cluster(config.cluster)
    with locked(run):
        committed = open_run(run, config, resume=resume, allow_different_bytes=allow_different_bytes)
        check_log(log, committed)
        left = n_blocks - len(committed)
        try:
            if left > 0:
                _train(run, config, n_blocks, allow_different_bytes=allow_different_bytes)
        finally:  # also the records of a driver that was killed after its last commit
            shutil.rmtree(run / RECORDS, ignore_errors=True)
        return committed_stages(run)


def _train(run: Path, config: StreamConfig, n_blocks: int, *, allow_different_bytes: bool) -> None:
    """Run the stream after the last committed stage, up to the first `n_blocks` blocks, on a worker group of Ray Train."""
    shards = OwnedShards(config.cluster.memory_shards)
    name = f"train-{uuid.uuid4().hex[:12]}"
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "run": str(run),
            "config": config.model_dump_json(),
            "blocks": n_blocks,
            "shards": shards,
            "begun": None if allow_different_bytes else str(run / RECORDS / f"{name}.begun"),
        },
        scaling_config=ScalingConfig(
            num_workers=config.cluster.workers,
            use_gpu=config.cluster.gpus_per_worker > 0,
            resources_per_worker={"CPU": config.cluster.cpus_per_worker, "GPU": config.cluster.gpus_per_worker},
        ),
        torch_config=TorchConfig(backend="gloo"),  # also from GPU to GPU: nccl has no sum of sparse gradients
        run_config=RunConfig(
            # The state of the stream is in the run folder alone, so only the name must be new.
            name=name,
            storage_path=str(run / RECORDS),
            failure_config=FailureConfig(max_failures=config.cluster.max_failures),
        ),
    )
    try:
        with own_signals(signal.SIGINT):  # Ray Train leaves a handler behind that calls a controller which has ended
            result = trainer.fit()
    except (TrainingFailedError, RayError) as error:  # the latter where Train's controller has died
        raise explain(error, run) or error from error
    finally:
        shards.close()
    failure = result.return_value  # type: ignore[attr-defined]
    if failure:
        raise restore(str(failure))


def check_cluster(cluster: ClusterConfig) -> None:
    """Refuse a config that the connected cluster can never run. Ray itself would wait for ever without a message.

    Raises:
        ResourceError: workers and scorers together ask for more CPUs or GPUs than there are, or torch cannot use the GPUs.
    """
    have = ray.cluster_resources().get("CPU", 0.0)
    _check_gpus(cluster, ray.cluster_resources().get("GPU", 0.0))
    workers, scorers = cluster.workers * cluster.cpus_per_worker, cluster.scorers * cluster.cpus_per_scorer
    if workers + scorers > have:
        raise ResourceError(
            f"cluster: {cluster.workers} workers x {cluster.cpus_per_worker} CPUs and {cluster.scorers} scorers x "
            f"{cluster.cpus_per_scorer} CPUs need {workers + scorers:g} CPUs, the cluster has {have:g}: lower "
            "cluster.workers, cpus_per_worker, scorers or cpus_per_scorer, or add nodes"
        )


def _check_gpus(cluster: ClusterConfig, have: float) -> None:
    workers, scorers = cluster.workers * cluster.gpus_per_worker, cluster.scorers * cluster.gpus_per_scorer
    if workers + scorers == 0:
        return
    if workers + scorers > have:
        raise ResourceError(
            f"cluster: {cluster.workers} workers x {cluster.gpus_per_worker:g} GPUs and {cluster.scorers} scorers x "
            f"{cluster.gpus_per_scorer:g} GPUs need {workers + scorers:g} GPUs, the cluster has {have:g}: "
            + (
                "lower cluster.workers, gpus_per_worker, scorers or gpus_per_scorer, or add nodes"
                if have
                else "set cluster.gpus_per_worker and gpus_per_scorer to 0, or connect to a cluster with GPUs (--address)"
            )
        )
    # The check runs on a node with a GPU, which may be another node.
    share = min(gpus for gpus in (cluster.gpus_per_worker, cluster.gpus_per_scorer) if gpus)
    fault = ray.get(ray.remote(num_cpus=0, num_gpus=share)(gpu_fault).remote(cluster.precision))
    if fault:
        raise ResourceError(fault)


def _work(task: dict[Any, Any]) -> Any:
    """The function of each worker of the group: run the whole stream. Returns the user's error that ended it, as JSON."""
    config = StreamConfig.model_validate_json(task["config"])
    run = Path(task["run"])
    exact_products()
    crew: Crew = Group(get_device()) if config.cluster.workers > 1 else Solo(get_device())
    events = Events(events_file(run) if crew.rank == 0 else None)
    engine = RayEngine(crew, task["shards"])
    try:
        # A log may grow at any time: all workers distil the blocks that the driver has seen.
        log, committed = open_log(config.log).first(task["blocks"] + 1), committed_stages(run)
        if crew.rank == 0 and task["begun"] is not None:
            _check_first_start(run, committed, crew.device, Path(task["begun"]))
        run_stream(run, log, config, engine, events, committed)
    except DietError as error:
        if config.cluster.workers > 1:
            raise  # the others wait for this one in a collective: only the end of the group frees them
        return describe(error)
    return None


def _check_first_start(run: Path, committed: list[StageManifest], device: torch.device, begun: Path) -> None:
    """Compare the processor with that of the last stage, unless the worker group was restarted: `cluster.max_failures` lets it go on
    elsewhere, and the stages record where. The file `begun` tells that the group has started before.
    """
    if not begun.exists():
        check_processor(run, committed, device)
        begun.parent.mkdir(exist_ok=True)
        begun.touch()


# Ray Data keeps some memory of each execution, most of it outside Python, until the process that started the execution ends. A worker runs
# for thousands of blocks, so the executions are started in this task, whose process is replaced after every 50 calls.
@ray.remote(num_cpus=0, max_calls=50)
def _score(description: str) -> tuple[bytes, str | None]:
    """The sketch of a `ScoreJob` as IPC bytes, or the user's error as JSON: raised, it would come back wrapped."""
    job = ScoreJob.model_validate_json(description)
    cluster, shards = job.config.cluster, job.block.shards
    sketches = fan_out_to(
        Pool(min(cluster.scorers, len(shards)), cluster.cpus_per_scorer, cluster.gpus_per_scorer),
        _sketcher,
        [shard.model_dump_json() for shard in shards],
        job=description,
    )
    try:
        return merge_as_they_come(map(Sketch.from_ipc, sketches), keep=job.keep).to_ipc(), None
    except DietError as error:
        return b"", describe(error)


def _sketcher(job: str) -> Callable[[str], bytes]:
    parsed = ScoreJob.model_validate_json(job)
    cluster = parsed.config.cluster
    scorer = Scorer(parsed, device=device_of(cluster.gpus_per_scorer, cluster.precision))
    return lambda shard: scorer.sketch_shard(LogShard.model_validate_json(shard)).to_ipc()
