"""The verdict on the order, at every edge of its rule and on planted orders; and how many candidates it needs."""

from __future__ import annotations

import math
from math import factorial, nan
from typing import Any

import numpy as np
import pytest

from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.measures import Interval, Noise, Results, bootstrap
from diet_ray.judge.fidelity.order import ENOUGH, LEAST, USEFUL, check_candidates, judge_order, reach_of_chance

FULL = Interval(value=0.9, low=0.8, high=0.95)


def verdict(value: float, low: float, high: float, **changes: Any) -> Any:
    keys = {"candidates": 101, "seeds": 3, "ceiling": FULL, "lower": False} | changes
    return judge_order("live", "is_click", Interval(value=value, low=low, high=high), **keys)


REACH = reach_of_chance(101)  # 0.196


@pytest.mark.parametrize(
    ("figures", "changes", "order", "why"),
    [
        ((0.7, 0.4, 0.9), {}, "trusted", "above chance"),
        ((USEFUL, 0.2, 0.7), {}, "trusted", "0.5 or more"),
        ((0.499, 0.2, 0.7), {}, "not shown", "below 0.5"),
        ((0.7, 0.001, 0.9), {}, "trusted", "above chance"),
        ((0.7, 0.0, 0.9), {}, "not shown", "holds both 0, no agreement, and 0.5"),
        ((0.7, 0.4, 0.9), {"lower": True}, "not shown", "but lower than the full log's own, 0.90"),
        ((0.7, 0.4, 0.9), {"lower": True, "ceiling": None}, "not shown", "but lower than the full log's own"),
        ((0.7, 0.4, 0.9), {"seeds": 1}, "not shown", "of one seed"),
        ((0.7, 0.4, 0.9), {"candidates": 8}, "not shown", "chance alone reaches ±0.74 with 8 candidates"),
        ((1.0, 1.0, 1.0), {"candidates": 4}, "not shown", "4 candidates are too few"),
        ((1.0, 1.0, 1.0), {"candidates": 5}, "trusted", "above chance"),
        ((0.1, -0.2, 0.499), {}, "chance", "not above 0, and below 0.5"),
        ((0.1, -0.2, 0.5), {}, "not shown", "holds both"),
        ((-0.6, -0.9, -0.3), {}, "chance", "below 0.5"),
        ((0.1, -0.2, 0.4), {"candidates": 10}, "not shown", "chance alone reaches"),
        ((0.1, -0.2, 0.4), {"seeds": 1}, "chance", "below 0.5"),
        ((nan, nan, nan), {}, "not shown", "cannot be measured"),
        ((0.7, nan, nan), {}, "not shown", "cannot be measured"),
        ((0.3 + REACH, 0.2, 0.7), {"lower": True}, "not shown", "below 0.5"),
    ],
)  # fmt: skip
def test_the_rule(figures: tuple[float, float, float], changes: dict[str, Any], order: str, why: str) -> None:
    said = verdict(*figures, **changes)
    assert said.order == order
    assert why in said.because
    words = {"trusted": "may be trusted", "not shown": "not shown", "chance": "no better than chance"}
    assert said.sentence == f"Order of is_click, live: {words[order]}, because {said.because}"


@pytest.mark.parametrize(("noise", "order"), [(0.05, "trusted"), (math.inf, "chance"), (0.12, "not shown")])
def test_planted_orders(noise: float, order: str) -> None:
    """Forty candidates whose true quality is known: seen nearly as it is, not at all, and in between."""
    rng = np.random.default_rng(7)
    quality = np.linspace(0.6, 0.8, 40)
    seen = rng.permutation(quality) if math.isinf(noise) else quality + rng.normal(0, noise, 40)
    full, other = (
        Results(auc, np.ones((40, 3)))
        for auc in (np.tile(quality[:, None], 3), seen[:, None] + rng.normal(0, 1e-4, (40, 3)))
    )
    interval = bootstrap(full, other, Noise(1e-4, 80), seed=1, replicates=500).intervals()["spearman"]
    said = judge_order("frozen", "t", interval, candidates=40, seeds=3, ceiling=None, lower=False)
    assert said.order == order, said.because


def test_the_reach_of_chance_is_that_of_unrelated_orders() -> None:
    rng, n = np.random.default_rng(0), 17
    orders = rng.permuted(np.tile(np.arange(n), (4000, 1)), axis=1)
    drawn = 1 - 6 * ((orders - np.arange(n)) ** 2).sum(axis=1) / (n * (n * n - 1))
    assert np.mean(np.abs(drawn) > reach_of_chance(n)) == pytest.approx(0.05, abs=0.012)


def test_the_numbers_of_candidates_are_those_that_the_rule_needs() -> None:
    assert 2 / factorial(LEAST - 1) > 0.05 >= 2 / factorial(LEAST)  # the right order or its reverse, by chance
    assert reach_of_chance(LEAST - 1) > 1 >= reach_of_chance(LEAST)
    assert reach_of_chance(ENOUGH - 1) > USEFUL >= reach_of_chance(ENOUGH)
    with pytest.raises(ConfigError, match=r"4 are too few to judge an order.*name 5 or more, 17"):
        check_candidates(4)
    assert "only an order with a Spearman above 0.98" in check_candidates(5)
    assert "above 0.51" in check_candidates(16)
    assert check_candidates(17) == ""
