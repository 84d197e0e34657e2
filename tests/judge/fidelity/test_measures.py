from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diet_ray.judge.fidelity.measures import (
    MEASURES,
    Interval,
    Noise,
    Results,
    bootstrap,
    difference,
    measure,
    pooled_pearson,
    resample,
    seed_means,
    seed_noise,
)

NOISE = Noise(sd=0.004, df=30)
CORRELATIONS = {"spearman": stats.spearmanr, "kendall": stats.kendalltau, "pearson": stats.pearsonr}


def table(rng: np.random.Generator, quality: np.ndarray, seeds: int, sd: float = 0.005) -> Results:
    """Candidates of some quality, with noise from seed to seed."""
    auc = quality[:, None] + sd * rng.normal(size=(len(quality), seeds))
    return Results(auc, 1.2 - auc + sd * rng.normal(size=auc.shape))


def pair(seed: int, n: int = 9, full_seeds: int = 4, other_seeds: int = 3) -> tuple[Results, Results]:
    rng = np.random.default_rng(seed)
    quality = 0.7 + 0.02 * rng.normal(size=n)
    return table(rng, quality, full_seeds), table(rng, quality * 0.9 + 0.01 * rng.normal(size=n), other_seeds)


def broken(given: Results, *where: tuple[int, int]) -> Results:
    auc, logloss = given.auc.copy(), given.logloss.copy()
    for place in where:
        auc[place] = logloss[place] = math.nan
    return Results(auc, logloss)


def slow(
    full: Results, other: Results, noise: Noise, who: np.ndarray, full_seeds: np.ndarray, other_seeds: np.ndarray
) -> dict[str, float]:
    """One draw, measured with loops. Candidates that diverged on the full log are no part of it."""
    seen = [a for a in other.auc.ravel() if not math.isnan(a)]
    guess = min([0.5, *seen])
    x, y, loss_gaps = [], [], []
    for c in who:
        x.append(np.mean([full.auc[c, s] for s in full_seeds]))
        y.append(np.mean([guess if math.isnan(other.auc[c, s]) else other.auc[c, s] for s in other_seeds]))
        losses = [other.logloss[c, s] for s in other_seeds if not math.isnan(other.logloss[c, s])]
        if losses:
            loss_gaps.append(abs(np.mean([full.logloss[c, s] for s in full_seeds]) - np.mean(losses)))
    gaps = [abs(a - b) for a, b in zip(x, y, strict=True)]
    ranking = sorted(range(len(who)), key=lambda i: (-y[i], x[i], who[i]))
    distinct = list(dict.fromkeys(who[i] for i in ranking))
    by_name = dict(zip(who, x, strict=True))
    limit = stats.t.ppf(0.975, noise.df) * noise.sd * math.sqrt(2 / len(full_seeds))
    right, pairs = 0.0, 0
    for i, j in itertools.combinations(range(len(who)), 2):
        if who[i] != who[j] and abs(x[i] - x[j]) > limit:
            pairs += 1
            right += 0.5 if y[i] == y[j] else float((x[i] > x[j]) == (y[i] > y[j]))
    return {
        "auc_gap_mean": float(np.mean(gaps)),
        "auc_gap_max": max(gaps),
        "logloss_gap_mean": float(np.mean(loss_gaps)) if loss_gaps else math.nan,
        "logloss_gap_max": max(loss_gaps, default=math.nan),
        **{name: float(how(x, y)[0]) for name, how in CORRELATIONS.items()},
        "spread": float(np.std(y, ddof=1) / np.std(x, ddof=1)),
        "top1_regret": max(x) - by_name[distinct[0]],
        "top3_regret": max(x) - max(by_name[name] for name in distinct[:3]),
        "pairs_right": right / pairs if pairs else math.nan,
        "pairs": float(pairs),
        "diverged": float(sum(math.isnan(other.auc[c, s]) for c in who for s in other_seeds)),
        "left_out": 0.0,
    }


def as_it_is(full: Results, other: Results) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.arange(len(full.auc)), np.arange(full.auc.shape[1]), np.arange(other.auc.shape[1])


@pytest.mark.parametrize("seed", range(5))
def test_every_measure_is_that_of_a_loop(seed: int) -> None:
    full, other = pair(seed)
    found = measure(full, other, NOISE)
    assert list(found) == list(MEASURES)
    assert found == pytest.approx(slow(full, other, NOISE, *as_it_is(full, other)))
    assert 5 < found["pairs"] < 36


