import itertools
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.config import SelectConfig
from diet_ray.distill.el2n import MAX_EL2N
from diet_ray.distill.select import Scored, Sketch, cell_quotas, choose, merge, sketch
from diet_ray.logs.blocks import Rows
from diet_ray.seeds import derive_seed, uniform_by_id

Strategy = Literal["top", "proportional", "ccs", "random"]
STRATEGIES = get_args(Strategy)


def config(strategy: Strategy, *, cut: float = 0.2, strata: int = 5) -> SelectConfig:
    return SelectConfig(strategy=strategy, ccs_cut=cut, ccs_strata=strata)


def scored(n: int, tasks: int, seed: int, *, levels: int = 0) -> Scored:
    """Random rows; with `levels`, scores take that many values, so that ties abound."""
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, (n, tasks)) / levels if levels else rng.random((n, tasks))
    rows = Rows(
        row_id=rng.permutation(10 * n)[:n].astype(np.int64),
        time=np.arange(n, dtype=np.int64),
        user=rng.integers(0, 9, n),
        ids=rng.integers(0, 50, (n, 3)).astype(np.int32),
        labels=(rng.random((n, tasks)) < 0.3).astype(np.uint8),
    )
    return Scored(rows, (score * MAX_EL2N).astype(np.float32), rng.random((n, tasks)).astype(np.float32))


def ccs_direct(score: np.ndarray, free: np.ndarray, quota: int, conf: SelectConfig) -> list[int]:
    """How many rows of each stratum algorithm 1 of Zheng et al. 2023 takes, step by step, where only the `free` rows can be had."""
    edges = np.linspace(0, MAX_EL2N, conf.ccs_strata + 1)
    edges[-1] = np.inf
    sizes = [int(((score >= lo) & (score < hi)).sum()) for lo, hi in itertools.pairwise(edges)]
    to_be_had = [int((free & (score >= lo) & (score < hi)).sum()) for lo, hi in itertools.pairwise(edges)]
    kept = list(to_be_had)
    for stratum in reversed(range(len(kept))):  # set whole strata of the hardest rows aside while the share allows
        if sum(sizes[stratum:]) > conf.ccs_cut * len(score):
            break
        kept[stratum] = 0
    if sum(kept) < quota:
        kept = list(to_be_had)
    shares, left = [0] * len(kept), quota
    open_strata = [s for s in range(len(kept)) if kept[s]]
    while open_strata:
        rarest = min(open_strata, key=lambda s: (min(kept[s], quota), sizes[s], s))
        shares[rarest] = min(kept[rarest], -(-left // len(open_strata)))
        left -= shares[rarest]
        open_strata.remove(rarest)
    return shares


def brute_force(whole: Scored, conf: SelectConfig, n: int, seed: int) -> list[int]:
    """Row ids that selection over the whole block at once takes, rising."""
    rows, tasks = whole.rows, whole.score.shape[1]
    cells = [(task, label) for task in range(tasks) for label in (0, 1)]
    sizes = np.array([(rows.labels[:, task] == label).sum() for task, label in cells])
    taken: set[int] = set()
    for (task, label), quota in zip(cells, cell_quotas(sizes, n), strict=True):
        members = np.flatnonzero(rows.labels[:, task] == label)
        score = whole.score[members, task].astype(np.float64)
        u = uniform_by_id(rows.row_id[members], derive_seed(seed, "select", task))
        key = {"top": score, "proportional": np.log(u) / np.maximum(score, 1e-12)}.get(conf.strategy, u)
        stratum = np.zeros(len(members), dtype=int)
        shares = [int(quota)]
        if conf.strategy == "ccs":
            edges = np.linspace(0, MAX_EL2N, conf.ccs_strata + 1)[1:-1]
            free_rows = np.array([int(row_id) not in taken for row_id in rows.row_id[members]], dtype=bool)
            stratum = np.searchsorted(edges, score, side="right")
            shares = ccs_direct(score, free_rows, int(quota), conf)
        for number, share in enumerate(shares):
            order = sorted(
                (i for i in range(len(members)) if stratum[i] == number),
                key=lambda i: (-key[i], rows.row_id[members[i]]),
            )
            free = [int(rows.row_id[members[i]]) for i in order if int(rows.row_id[members[i]]) not in taken]
            taken.update(free[:share])
    return sorted(taken)


def one_pass(whole: Scored, conf: SelectConfig, n: int, seed: int = 0) -> Scored:
    return choose(merge([sketch(whole, conf, keep=n, seed=seed)], keep=n), conf, n=n)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), strategy=st.sampled_from(STRATEGIES), tasks=st.integers(1, 3), levels=st.sampled_from([0, 1, 4]))
