"""Which candidate is the best: planted differences, and what is said about them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from diet_ray.config import StudentConfig
from diet_ray.judge.decision import decide
from diet_ray.judge.forest_plot import plot_forest
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.judge.leaderboard_page import write_leaderboard
from diet_ray.report.page import Source


def planted(*levels: float, seeds: int = 2, rows: int = 4000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Candidates `c0`, `c1`, ... of such mean losses on rows that are hard for all alike."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(1, 0.4, size=rows)
    losses = {
        f"c{k}": np.stack([level + hard + 0.1 * rng.normal(size=rows) + 1e-4 * rng.normal() for _ in range(seeds)])
        for k, level in enumerate(levels)
    }
    return losses, rng.integers(900, size=rows)


def test_what_is_better_beyond_doubt_and_what_is_not() -> None:
    losses, users = planted(0.1, 0.0, 0.001, 0.1)
    decision = decide(losses, users)
    assert decision is not None
    assert [part.candidate for part in decision.candidates][:2] == ["c1", "c2"]
    first, second, third, _ = decision.candidates
    assert (first.difference, first.adjusted, first.rows_needed) == (0, 1, 0)
    assert first.low == first.high == 0
    assert third.low < third.difference < third.high
    assert third.low > 0.08
    assert third.adjusted < 1e-3
    assert [part.group for part in decision.candidates] == ["a", "a", "b", "b"]
    assert decision.undecided == ["c2"]
    assert second.low < 0 < second.high
    assert first.best + second.best == pytest.approx(1)
    assert second.rows_needed > 4000
    assert (
        decision.sentences()[0] == "c1 has the smallest loss; c2 cannot be told from it (95 %, corrected for all pairs)"
    )
    assert decision.rows == 4000


def test_one_winner() -> None:
    losses, users = planted(0.1, 0.0, 0.2)
    decision = decide(losses, users)
    assert decision is not None
    assert decision.sentences() == [
        "c1 has the smallest loss, and every other candidate is worse (95 %, corrected for all pairs)"
    ]
    assert decision.candidates[0].best == 1


def test_the_noise_between_seeds_counts() -> None:
    """Two candidates whose seeds vary more than they differ are not told apart, however many rows say so."""
    losses, users = planted(0.0, 0.02)
    for part in losses.values():
        part += np.array([[-0.05], [0.05]])
    decision = decide(losses, users)
    assert decision is not None
    assert decision.undecided
    assert decision.candidates[1].rows_needed == math.inf
    assert decision.knows_seeds
    alone = decide({name: part[:1] for name, part in losses.items()}, users)
    assert alone is not None
    assert not alone.undecided  # rows alone would say so
    assert alone.sentences()[-1] == "One seed each: the intervals do not contain the noise between seeds (--seeds 2)"


def test_who_diverges_is_no_part_of_it() -> None:
    losses, users = planted(0.0, 0.1, 0.2)
    losses["c0"][1, 7] = np.nan
    decision = decide(losses, users)
    assert decision is not None
    assert decision.diverged == ["c0"]
    assert [part.candidate for part in decision.candidates] == ["c1", "c2"]


def test_nothing_to_compare() -> None:
    losses, users = planted(0.0, 0.1)
    assert decide({"c0": losses["c0"]}, users) is None
    assert decide({name: part[:, :1] for name, part in losses.items()}, users[:1]) is None
    assert decide(losses | {"c1": losses["c1"] * np.nan}, users) is None


def test_equals_are_one_group() -> None:
    losses, users = planted(0.0)
    twins = {"a": losses["c0"], "b": losses["c0"].copy()}
    decision = decide(twins, users)
    assert decision is not None
    assert [part.group for part in decision.candidates] == ["a", "a"]
    assert [part.adjusted for part in decision.candidates] == [1, 1]


def test_a_long_group_is_not_spelled_out() -> None:
    losses, users = planted(*[0.0] * 8)
    decision = decide(losses, users)
    assert decision is not None
    sentence = decision.sentences()[0]
    assert " and 2 more cannot be told from it" in sentence


def test_the_page_shows_the_decision(tmp_path: Path) -> None:
    losses, users = planted(0.1, 0.0, 0.001)
    losses["wild"] = losses["c0"] * np.nan
    decision = decide(losses, users)
    assert decision is not None
    board = Leaderboard(
        memory="m", units=30, stage=1, log="l", block="day-2", rows=4000, live=0.1, tasks=["click"], student=StudentConfig(),
        standings=[], verdicts=[], decision=decision,
    )  # fmt: skip
    for folder in ("first", "again"):
        (tmp_path / folder).mkdir()
        write_leaderboard(tmp_path / folder, board, Source("simulated", "3"))
    page = (tmp_path / "first" / "leaderboard.html").read_text(encoding="utf-8")
    assert page == (tmp_path / "again" / "leaderboard.html").read_text(encoding="utf-8")
    for text in (decision.sentences()[0], "4,000 rows from day-2 on", "Diverged, and left out: wild.", "best"):
        assert text in page
    assert (tmp_path / "first" / "decision.svg").read_bytes() == (tmp_path / "again" / "decision.svg").read_bytes()
    axis = plot_forest(decision.candidates, {*decision.undecided}, "95 % intervals").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["c1  a", "c2  a", "c0  b"]
    shaded = [patch.get_y() for patch in axis.patches]
    assert shaded == [-0.5, 0.5]
