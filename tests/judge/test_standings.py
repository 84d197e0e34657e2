"""The spread of a standing: over seeds on one memory, over memories and seeds where there are several."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diet_ray.judge.standings import rank, spread
from diet_ray.judge.verdict import Verdict


@pytest.mark.parametrize(
    ("values", "memories", "expected"),
    [
        ([1.0, 3.0], [0, 0], math.sqrt(2)),
        ([1.0, 3.0], [0, 1], math.sqrt(2)),  # one seed on each of two memories
        ([1.0, 1.0, 3.0, 3.0], [0, 0, 1, 1], math.sqrt(2)),  # seeds that do not differ add nothing
        (
            [0.0, 2.0, 10.0, 12.0],
            [0, 0, 1, 1],
            math.sqrt(50 + 2 / 2),
        ),  # means 1 and 11; a single seed has all of the variance 2
        ([0.0, 2.0, 0.0, 2.0], [0, 0, 1, 1], math.sqrt(2)),  # memories that do not differ: never less than the seeds'
    ],
)
def test_the_standard_deviation_of_one_training(values: list[float], memories: list[int], expected: float) -> None:
    assert spread(np.array(values), np.array(memories)) == pytest.approx(expected)


def test_one_training_has_no_spread() -> None:
    assert math.isnan(spread(np.array([1.0]), np.array([0])))


def test_a_line_counts_seeds_and_memories() -> None:
    def verdict(seed: int, memory: int) -> Verdict:
        metrics = {"click": {"auc": 0.5 + 0.1 * memory, "logloss": 0.5, "gauc": 0.5, "calibration": 1.0}}
        return Verdict(
            candidate="a", arch="fm", trained_on="memory", seed=seed, memory=memory, metrics=metrics, train_seconds=1,
            train_wall_seconds=1, parameters=1,
        )  # fmt: skip

    (line,) = rank([verdict(seed, memory) for memory in range(3) for seed in range(2)])
    assert (line.seeds, line.memories) == (2, 3)
    assert line.mean["click"]["auc"] == pytest.approx(0.6)
    assert line.sd["click"]["auc"] == pytest.approx(0.1)
