"""The fidelity bench on a Ray cluster: distillations and selections as Ray Data tasks, trainings as Ray Tune trials."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from diet_ray.engine.data import fan_out
from diet_ray.engine.failures import describe, restore
from diet_ray.engine.tune import run_trials
from diet_ray.errors import DietError, users_error
from diet_ray.judge.fidelity.bench import measure_fidelity
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.bench import measure_live
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.plan import Bench, Training
from diet_ray.judge.fidelity.result import CostResult, FidelityResult
from diet_ray.judge.fidelity.verdicts import train_set
from diet_ray.judge.fidelity.work import OnProgress
from diet_ray.training.device import torch_threads


def fidelity(config: FidelityConfig, out: Path, on_progress: OnProgress) -> tuple[FidelityResult, CostResult]:
    """`measure_fidelity` on the cluster to which this process is connected."""
    train = partial(_train, scratch=out.resolve() / "tune")
    return measure_fidelity(config, out, on_progress, each=fan_out, train=train)


def live_fidelity(config: FidelityConfig, out: Path, on_progress: OnProgress) -> tuple[LiveResult, LiveCost]:
    """`measure_live` on the cluster to which this process is connected."""
    return measure_live(config, out, on_progress, each=fan_out)


def _train(bench: Bench, groups: list[list[Training]], on_progress: OnProgress, *, scratch: Path) -> None:
    """Do the trainings as trials of Ray Tune, one per group; `scratch` is a folder for Ray's own records, which is removed at the end."""
    trainable = partial(_trial, config=bench.config.model_dump_json(), cache=str(bench.cache.resolve()))
    try:
        reports = run_trials(
            tune.with_parameters(
                trainable, groups=[[training.model_dump_json() for training in group] for group in groups]
            ),
            # The parameter of a trial is its place in `groups`, so that Tune keeps no long parameters.
            {"group": list(range(len(groups)))},
            name="fidelity",
            storage=scratch,
            cpus=bench.config.cpus_per_trial,
            callback=_Counter([len(group) for group in groups], on_progress),
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for report in reports:
        if report.get("failure"):
            raise restore(report["failure"])


class _Counter(tune.Callback):
    """Counts finished trainings for a progress display."""

    def __init__(self, sizes: list[int], on_progress: OnProgress) -> None:
        self.sizes, self.on_progress, self.done = sizes, on_progress, 0

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks, and nobody reads the pickle; a display has a stream, which cannot be pickled.
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune calls this method in the driver."""
        self.done += self.sizes[trial.config["group"]]
        self.on_progress("trainings", self.done, sum(self.sizes))


def _trial(trial: dict[str, Any], *, config: str, cache: str, groups: list[list[str]]) -> None:
    try:
        bench = Bench.open(FidelityConfig.model_validate_json(config), Path(cache))
        trainings = [Training.model_validate_json(text) for text in groups[trial["group"]]]
        with torch_threads(1):
            done = sum(1 for _ in train_set(bench, trainings))
        tune.report({"done": done, "failure": None})
    except (DietError, OSError) as error:
        known = users_error(error)
        if known is None:
            raise
        # Raised, it would come back as a traceback in a string.
        tune.report({"done": 0, "failure": describe(known)})
