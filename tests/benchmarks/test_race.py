"""The replays of races: what each way chooses on planted losses, what it costs, and that the page is written from the results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.fidelity import race
from diet_ray.judge.progressive import row_losses

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_results() -> None:
    page = (ROOT / "docs" / "race.md").read_text(encoding="utf-8")
    assert page == race.document(page)


def test_logits_are_found_again_from_losses() -> None:
    z = np.array([-20.0, -3.0, -0.1, 0.0, 0.5, 4.0, 15.0])
    for label in (0, 1):
        labels = np.full(len(z), label, dtype=np.uint8)
        losses = row_losses(z[:, None], labels[:, None])[:, 0]
        assert race.logits(losses, labels) == pytest.approx(z, rel=1e-3, abs=1e-3)


@pytest.fixture
def setting() -> race.Setting:
    """Six candidates; 0 is the best, 1 nearly as good, the others far worse. From scratch the order is the opposite."""
    rng = np.random.default_rng(0)
    n, levels = 4000, np.array([0.0, 0.0005, 0.05, 0.06, 0.07, 0.08])
    hard = rng.gamma(1, 0.4, size=n)

    def losses(of: np.ndarray) -> np.ndarray:
        return of[:, None, None] + hard + 0.05 * rng.normal(size=(6, 3, n)) + 2e-4 * rng.normal(size=(6, 3, 1))

    on: Any = SimpleNamespace(
        users=rng.integers(700, size=n),
        full=losses(levels),
        memory=losses(levels),
        recent=losses(-levels),
        ends=[256, 512, 1024, 4000],
        rows_of_log=100_000,
        curves=0.7 + levels[:, None] * np.ones((6, 9)),
        window=np.full(9, 1000),
    )
    return race.Setting(on, np.arange(6), (0, 2), 5000, 7)


def test_a_race_keeps_those_that_cannot_be_told_apart(setting: race.Setting) -> None:
    chosen = race.raced(setting)
    assert chosen.candidate == 0
    assert sorted(chosen.standing or []) == [0, 1]
    launches = 6 * 2 * 5000
    assert launches + 2 * 2 * 4000 < chosen.examples < launches + 6 * 2 * 4000
    assert set(chosen.ranked) == {0, 1}
    confirmed = race.confirmed(setting, chosen)
    assert confirmed.candidate in (0, 1)
    assert confirmed.examples == chosen.examples + 2 * 2 * 104_000


def test_a_choice_without_a_race(setting: race.Setting) -> None:
    assert race.at_rung(setting, setting.on.memory, 3) == race.Chosen(0, 6 * 2 * 9000)
    assert race.at_rung(setting, setting.on.recent, 1).candidate == 5


def test_asha_spends_no_more_than_the_race(setting: race.Setting) -> None:
    """Six trials over nine blocks of 1000 rows: all of them in full would cost 54,000."""
    for budget in (35_000, 45_000):
        runs = race.asha(setting, budget=budget, brackets=1)
        assert len(runs) == race.ORDERS
        assert np.mean([run.examples for run in runs]) <= budget
        assert all(run.candidate in (0, 1) for run in runs)
        assert all(run.ranked[0] == run.candidate and len(set(run.ranked)) == 6 for run in runs)
    cheapest = race.asha(setting, budget=1, brackets=1)  # nothing is cheap enough
    assert np.mean([run.examples for run in cheapest]) < 30_000
    assert race.asha(setting, budget=45_000, brackets=3) == race.asha(setting, budget=45_000, brackets=3)


def test_the_figures_of_a_way() -> None:
    #                pool regret  auc   cost saved left kept
    rows = np.array([[0, 0.0, 0.001, 2.0, 20.0, 3, 1.0], [1, 0.002, 0.003, 4.0, 10.0, 1, 0.0]])
    figures = race._choice("w", rows, 0.001)
    assert (figures.regret, figures.worst, figures.within_noise, figures.kept_best) == (0.001, 0.002, 0.5, 0.5)
    assert (figures.auc_regret, figures.cost, figures.saved, figures.standing) == (0.002, 3.0, 15.0, 2.0)
    assert 0 <= figures.low < figures.high <= 0.002
