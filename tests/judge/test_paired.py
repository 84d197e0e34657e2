"""Paired statistics against loops written apart, and their calibration on simulated losses whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diet_ray.judge.paired import Comparison, Means, letters, means_of, of_memories, seed_variances


def plain_means(mean: list[float], sd: float, *, seeds: float = 0.0, n_rows: int = 1000) -> Means:
    """Independent means of K candidates, known well."""
    k = len(mean)
    return Means(np.array(mean), np.eye(k) * sd**2, 1e6, np.full(k, seeds**2), np.full(k, 1e6), n_rows)


def test_the_covariance_is_clustered_by_user_and_by_time() -> None:
    """Written out as sums over pairs of rows: those of one user, plus those of near parts, minus those of both."""
    rng = np.random.default_rng(0)
    n, k = 400, 3
    users = rng.integers(60, size=n)
    losses = [rng.gamma(1, size=(2, n)) + rng.normal(size=60)[users] for _ in range(k)]
    means = means_of(losses, users)
    np.testing.assert_allclose(means.mean, [part.mean() for part in losses])
    centred = np.stack([part.mean(axis=0) - part.mean() for part in losses])
    part = np.arange(n) // 20  # 20 parts, which depend on their 3 next ones
    apart = np.abs(part[:, None] - part[None, :])
    of_user = users[:, None] == users[None, :]
    n_users, n_both = len(set(users.tolist())), len({*zip(users.tolist(), part.tolist(), strict=True)})
    weight = of_user * n_users / (n_users - 1) + np.maximum(0, 1 - apart / 4) * 20 / 19
    weight = weight - (of_user & (apart == 0)) * n_both / (n_both - 1)
    expected = centred @ weight @ centred.T / n**2
    assert np.linalg.eigvalsh(expected).min() > 0
    np.testing.assert_allclose(means.rows, expected, rtol=1e-10)
    assert means.rows_df == pytest.approx(19 / 3)


def test_a_covariance_is_never_negative() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        means = means_of([rng.normal(size=(1, 8)) for _ in range(4)], rng.integers(3, size=8))
        assert np.linalg.eigvalsh(means.rows).min() > -1e-12


def test_variances_of_seeds_are_moderated() -> None:
    rng = np.random.default_rng(0)
    true = 0.01 * np.exp(0.5 * rng.normal(size=200))
    own = [rng.normal(size=3) * sd for sd in true]
    variance, df = seed_variances(own)
    alone = np.array([part.var(ddof=1) for part in own])
    np.testing.assert_allclose(variance, (6 * alone.mean() + 2 * alone) / 8)
    assert (df == 8).all()
    errors = [np.abs(np.log(guess) - 2 * np.log(true)).mean() for guess in (variance, alone)]
    assert errors[0] < errors[1]
    # With one seed a candidate has what all have; with one seed everywhere nothing is known.
    variance, df = seed_variances([np.array([0.1, 0.2]), np.array([0.5])])
    assert variance.tolist() == pytest.approx([0.005, 0.005])
    assert df.tolist() == [2, 1]
    variance, _ = seed_variances([np.array([0.1]), np.array([0.2])])
    assert variance.tolist() == [0, 0]
    assert not Means(np.zeros(2), np.eye(2), 9, variance, np.ones(2), 5).knows_seeds


@pytest.mark.parametrize(("k", "spread"), [(6, 0.0), (12, 0.7), (30, 0.4)])
def test_equals_that_differ_by_their_seeds_alone_are_rarely_told_apart(k: int, spread: float) -> None:
    rng, rejected, rounds = np.random.default_rng(1), 0.0, 600
    for _ in range(rounds):
        seeds = [sd * rng.normal(size=2) for sd in np.exp(spread * rng.normal(size=k))]
        variance, df = seed_variances(seeds)
        means = Means(np.array([part.mean() for part in seeds]), np.zeros((k, k)), 1, variance / 2, df, 2)
        plain = Comparison(means, 0.95).plain
        rejected += float(np.mean([plain[pair, pair + 1] < 0.05 for pair in range(0, k, 2)]))
    assert rejected / rounds <= 0.075


def test_two_candidates_are_compared_as_by_a_t_test() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(size=(1, 5000)) * 0.2 + 0.004
    losses = [difference + 1, np.ones((1, 5000))]
    comparison = Comparison(means_of(losses, np.arange(5000)), 0.95)
    expected = stats.ttest_1samp(difference[0], 0)
    assert comparison.difference[0, 1] == pytest.approx(difference.mean())
    assert comparison.error[0, 1] == pytest.approx(difference.std() / math.sqrt(5000), rel=0.3)
    assert comparison.plain[0, 1] == pytest.approx(expected.pvalue, abs=0.1)
    assert comparison.adjusted[0, 1] == pytest.approx(comparison.plain[0, 1], abs=0.02)  # one pair: nothing to correct


def test_many_comparisons_are_corrected_as_tukey_does() -> None:
    means = plain_means([0.0, 0.1, 0.2, 0.35, 0.6], 0.1)
    comparison = Comparison(means, 0.95)
    for i, j in itertools.combinations(range(5), 2):
        distance = abs(means.mean[i] - means.mean[j]) / 0.1
        tukey = stats.studentized_range.sf(distance, 5, 1e6)
        assert comparison.adjusted[i, j] == pytest.approx(tukey, abs=0.01)
    assert comparison.half_width()[0, 1] == pytest.approx(stats.studentized_range.ppf(0.95, 5, 1e6) * 0.1, rel=0.02)
    assert comparison.different().tolist() == (comparison.adjusted < 0.05).tolist()


def test_the_probability_of_being_the_best() -> None:
    comparison = Comparison(plain_means([0.0, 0.1, 5.0], 0.1), 0.95)
    assert comparison.best().sum() == pytest.approx(1)
    assert comparison.best()[0] == pytest.approx(stats.norm.cdf(0.1 / (0.1 * math.sqrt(2))), abs=0.01)
    assert comparison.best()[2] == 0


def test_how_many_rows_would_tell_two_apart() -> None:
    comparison = Comparison(plain_means([0.0, 0.1], 0.1), 0.95)
    needed = comparison.rows_needed()[0, 1]
    assert needed == pytest.approx(1000 * 2 * 0.1**2 * 1.96**2 / 0.1**2, rel=0.03)
    scaled = Comparison(plain_means([0.0, 0.1], 0.1 * math.sqrt(1000 / needed)), 0.95)
    assert scaled.adjusted[0, 1] == pytest.approx(0.05, abs=0.005)
    # Where seeds alone vary as much, no number of rows helps.
    assert Comparison(plain_means([0.0, 0.1], 0.1, seeds=0.1), 0.95).rows_needed()[0, 1] == math.inf
    assert Comparison(plain_means([0.1, 0.1], 0.1), 0.95).rows_needed()[0, 1] == math.inf


@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_candidates_share_a_letter_where_nothing_tells_them_apart(k: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    different = np.triu(rng.random((k, k)) < share, 1)
    different = different | different.T
    order = rng.permutation(k)
    shown = letters(different, order)
    for i, j in itertools.combinations(range(k), 2):
        assert bool(set(shown[i]) & set(shown[j])) == (not different[i, j])
    assert "a" in shown[order[0]]


def simulated(
    rng: np.random.Generator, quality: np.ndarray, *, seeds: int, rows: int, seed_sd: np.ndarray, time_sd: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Losses with hard rows, users of their own taste, drift in time, and seeds."""
    activity = np.exp(rng.normal(size=400))
    users = rng.choice(400, size=rows, p=activity / activity.sum())
    hard, losses = rng.gamma(1, 0.4, size=rows), []
    for level, sd in zip(quality, seed_sd, strict=True):
        steps = rng.normal(size=rows // 64 + 1)
        for t in range(1, len(steps)):
            steps[t] = 0.8 * steps[t - 1] + 0.6 * steps[t]
        common = level + hard + 0.05 * rng.normal(size=400)[users] + time_sd * np.repeat(steps, 64)[:rows]
        losses.append(np.stack([common + sd * rng.normal() + 0.15 * rng.normal(size=rows) for _ in range(seeds)]))
    return losses, users


@pytest.mark.parametrize(
    ("rows", "seeds", "time_sd", "spread"),
    [(1500, 2, 0.01, 0.7), (1500, 3, 0.0, 0.0), (6000, 2, 0.01, 0.7)],
    ids=["drift", "plain", "many rows"],
)
def test_intervals_cover_and_equals_are_not_told_apart(rows: int, seeds: int, time_sd: float, spread: float) -> None:
    """95 % intervals hold the truth in 93 to 97 %, give or take 120 repetitions; equals are called different in 5 % at most."""
    rng, quality = np.random.default_rng(7), np.repeat([0.0, 0.004, 0.01], 2)
    covered, together, twins, any_twin, rounds = 0.0, 0, 0.0, 0, 120
    upper = np.triu_indices(6, 1)
    for number in range(rounds):
        sd = 0.003 * np.exp(spread * rng.normal(size=6))
        losses, users = simulated(rng, quality, seeds=seeds, rows=rows, seed_sd=sd, time_sd=time_sd)
        comparison = Comparison(means_of(losses, users), 0.95, seed=number)
        wrong = np.abs(comparison.difference - (quality[:, None] - quality[None, :]))
        covered += float((wrong <= stats.t.isf(0.025, comparison.df) * comparison.error)[upper].mean())
        together += bool((wrong <= comparison.half_width())[upper].all())
        pairs = [(2 * k, 2 * k + 1) for k in range(3)]
        twins += float(np.mean([comparison.plain[pair] < 0.05 for pair in pairs]))
        any_twin += any(comparison.adjusted[pair] < 0.05 for pair in pairs)
    assert 0.92 <= covered / rounds <= 0.985
    assert together / rounds >= 0.92
    assert twins / rounds <= 0.08
    assert any_twin / rounds <= 0.05


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([np.ones((1, 1))], "two or more"),
        ([np.ones((1, 5)), np.ones((1, 4))], r"must be \[S, N\] each"),
        ([np.ones((0, 5))], r"must be \[S, N\] each"),
        ([np.full((1, 5), np.nan)], "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(losses: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        means_of(losses, np.arange(losses[0].shape[1]))


def test_what_a_memory_does_to_all_cancels_and_the_rest_is_noise() -> None:
    """Two candidates on three memories: the variance of their difference is that of a t test on the paired means of the memories."""
    rng = np.random.default_rng(3)
    common, own = np.array([0.5, -0.3, 0.2]), rng.normal(scale=0.01, size=(2, 3))
    memory = np.repeat(np.arange(3), 2)
    of_seeds = [level + common[memory] + own[k][memory] for k, level in enumerate((1.0, 1.02))]
    variances = [float(part.var(ddof=1)) / 3 for part in of_memories(of_seeds, [memory, memory])]
    paired = np.array([part[::2] for part in of_seeds])
    assert sum(variances) == pytest.approx((paired[0] - paired[1]).var(ddof=1) / 3)


def test_memories_take_the_place_of_seeds() -> None:
    rng = np.random.default_rng(0)
    users, memory = rng.integers(50, size=400), np.repeat(np.arange(3), 2)
    rows = rng.normal(size=400)
    losses = [
        np.stack([rows + level + (0.05 if m == k else 0.0) + 1e-4 * rng.normal() for m in memory])
        for k, level in enumerate((0.0, 0.0, 0.1))
    ]
    one, several = means_of(losses, users), means_of(losses, users, [memory] * 3)
    assert (one.mean == several.mean).all()
    assert (one.rows == several.rows).all()
    assert several.seeds.mean() > 1.5 * one.seeds.mean()  # six seeds of which pairs are alike are not six
    assert (means_of(losses, users, [np.zeros(6, dtype=np.int64)] * 3).seeds == one.seeds).all()


def test_a_memory_that_a_candidate_has_not_met_is_left_out() -> None:
    memory = [np.array([0, 1, 2]), np.array([0, 2])]
    rest = of_memories([np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0])], memory)
    assert [len(part) for part in rest] == [3, 2]
    assert all(np.isfinite(part).all() for part in rest)


