"""The measures of the protocol `live` against loops written apart, and on results whose answer is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from diet_ray.judge.fidelity.live.measures import (
    MEASURES,
    PART,
    Draws,
    Losses,
    another_seed,
    blind,
    compare,
    intervals,
    minus,
    parts,
    summed,
    whole_means,
)
from diet_ray.judge.fidelity.measures import Noise, seed_noise
from diet_ray.judge.live import rows_met

SHARES = [0.1, 0.5]
ROWS = [3000, 4100]
NOISE = Noise(sd=0.01, df=30)
DRAWS = Draws(ROWS, SHARES, seed=3, replicates=200)


def edges(rows: int, shares: list[float]) -> list[int]:
    return [rows_met(rows, share) for share in shares]


def rows_of(quality: np.ndarray, seeds: int, seed: int, *, shift: float = 0.0) -> list[np.ndarray]:
    """Per block `[C, S, N]` losses of single rows around each candidate's quality; hard rows are hard for all."""
    rng = np.random.default_rng(seed)
    return [
        (quality[:, None, None] + shift + rng.normal(size=(len(quality), seeds, 1)) * 0.002).astype(np.float32)
        + np.random.default_rng(1).gamma(2, 0.2, size=n).astype(np.float32)
        for n in ROWS
    ]


def tables(rows: list[np.ndarray]) -> list[Losses]:
    return [summed(of_block, n, SHARES) for of_block, n in zip(rows, ROWS, strict=True)]


QUALITY = np.linspace(0, 0.2, 9)
FULL_ROWS = rows_of(QUALITY, 3, 0)
FULL = tables(FULL_ROWS)
OTHER_ROWS = rows_of(QUALITY[[0, 2, 1, 3, 5, 4, 6, 8, 7]], 2, 5, shift=0.03)
OTHER = tables(OTHER_ROWS)


def values(replicates: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(replicates[name][0]) for name in MEASURES}


def test_parts_divide_a_block_and_never_cross_a_share() -> None:
    for rows in (1, 9, 300, 2561):
        first, stratum = parts(rows, SHARES)
        lengths = np.diff(first, append=rows)
        assert lengths.sum() == rows
        assert lengths.min() > 0
        assert lengths.max() <= PART
        for number, edge in enumerate(edges(rows, SHARES)):
            assert lengths[stratum <= number].sum() == edge


def test_means_are_those_of_the_rows() -> None:
    for number, n in enumerate(ROWS):
        for share, rows in enumerate([*edges(n, SHARES), n]):
            share = share if rows < n else -1
            means = DRAWS.means(OTHER[number], number, share)[:, :, 0]
            np.testing.assert_allclose(means, OTHER_ROWS[number][:, :, :rows].mean(axis=2, dtype=np.float64), rtol=1e-6)
    assert [len(means) for means in whole_means(FULL)] == [9, 9]


def test_every_measure_as_a_loop_computes_it() -> None:
    expected: dict[str, list[float]] = {name: [] for name in MEASURES}
    for full, other, n in zip(FULL_ROWS, OTHER_ROWS, ROWS, strict=True):
        few = edges(n, SHARES)[0]
        truth = [float(np.mean(full[c], dtype=np.float64)) for c in range(9)]
        singles = [[float(np.mean(other[c, s, :few], dtype=np.float64)) for c in range(9)] for s in range(2)]
        mean = np.mean(singles, axis=0)
        same = [float(np.mean(full[c, :, :few], dtype=np.float64)) for c in range(9)]
        expected["spearman"].append(stats.spearmanr(truth, mean)[0])
        expected["one_seed"].append(np.mean([stats.spearmanr(truth, single)[0] for single in singles]))
        expected["kendall"].append(stats.kendalltau(truth, mean)[0])
        limit = stats.t.ppf(0.975, 30) * 0.01 * math.sqrt(2 / 3)
        pairs = [(a, b) for a, b in itertools.combinations(range(9), 2) if abs(truth[a] - truth[b]) > limit]
        expected["pairs"].append(len(pairs))
        expected["pairs_right"].append(np.mean([(truth[a] < truth[b]) == (mean[a] < mean[b]) for a, b in pairs]))
        order = np.argsort(mean)
        expected["top1_regret"].append(truth[order[0]] - min(truth))
        expected["top3_regret"].append(min(truth[c] for c in order[:3]) - min(truth))
        expected["gap"].append(np.mean([abs(mean[c] - same[c]) for c in range(9)]))
        expected["diverged"].append(0)
        expected["left_out"].append(0)
    measured = values(compare(FULL, OTHER, 0, NOISE, DRAWS))
    for name, of_blocks in expected.items():
        assert measured[name] == pytest.approx(np.mean(of_blocks), abs=1e-6), name
    assert 0 < measured["pairs_right"] < 1


