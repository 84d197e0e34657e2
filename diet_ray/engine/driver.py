"""A stream on a private Ray whose only worker is the driver's own process, which has torch and its first rows already.

A worker group of Ray Train takes several processes to start, each of which imports torch and Ray. It is for more workers, for a worker that
Ray places, and for one that Ray restarts.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from diet_ray.config import StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.engine.failures import explain
from diet_ray.engine.owners import OwnedShards
from diet_ray.engine.ray_engine import RayEngine, check_cluster
from diet_ray.memory.manifests import StageManifest
from diet_ray.training.workers import Solo


def distil_in_driver(run: Path, config: StreamConfig, **options: Any) -> list[StageManifest]:
    """Run the stream in this process, with the memory's shards and the scorers on the Ray to which it is connected.

    Args: those of `distil_locally`. Raises the errors of `diet_ray.engine.train.distil`.
    """
    check_cluster(config.cluster)
    with ExitStack() as owned:

        def on_ray(config: StreamConfig) -> RayEngine:
            shards = OwnedShards(config.cluster.memory_shards)
            owned.callback(shards.close)
            return RayEngine(Solo(), shards)

        try:
            return distil_locally(run, config, make_engine=on_ray, **options)
        except RayError as error:
            raise explain(error, run) or error from error
