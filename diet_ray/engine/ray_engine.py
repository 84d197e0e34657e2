"""What a stream asks of a Ray cluster: shards scored by Ray Data, the memory in the object store.

The process that runs the stream imports this file, and Ray Data takes seconds to import: it is imported where scorers run.
"""

from __future__ import annotations

from collections.abc import Callable

import ray

from diet_ray.config import ClusterConfig
from diet_ray.distill.score import ScoreJob, Scorer, score_rows
from diet_ray.distill.select import Sketch, merge_as_they_come
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.engine.failures import describe, restore
from diet_ray.engine.owners import OwnedShards
from diet_ray.errors import DietError, ResourceError
from diet_ray.logs.block_rows import BlockRows
from diet_ray.logs.blocks import LogShard
from diet_ray.training.device import device_of, gpu_fault
from diet_ray.training.workers import Crew


class RayEngine:
    """The engine in the process of one worker."""

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


# Ray Data keeps some memory of each execution, most of it outside Python, until the process that started the execution ends. A worker runs
# for thousands of blocks, so the executions are started in this task, whose process is replaced after every 50 calls.
@ray.remote(num_cpus=0, max_calls=50)
def _score(description: str) -> tuple[bytes, str | None]:
    """The sketch of a `ScoreJob` as IPC bytes, or the user's error as JSON: raised, it would come back wrapped."""
    from diet_ray.engine.data import Pool, fan_out_to

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