@pytest.mark.parametrize("seed", range(3))
def test_every_replicate_is_that_of_a_loop_over_the_same_draws(seed: int) -> None:
    full, other = pair(seed)
    other = broken(other, (2, 0), (2, 1), (2, 2), (5, 1))
    found = bootstrap(full, other, NOISE, seed=seed, replicates=40)
    drawn = [resample(what, n, seed=seed, replicates=40) for what, n in (("candidates", 9), ("full", 4), ("other", 3))]
    assert any(len(set(row)) < 7 for row in drawn[0])
    for b, draw in enumerate(zip(*drawn, strict=True)):
        expected = slow(full, other, NOISE, *draw)
        assert {name: values[b] for name, values in found.replicates.items()} == pytest.approx(expected, nan_ok=True)
    assert found.value == pytest.approx(measure(full, other, NOISE))


def test_a_candidate_drawn_twice_is_no_pair_and_takes_one_place() -> None:
    # No noise: every difference counts. The reduced set puts the best fourth.
    full, other = flat(np.array([0.9, 0.8, 0.7, 0.6])), flat(np.array([0.6, 0.9, 0.8, 0.7]))
    found = bootstrap(full, other, Noise(0.0, 5), seed=0, replicates=500).replicates
    who = resample("candidates", 4, seed=0, replicates=500)
    assert (found["pairs"] == [sum(a != b for a, b in itertools.combinations(row, 2)) for row in who]).all()
    some = np.array([len(set(row)) < 4 for row in who])
    assert found["top3_regret"][some] == pytest.approx(0, abs=1e-12)
    assert found["top3_regret"][~some] == pytest.approx(0.1)


def test_intervals_are_percentiles_of_what_is_defined() -> None:
    found = bootstrap(*pair(0), NOISE, seed=3)
    found.replicates["spearman"][::7] = math.nan
    kept = np.delete(found.replicates["spearman"], np.s_[::7])
    low, high = np.percentile(kept, [2.5, 97.5])
    expected = Interval(value=found.value["spearman"], low=low, high=high)
    assert found.intervals()["spearman"] == expected
    assert low < expected.value < high


# Distinct multiples of 1/1000, so that means are equal only where their candidates are.
qualities = st.lists(st.integers(500, 900), min_size=2, max_size=12, unique=True).map(
    lambda drawn: np.array(drawn) / 1000
)


def flat(auc: np.ndarray, seeds: int = 2) -> Results:
    auc = np.repeat(auc[:, None], seeds, axis=1)
    return Results(auc, 1 - auc)