@pytest.mark.parametrize(
    ("n_memories", "seeds", "memory_sd", "seed_sd"),
    [(2, 2, 0.004, 0.002), (3, 2, 0.004, 0.002), (3, 2, 0.02, 0.01), (2, 1, 0.02, 0.01), (3, 1, 0.0, 0.005)],
)
def test_intervals_of_several_memories_cover_other_memories(
    n_memories: int, seeds: int, memory_sd: float, seed_sd: float
) -> None:
    """95 % intervals hold the difference that endless memories, seeds and rows would give: in 200 simulations of six candidates."""
    rng, rounds, k, rows = np.random.default_rng(1), 200, 6, 400
    covered, upper, memory = 0.0, np.triu_indices(k, 1), np.repeat(np.arange(n_memories), seeds)
    for _ in range(rounds):
        quality, users = rng.normal(0, 0.01, k), rng.integers(0, 100, rows)
        hard, to_all = rng.normal(0, 0.3, rows), rng.normal(0, 0.02, n_memories)
        losses = [
            level
            + hard
            + rng.normal(0, 0.05, rows)
            + (to_all + rng.normal(0, memory_sd, n_memories))[memory][:, None]
            + rng.normal(0, seed_sd, (len(memory), 1))
            for level in quality
        ]
        comparison = Comparison(means_of(losses, users, [memory] * k), 0.95)
        wrong = np.abs(comparison.difference - (quality[:, None] - quality[None, :]))
        covered += float((wrong <= stats.t.isf(0.025, comparison.df) * comparison.error)[upper].mean())
    assert 0.90 <= covered / rounds <= 0.98