def test_any_shards_in_any_grouping_give_what_the_whole_block_gives(
    data: st.DataObject, strategy: Strategy, tasks: int, levels: int
) -> None:
    rows, seed = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 5))
    n = data.draw(st.integers(1, rows + 3))
    whole, conf = scored(rows, tasks, seed, levels=levels), config(strategy)
    shard = np.array(data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)))
    parts = [sketch(whole.take(np.flatnonzero(shard == s)), conf, keep=n, seed=seed) for s in set(shard.tolist())]
    while len(parts) > 1:  # merge random groups until one sketch is left
        group = data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=2, max_size=len(parts), unique=True))
        merged = merge([parts[i] for i in group], keep=n)
        parts = [part for i, part in enumerate(parts) if i not in group] + [merged]
    got = choose(parts[0], conf, n=n)
    expected = brute_force(whole, conf, n, seed)
    assert got.rows.row_id.tolist() == expected
    at_once = merge([sketch(whole, conf, keep=n, seed=seed)], keep=n)
    assert merge(parts, keep=n).to_ipc() == at_once.to_ipc()
    at = [int(np.flatnonzero(whole.rows.row_id == row_id)[0]) for row_id in expected]
    for name in ("time", "user", "ids", "labels"):  # every column follows its row
        assert np.array_equal(getattr(got.rows, name), getattr(whole.rows, name)[at])
    assert np.array_equal(got.score, whole.score[at])
    assert np.array_equal(got.probability, whole.probability[at])


@pytest.mark.parametrize(("n", "levels"), [(20, 3), (3, 1), (7, 2)])  # the last two: more ties than a sketch keeps
def test_top_is_argsort_with_ties_by_id(n: int, levels: int) -> None:
    whole = scored(60, 1, 4, levels=levels)
    got = one_pass(whole, config("top"), n)
    labels, ids, score = whole.rows.labels[:, 0], whole.rows.row_id, whole.score[:, 0]
    expected: list[int] = []
    for label, quota in enumerate(cell_quotas(np.bincount(labels, minlength=2), n)):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(ids[members])]
        expected += ids[members[np.argsort(-score[members], kind="stable")][:quota]].tolist()
    assert got.rows.row_id.tolist() == sorted(expected)


def test_proportional_is_a_weighted_draw_without_replacement() -> None:
    weights, n, draws = [1, 2, 3, 6], 2, 4000
    total = sum(weights)
    exact = [Fraction(0)] * 4
    for first, second in itertools.permutations(range(4), n):
        p = Fraction(weights[first], total) * Fraction(weights[second], total - weights[first])
        exact[first] += p
        exact[second] += p
    score = (np.array(weights)[:, None] / 10).astype(np.float32)
    zeros = np.zeros(4, np.int64)
    rows = Rows(np.arange(4), zeros, zeros, np.zeros((4, 1), np.int32), np.zeros((4, 1), np.uint8))
    whole, conf, hits = Scored(rows, score, score), config("proportional"), np.zeros(4)
    for seed in range(draws):
        part = sketch(whole, conf, keep=n, seed=seed)
        hits[part.scored.rows.row_id] += 1
    for got, p in zip(hits / draws, exact, strict=True):
        assert abs(got - float(p)) < 4 * np.sqrt(float(p) * (1 - float(p)) / draws)


def test_a_score_of_zero_is_still_drawn_last() -> None:
    whole = scored(30, 1, 1)
    whole.score[:20] = 0
    whole.rows.labels[:] = 0
    got = one_pass(whole, config("proportional"), 15)
    assert len(got.rows) == 15
    assert set(whole.rows.row_id[20:].tolist()) <= set(got.rows.row_id.tolist())