@settings(deadline=None)
@given(qualities)
def test_a_perfect_copy_and_its_reverse(auc: np.ndarray) -> None:
    silent = Noise(0.0, 10)
    copy = measure(flat(auc), flat(auc, 3), silent)
    for name in ("spearman", "kendall", "pearson", "spread", "pairs_right"):
        assert copy[name] == pytest.approx(1)
    for name in ("auc_gap_mean", "auc_gap_max", "logloss_gap_max", "top1_regret", "top3_regret"):
        assert copy[name] == pytest.approx(0, abs=1e-12)
    assert copy["pairs"] == math.comb(len(auc), 2)
    reverse = measure(flat(auc), flat(1.4 - auc), silent)
    for name in ("spearman", "kendall", "pearson"):
        assert reverse[name] == pytest.approx(-1)
    assert reverse["pairs_right"] == 0
    assert reverse["top1_regret"] == pytest.approx(np.ptp(auc))
    assert reverse["top3_regret"] == pytest.approx(auc.max() - np.sort(auc)[:3].max())


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_the_order_of_candidates_changes_nothing(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    # Steps of 1/8 are exact in binary, so that ties stay ties.
    full, other = (Results(*(rng.integers(4, 8, size=(2, n, 2)) / 8)) for _ in range(2))
    order = rng.permutation(n)
    moved = [Results(given.auc[order], given.logloss[order]) for given in (full, other)]
    noise = Noise(0.01, 9)
    assert measure(*moved, noise) == pytest.approx(measure(full, other, noise), nan_ok=True)


def test_shuffled_candidates_predict_nothing() -> None:
    rng = np.random.default_rng(0)
    full, other = pair(1, n=12)
    found = []
    for _ in range(400):
        order = rng.permutation(12)
        found.append(measure(full, Results(other.auc[order], other.logloss[order]), NOISE))
    for name, expected in (("spearman", 0), ("kendall", 0), ("pearson", 0), ("pairs_right", 0.5)):
        assert np.mean([one[name] for one in found]) == pytest.approx(expected, abs=0.05)


def test_ties_on_the_reduced_set() -> None:
    auc = np.array([0.6, 0.8, 0.7, 0.75])
    found = measure(flat(auc), flat(np.full(4, 0.7)), Noise(0.0, 5))
    assert found["pairs_right"] == 0.5
    assert found["spread"] == 0
    assert found["top1_regret"] == pytest.approx(0.2)  # the worst of the tied
    assert found["top3_regret"] == pytest.approx(0.05)
    assert all(math.isnan(found[name]) for name in CORRELATIONS)


def test_significant_pairs_by_the_formula() -> None:
    # t(.975, 8) = 2.306: with S = 2 a difference of means must exceed 2.306 * sd.
    full, other = flat(np.array([0.5, 0.523, 0.5462])), flat(np.array([0.5, 0.6, 0.55]))
    found = measure(full, other, Noise(0.01, 8))
    assert found["pairs"] == 2  # .0232 and .0462, not .0230
    assert found["pairs_right"] == 0.5
    assert measure(flat(full.auc[:, 0], seeds=8), other, Noise(0.01, 8))["pairs"] == 3


def test_without_repeated_trainings_no_pair_is_significant() -> None:
    noise = seed_noise([np.array([[0.5], [0.6]]), np.array([[0.7, math.nan]])])
    assert math.isnan(noise.sd)
    assert noise.df == 0
    found = measure(*pair(0), noise)
    assert found["pairs"] == 0
    assert math.isnan(found["pairs_right"])


def test_diverged_on_the_reduced_set() -> None:
    full, other = pair(2)
    best = int(full.auc.mean(axis=1).argmax())
    gone = broken(other, *((best, r) for r in range(3)))
    found = measure(full, gone, NOISE)
    assert found == pytest.approx(slow(full, gone, NOISE, *as_it_is(full, gone)))
    assert found["diverged"] == 3
    assert found["auc_gap_max"] == pytest.approx(full.auc[best].mean() - 0.5)
    # Worse than chance is still better than nothing.
    low = broken(Results(other.auc - 0.4, other.logloss), *((best, r) for r in range(3)))
    mean = seed_means(full, low)[1]
    assert mean.argmin() == best
    assert mean[best] == pytest.approx(np.nanmin(low.auc))
    # Without a finite log loss anywhere its gap is undefined.
    nothing = measure(full, broken(other, *np.ndindex(9, 3)), NOISE)
    assert math.isnan(nothing["logloss_gap_mean"])
    assert math.isnan(nothing["logloss_gap_max"])
    assert nothing["auc_gap_max"] == pytest.approx(full.auc.mean(axis=1).max() - 0.5)


def test_diverged_on_the_full_log() -> None:
    full, other = pair(3)
    found = bootstrap(broken(full, (4, 1)), broken(other, (4, 0)), NOISE, seed=0)
    rest = [Results(np.delete(given.auc, 4, axis=0), np.delete(given.logloss, 4, axis=0)) for given in (full, other)]
    without = bootstrap(*rest, NOISE, seed=0)
    assert found.value.pop("left_out") == 1
    assert without.value.pop("left_out") == 0
    assert found.value == without.value
    assert found.intervals() == without.intervals()
    for means in seed_means(broken(full, (4, 1)), other):
        assert np.flatnonzero(np.isnan(means)).tolist() == [4]


def test_nobody_left_and_nobody_to_compare_with() -> None:
    full, other = pair(0, n=3)
    nobody = bootstrap(broken(full, (0, 0), (1, 0), (2, 3)), other, NOISE, seed=0, replicates=10)
    assert {name for name, value in nobody.value.items() if not math.isnan(value)} == {"pairs", "diverged", "left_out"}
    assert nobody.value["left_out"] == 3
    assert math.isnan(nobody.intervals()["spearman"].low)
    written = nobody.intervals()["pairs_right"].model_dump_json()
    assert written == '{"value":null,"low":null,"high":null}'
    assert math.isnan(Interval.model_validate_json(written).high)
    alone = bootstrap(*pair(0, n=1), NOISE, seed=0, replicates=10).intervals()
    assert alone["top1_regret"] == Interval(value=0, low=0, high=0)
    assert math.isnan(alone["spearman"].value)


def test_one_seed_draws_candidates_only() -> None:
    full, other = pair(4, full_seeds=1, other_seeds=1)
    found = bootstrap(full, other, NOISE, seed=0, replicates=50).replicates["auc_gap_max"]
    assert set(np.round(found, 12)) <= set(np.round(np.abs(full.auc - other.auc)[:, 0], 12))


def test_difference_is_paired() -> None:
    full, one = pair(5, n=12)
    worse = Results(one.auc - 0.01, one.logloss + 0.02)
    first, second = (bootstrap(full, other, NOISE, seed=1) for other in (one, worse))
    found = difference(first, second)
    assert list(found) == list(MEASURES)
    for name in CORRELATIONS:
        assert found[name].low == pytest.approx(0, abs=1e-9)
        assert found[name].high == pytest.approx(0, abs=1e-9)
    assert found["pairs"] == Interval(value=0, low=0, high=0)
    # The reduced set is below the full log for each, so that .01 less is .01 further away in every replicate.
    assert (seed_means(full, one)[0] > seed_means(full, one)[1] + 0.03).all()
    gap = found["auc_gap_mean"]
    assert [gap.value, gap.low, gap.high] == pytest.approx([-0.01, -0.01, -0.01])
    by_hand = first.replicates["logloss_gap_max"] - second.replicates["logloss_gap_max"]
    assert found["logloss_gap_max"].high == np.percentile(by_hand, 97.5)
    unlike = [(full, 2, 2000), (full, 1, 7), (broken(full, (0, 0)), 1, 2000), (pair(5, n=12, full_seeds=3)[0], 1, 2000)]
    for truth, seed, replicates in unlike:
        with pytest.raises(ValueError, match="differ"):
            difference(first, bootstrap(truth, one, NOISE, seed=seed, replicates=replicates))


def test_draws_repeat_themselves_and_are_apart() -> None:
    full, other = pair(6)
    again = [bootstrap(full, other, NOISE, seed=3, replicates=20).replicates["pearson"] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    draws = [resample(purpose, 5, seed=3, replicates=100) for purpose in ("candidates", "full", "other")]
    assert all((a != b).any() for a, b in itertools.combinations(draws, 2))
    assert np.bincount(draws[0].ravel(), minlength=5) / 500 == pytest.approx(0.2, abs=0.08)


def test_seed_noise_pools_within_candidates() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(4, 3)), 100 + rng.normal(size=(2, 5)), rng.normal(size=(3, 1))]
    squares = sum(((row - row.mean()) ** 2).sum() for one in tables for row in one)
    found = seed_noise(tables)
    assert found.df == 4 * 2 + 2 * 4
    assert found.sd == pytest.approx(math.sqrt(squares / found.df))
    same = seed_noise([np.full((3, 4), 0.7)])
    assert same.sd == pytest.approx(0, abs=1e-12)
    tables[0][1, 2] = math.nan
    assert seed_noise(tables).df == found.df - 1


