"""What decides in a search on Ray Tune: ASHA, which stops trials, and Optuna, which suggests them; every setting is given."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler

from diet_ray.config import StudentConfig
from diet_ray.judge.search import REDUCTION, RUNGS
from diet_ray.judge.suggest import Suggest, tpe_sampler
from diet_ray.seeds import derive_seed


def asha(student: StudentConfig) -> ASHAScheduler:
    """Stops all but the best third of the students after a ninth and a third of their steps."""
    return ASHAScheduler(
        time_attr="step",
        metric="score",
        mode="max",
        max_t=student.steps,
        grace_period=student.steps / REDUCTION ** (RUNGS - 1),
        reduction_factor=REDUCTION,
        # With several brackets, numpy's global generator would draw each trial's.
        brackets=1,
        stop_last_trials=True,
    )


def optuna_search(suggest: Suggest, seed: int) -> Any:
    """Suggests candidates from the scores so far, after those that `suggest` has kept. Raises VersionError (see `Suggest.before`)."""
    from ray.tune.search.optuna import OptunaSearch  # it imports Optuna, an extra

    before = suggest.before()
    # Earlier suggestions are given again without a draw. With the same seed, the next draws would repeat the first values.
    sampler = tpe_sampler(derive_seed(seed, "optuna", len(before)) % 2**32)
    return OptunaSearch(suggest, metric="score", mode="max", sampler=sampler, points_to_evaluate=before)
