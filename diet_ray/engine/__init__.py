"""All code that uses Ray. A module that imports Ray is imported only after `connect` has set Ray's environment variables.

cluster       the connection
data          one function over many descriptions
ray_engine    what a stream asks of the cluster
train         the stream on a worker group
driver        the stream in the driver of a private Ray
owners        shards of the memory as actors
tune          trials
sweep_driver  a sweep
bench_driver  the fidelity bench
failures      errors that cross Ray
telemetry     figures for Prometheus
workplace     the work of the commands on the cluster
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.engine.bench_driver import fidelity as fidelity
    from diet_ray.engine.cluster import connect as connect
    from diet_ray.engine.data import fan_out as fan_out
    from diet_ray.engine.sweep_driver import sweep as sweep
    from diet_ray.engine.train import distil as distil
    from diet_ray.engine.tune import run_trials as run_trials
    from diet_ray.engine.workplace import OnCluster as OnCluster

_PLACES = {
    "connect": "cluster",
    "fan_out": "data",
    "distil": "train",
    "run_trials": "tune",
    "sweep": "sweep_driver",
    "fidelity": "bench_driver",
    "OnCluster": "workplace",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