def test_pooled_pearson_centres_each_dataset() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3, 40)) * 0.01
    offsets = np.array([0.6, 0.7, 0.8])[:, None]
    raw, centred = pooled_pearson(list(zip(x + offsets, y + offsets, strict=True)))
    assert raw > 0.9
    assert raw == pytest.approx(stats.pearsonr((x + offsets).ravel(), (y + offsets).ravel())[0])
    own = [part - part.mean(axis=1, keepdims=True) for part in (x, y)]
    assert centred == pytest.approx(stats.pearsonr(*(part.ravel() for part in own))[0])
    assert abs(centred) < 0.25


def test_pooled_pearson_of_one_dataset_leaves_out_what_is_left_out() -> None:
    full, other = pair(7)
    means = seed_means(broken(full, (0, 0)), other)
    expected = stats.pearsonr(means[0][1:], means[1][1:])[0]
    assert pooled_pearson([means]) == pytest.approx((expected, expected))
    assert all(map(math.isnan, pooled_pearson([])))
    assert all(map(math.isnan, pooled_pearson([(np.full(3, 0.1), np.arange(3.0))])))


def test_the_interval_of_spearman_covers() -> None:
    rng = np.random.default_rng(2)

    def world(n: int) -> tuple[Results, Results]:
        quality = 0.7 + 0.02 * rng.normal(size=n)
        return table(rng, quality, 3), table(rng, quality + 0.015 * rng.normal(size=n), 3)

    truth = measure(*world(2000), NOISE)["spearman"]
    found = [bootstrap(*world(25), NOISE, seed=i, replicates=400).intervals()["spearman"] for i in range(150)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.85 <= covered <= 1
    assert 0.2 < np.mean([one.high - one.low for one in found]) < 0.7


def test_two_thousand_replicates_take_less_than_half_a_second() -> None:
    full, other = pair(8, n=25)
    began = time.process_time()
    bootstrap(full, other, NOISE, seed=0)
    assert time.process_time() - began < 0.5


def test_tables_that_do_not_fit() -> None:
    full, other = pair(0)
    with pytest.raises(ValueError, match="3 candidates on the full log, 9"):
        measure(Results(full.auc[:3], full.logloss[:3]), other, NOISE)
    with pytest.raises(ValueError, match="must be"):
        Results(full.auc, full.logloss[:, :1])
