"""One way to run a grid of trials on Ray Tune: quiet, each retried once, what each reported last in the order of the grid."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any

from ray import tune

from diet_ray.errors import DietError


def run_trials(
    trainable: Any, grid: dict[str, list[Any]], *, name: str, storage: Path, cpus: float, callback: tune.Callback
) -> list[dict[str, Any]]:
    """Run one trial for each combination of values, and return what each reported last.

    Args:
        trainable: a function of the trial's values, or such a one with `tune.with_parameters`.
        grid: the values of each parameter.
        name: of the experiment; it gets a suffix that makes it unique.
        storage: folder for Ray's own record of the trials, which the caller removes.
        cpus: logical CPUs of each trial.
        callback: told in the driver of each trial that ends.

    Raises:
        DietError: a trial failed twice.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables, which verbose=0 alone does not silence
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus}),
        param_space={key: tune.grid_search(values) for key, values in grid.items()},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(storage.resolve()),
            verbose=0,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    ).fit()
    if results.errors:
        raise DietError(f"{len(results.errors)} of {len(results)} trials failed, the first with: {results.errors[0]}")
    return [results[number].metrics or {} for number in range(len(results))]