def test_replicates_draw_candidates_seeds_and_parts() -> None:
    """The second replicate, computed from its own draws by a loop."""
    replicates = compare(FULL, OTHER, 0, NOISE, DRAWS)
    who, full_seeds, other_seeds = DRAWS.of("candidates", 9)[1], DRAWS.of("full", 3)[1], DRAWS.of("other", 2)[1]
    correlations = []
    for number, n in enumerate(ROWS):
        first, stratum = parts(n, SHARES)
        weight = np.repeat(DRAWS.weights[number][1], np.diff(first, append=n))
        few = edges(n, SHARES)[0]
        truth = [np.mean([np.average(FULL_ROWS[number][c, s], weights=weight) for s in full_seeds]) for c in who]
        mean = [
            np.mean([np.average(OTHER_ROWS[number][c, s, :few], weights=weight[:few]) for s in other_seeds])
            for c in who
        ]
        correlations.append(stats.spearmanr(truth, mean)[0])
        for share in np.unique(stratum):  # each share keeps its size
            assert DRAWS.weights[number][1][stratum == share].sum() == (stratum == share).sum()
    assert replicates["spearman"][1] == pytest.approx(np.mean(correlations), abs=1e-6)


def test_what_is_known_comes_out() -> None:
    same = values(compare(FULL, FULL, 0, NOISE, DRAWS))
    assert same["spearman"] == pytest.approx(1)
    assert same["top1_regret"] == same["gap"] == 0
    backwards = tables(rows_of(-QUALITY, 2, 5))
    assert values(compare(FULL, backwards, 0, NOISE, DRAWS))["spearman"] == pytest.approx(-1)
    assert values(compare(FULL, backwards, 0, NOISE, DRAWS))["pairs_right"] == 0
    constant = tables([np.ones_like(rows) for rows in OTHER_ROWS])
    tied = values(compare(FULL, constant, 0, NOISE, DRAWS))
    assert math.isnan(tied["spearman"])
    assert tied["top1_regret"] == pytest.approx(QUALITY[-1], abs=0.01)  # a tie is no choice: the worst counts
    assert minus(compare(FULL, OTHER, 0, NOISE, DRAWS), compare(FULL, OTHER, 0, NOISE, DRAWS))["gap"].high == 0


def test_one_seed_against_the_others() -> None:
    measured = values(another_seed(FULL, 1, NOISE, DRAWS))
    expected = []
    for rows, n in zip(FULL_ROWS, ROWS, strict=True):
        for seed in range(3):
            others = [s for s in range(3) if s != seed]
            few = rows[:, seed, : edges(n, SHARES)[1]].mean(axis=1)
            expected.append(stats.spearmanr(rows[:, others].mean(axis=(1, 2)), few)[0])
    assert measured["spearman"] == pytest.approx(np.mean(expected), abs=1e-3)
    alone = [Losses(losses.sums[:, :1], losses.rows) for losses in FULL]
    assert math.isnan(values(another_seed(alone, 0, NOISE, DRAWS))["spearman"])


def test_a_blind_choice_loses_what_the_mean_over_all_choices_loses() -> None:
    measured = values(blind(FULL, DRAWS))
    one, three = [], []
    for rows in FULL_ROWS:
        truth = rows.mean(axis=(1, 2), dtype=np.float64)
        lost = truth - truth.min()
        one.append(lost.mean())
        three.append(np.mean([min(lost[list(chosen)]) for chosen in itertools.combinations(range(9), 3)]))
    assert measured["top1_regret"] == pytest.approx(np.mean(one), abs=1e-6)
    assert measured["top3_regret"] == pytest.approx(np.mean(three), abs=1e-6)
    assert (measured["spearman"], measured["pairs_right"]) == (0, 0.5)


def test_who_diverges_is_last_and_who_has_no_truth_is_left_out() -> None:
    other = [rows.copy() for rows in OTHER_ROWS]
    other[1][0, 1, 40:] = np.nan  # the best one, with one seed, in one block
    measured = compare(FULL, tables(other), 0, NOISE, DRAWS)
    assert float(measured["diverged"][0]) == 0.5  # in one of two blocks
    assert float(measured["spearman"][0]) < float(compare(FULL, OTHER, 0, NOISE, DRAWS)["spearman"][0])
    assert math.isfinite(float(measured["gap"][0]))
    full = [rows.copy() for rows in FULL_ROWS]
    full[0][4, 2, -1] = np.nan
    measured = compare(tables(full), OTHER, 0, NOISE, DRAWS)
    assert float(measured["left_out"][0]) == 1
    keep = np.delete(np.arange(9), 4)
    without = [[Losses(losses.sums[keep], losses.rows) for losses in table] for table in (FULL, OTHER)]
    assert float(measured["spearman"][0]) == pytest.approx(
        float(compare(without[0], without[1], 0, NOISE, DRAWS)["spearman"][0])
    )
    nothing = [rows * np.nan for rows in FULL_ROWS]
    for figures in (compare(tables(nothing), OTHER, 0, NOISE, DRAWS), blind(tables(nothing), DRAWS)):
        shown = intervals(figures)
        assert math.isnan(shown["top1_regret"].value)


def test_intervals_cover() -> None:
    """The truth of many candidates, seeds and rows lies in the interval of a small bench about as often as it should."""
    rng, inside, rounds = np.random.default_rng(0), 0, 60
    many = rng.normal(size=3000)
    population = float(stats.spearmanr(many, many + rng.normal(size=3000))[0])
    for number in range(rounds):
        quality = rng.normal(size=30)
        noisy = quality + rng.normal(size=30)
        draws = Draws(ROWS, SHARES, seed=number, replicates=300)
        full, other = (tables(rows_of(0.05 * levels, 2, number + k)) for k, levels in enumerate((quality, noisy)))
        interval = intervals(compare(full, other, 0, seed_noise(list(whole_means(full))), draws))["spearman"]
        inside += interval.low <= population <= interval.high
    assert inside / rounds >= 0.85
