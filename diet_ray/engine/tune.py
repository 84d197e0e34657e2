"""Runs trials on Ray Tune: without its output, each retried once, and with the last reports in the order of the grid."""

from __future__ import annotations

import logging
import math
import os
import signal
import uuid
from pathlib import Path
from typing import Any

from ray import tune

from diet_ray.engine.cluster import hush, own_signals
from diet_ray.errors import DietError


def run_trials(
    trainable: Any,
    grid: dict[str, list[Any]],
    *,
    name: str,
    storage: Path,
    cpus: float,
    callback: tune.Callback,
    gpus: float = 0.0,
    scheduler: Any = None,
    searcher: Any = None,
    samples: int = 1,
    concurrent: int | None = None,
    tolerant: bool = False,
) -> list[dict[str, Any]]:
    """Run one trial for each combination of values, and return the last report of each.

    Args:
        trainable: a function of the trial's values, also one from `tune.with_parameters`.
        grid: the values of each parameter; empty where a searcher suggests them.
        name: the name of the experiment; a suffix makes it unique.
        storage: folder for Ray's own record of the trials, which the caller removes.
        cpus: logical CPUs of each trial.
        callback: called in the driver for each trial that ends.
        gpus: GPUs of each trial, or a share of one.
        scheduler: a scheduler of Tune, which may stop a trial early; by default none.
        searcher: a searcher of Tune, which suggests `samples` trials instead of a grid.
        samples: number of trials that the searcher suggests.
        concurrent: largest number of trials at a time; by default as many as there is room for.
        tolerant: whether the others continue after a trial fails twice; its last report may then be empty.

    Raises:
        DietError: a trial failed twice, unless `tolerant`.
        KeyboardInterrupt: Ctrl-C came before all trials had ended.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables, which verbose=0 alone does not silence
    hush(logging.WARNING, "ray.tune")
    # After Ctrl-C these two recommend Tune's own way to resume, and list the missing results of each trial.
    hush(logging.ERROR, "ray.tune.tune", "ray.tune.analysis")
    ended, n_trials = _Ended(), samples * math.prod(len(values) for values in grid.values())
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus, **({"gpu": gpus} if gpus else {})}),
        param_space={key: tune.grid_search(values) for key, values in grid.items()},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            scheduler=scheduler,
            search_alg=searcher,
            num_samples=samples,
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(storage.resolve()),
            verbose=0,
            callbacks=[callback, ended],
            failure_config=tune.FailureConfig(max_failures=1, fail_fast=False),
        ),
    )
    # Tune leaves its own signal handlers behind, which would swallow the first Ctrl-C after its end.
    with own_signals(signal.SIGINT, signal.SIGUSR1):
        results = tuner.fit()
    if ended.count < n_trials:  # after Ctrl-C Tune returns early, and reports the stopped trials as terminated
        raise KeyboardInterrupt
    if results.errors and not tolerant:
        raise DietError(f"{len(results.errors)} of {len(results)} trials failed, the first with: {results.errors[0]}")
    return [results[number].metrics or {} for number in range(len(results))]


class _Ended(tune.Callback):
    """Counts the trials that ended by themselves or that the scheduler stopped."""

    def __init__(self) -> None:
        self.count = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune calls this method in the driver, and also the next one."""
        self.count += 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial has failed more often than allowed."""
        self.count += 1
