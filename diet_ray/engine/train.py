"""A stream on a Ray cluster: one Ray Train worker group for the whole stream."""

from __future__ import annotations

import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.exceptions import TrainingFailedError

from diet_ray.config import StreamConfig
from diet_ray.distill.pipeline import check_log, check_processor, finish, open_for, run_stream
from diet_ray.engine.cluster import own_signals
from diet_ray.engine.failures import describe, explain, restore
from diet_ray.engine.owners import OwnedShards
from diet_ray.engine.ray_engine import RayEngine, check_cluster
from diet_ray.errors import DietError
from diet_ray.logs.blocks import open_log
from diet_ray.memory.events import Events
from diet_ray.memory.layout import RECORDS, events_file
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.storage.lock import locked
from diet_ray.training.device import exact_products
from diet_ray.training.workers import Crew, Group, Solo


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
            else:
                finish(run, log, config, committed)
        finally:  # also the records of a driver that was killed after its last commit
            shutil.rmtree(run / RECORDS, ignore_errors=True)
        return committed_stages(run)


class Trainer(TorchTrainer):
    """A `TorchTrainer` without two actors that a stream has no use for, each of which takes seconds to start and some 200 MB.

    One hands out datasets. The other is detached and frees the workers' resources where the controller dies; it outlives a killed driver
    for ever (findings/ray_train_leaves_a_process_per_killed_driver.sh). Ray frees them without it, because they belong to the controller.
    """

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback)
        made = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in made if not isinstance(callback, needless)]


def _train(run: Path, config: StreamConfig, n_blocks: int, *, allow_different_bytes: bool) -> None:
    """Run the stream after the last committed stage, up to the first `n_blocks` blocks, on a worker group of Ray Train."""
    shards = OwnedShards(config.cluster.memory_shards)
    name = f"train-{uuid.uuid4().hex[:12]}"
    trainer = Trainer(
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