@settings(deadline=None)
@given(data=st.data(), tasks=st.integers(1, 3), rows=st.integers(1, 200))
def test_quotas_sum_and_are_proportional(data: st.DataObject, tasks: int, rows: int) -> None:
    positives = [data.draw(st.integers(0, rows)) for _ in range(tasks)]
    sizes = np.array([size for p in positives for size in (rows - p, p)])
    n = data.draw(st.integers(0, rows + 5))
    quotas = cell_quotas(sizes, n)
    assert quotas.sum() == min(n, rows)
    assert (quotas <= sizes).all()
    assert (np.abs(quotas - sizes * min(n, rows) / (rows * tasks)) < 1 + 1e-9).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_row_twice_over_tasks_and_none_missing(strategy: Strategy) -> None:
    whole = scored(300, 3, 2)
    got = one_pass(whole, config(strategy), 60)
    ids = got.rows.row_id
    assert len(ids) == 60
    assert (np.diff(ids) > 0).all()


@settings(deadline=None)
@given(rows=st.integers(1, 120), seed=st.integers(0, 20), cut=st.sampled_from([0.0, 0.1, 0.5]), n=st.integers(1, 60))
def test_ccs_fills_strata_as_the_algorithm_says(rows: int, seed: int, cut: float, n: int) -> None:
    whole, conf = scored(rows, 1, seed), config("ccs", cut=cut)
    whole.rows.labels[:] = 1
    whole.score[:] = (whole.score / MAX_EL2N) ** 2 * MAX_EL2N  # uneven strata
    score = one_pass(whole, conf, n).score[:, 0].astype(np.float64)
    edges = np.linspace(0, MAX_EL2N, 6)[1:-1]
    got = np.bincount(np.searchsorted(edges, score, side="right"), minlength=5).tolist()
    assert got == ccs_direct(whole.score[:, 0].astype(np.float64), np.ones(rows, dtype=bool), min(n, rows), conf)
    assert sum(got) == min(n, rows)


@settings(deadline=None)
@given(data=st.data(), rows=st.integers(2, 60), seed=st.integers(0, 30))
def test_a_stratum_that_another_task_has_emptied_hands_its_share_on(data: st.DataObject, rows: int, seed: int) -> None:
    n = data.draw(st.integers(1, rows))
    whole = scored(rows, 2, seed, levels=4)
    whole.rows.labels[:] = 1  # either task's cell has rows enough for both
    assert len(one_pass(whole, config("ccs"), n).rows) == n


def test_ccs_sets_aside_strata_that_make_up_the_share_to_the_row() -> None:
    whole = scored(10, 1, 0)
    whole.rows.labels[:] = 0
    whole.score[:5], whole.score[5:] = 0.1, 1.3
    assert (one_pass(whole, config("ccs", cut=0.5), 4).score < 1).all()
    assert (one_pass(whole, config("ccs", cut=0.49), 4).score > 1).any()
    assert len(one_pass(whole, config("ccs", cut=0.5), 7).rows) == 7  # needed after all


def test_the_largest_score_has_a_stratum() -> None:
    whole = scored(8, 1, 0)
    whole.score[:] = np.nextafter(np.float32(MAX_EL2N), np.float32(2))  # and by a rounding more
    assert len(one_pass(whole, config("ccs"), 4).rows) == 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_are_seeded_but_top_is_not(strategy: Strategy) -> None:
    whole, conf = scored(200, 1, 0), config(strategy)
    a, b, other = (one_pass(whole, conf, 30, seed).rows.row_id for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert np.array_equal(a, other) == (strategy == "top")


@pytest.mark.parametrize("keep", [0, 7])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_sketch_survives_the_trip_as_ipc(strategy: Strategy, keep: int) -> None:
    part = sketch(scored(40, 2, 3), config(strategy), keep=keep, seed=1)
    back = Sketch.from_ipc(part.to_ipc())
    assert back.to_ipc() == part.to_ipc()
    for name in ("counts", "cell", "stratum", "key"):
        assert getattr(back, name).dtype == getattr(part, name).dtype
        assert np.array_equal(getattr(back, name), getattr(part, name))
    for name in ("row_id", "time", "user", "ids", "labels"):
        assert np.array_equal(getattr(back.scored.rows, name), getattr(part.scored.rows, name))
    assert np.array_equal(back.scored.score, part.scored.score)
    assert np.array_equal(back.scored.probability, part.scored.probability)
    assert len(choose(back, config(strategy), n=keep).rows) == keep
