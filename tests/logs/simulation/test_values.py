"""Who meets what in a simulated log: long tails, churn, cold start, and that every part can be drawn alone."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from diet_ray.errors import ConfigError
from diet_ray.logs.simulation.config import SimulateConfig, SimulatedField
from diet_ray.logs.simulation.values import draw_values, permuted, uniforms, zipf_ranks
from diet_ray.settings import parse


def make(*fields: dict[str, Any], **keys: Any) -> SimulateConfig:
    return SimulateConfig.model_validate({"fields": fields, "higher": 0, **keys})


USER = {"name": "user", "size": 50}


@pytest.mark.parametrize("exponent", [0, 0.7, 1, 1.5])
def test_ranks_have_the_probabilities_of_the_law(exponent: float) -> None:
    n, grid = 40, 200_000
    edges = np.arange(1, n + 2, dtype=float)
    area = np.log(edges) if exponent == 1 else edges ** (1 - exponent)
    expected = np.diff(area) / (area[-1] - area[0])
    ranks = zipf_ranks((np.arange(grid) + 0.5) / grid, n, exponent)
    np.testing.assert_allclose(np.bincount(ranks, minlength=n) / grid, expected, atol=1.1 / grid)
    assert zipf_ranks(np.array([0.0, np.nextafter(1, 0)]), n, exponent).tolist() == [0, n - 1]


def test_uniforms_of_any_part_are_those_of_the_whole() -> None:
    whole = uniforms(7, 0, 5_000)
    for first, n in ((0, 1), (1, 10), (2, 3), (4, 4), (4_999, 1)):
        np.testing.assert_array_equal(uniforms(7, first, n), whole[first : first + n])
    assert stats.kstest(whole, "uniform").pvalue > 0.001
    assert not np.isin(uniforms(8, 0, 100), whole).any()


@pytest.mark.parametrize(("size", "present"), [(2, 1), (2, 2), (5, 3), (64, 64), (1000, 700), (1025, 11)])
def test_a_permutation_and_what_one_more_changes(size: int, present: int) -> None:
    ids = permuted(np.arange(present), 3, size, present)
    assert sorted(ids) == list(range(present))
    if present < size:
        more = permuted(np.arange(present + 1), 3, size, present + 1)
        at = np.flatnonzero(more == present)
        changed = np.flatnonzero(more[:present] != ids)
        assert set(changed) <= set(at)  # the newcomer takes one rank,
        if len(changed):
            assert more[present] == ids[changed[0]]  # whose holder goes to the new one


def test_permutations_differ_and_show_no_order() -> None:
    one, other = (permuted(np.arange(3000), seed, 3000, 3000) for seed in (1, 2))
    for ids in (one, other):
        assert abs(stats.spearmanr(ids, np.arange(3000)).statistic) < 0.06
    assert abs(stats.spearmanr(one, other).statistic) < 0.06
    assert (one == other).sum() < 10


@pytest.mark.parametrize("exponent", [0.8, 1.1])
def test_long_tail(exponent: float) -> None:
    config = make(USER, {"name": "item", "size": 100_000, "zipf": exponent})
    counts = np.sort(np.bincount(draw_values(config, 0, 0, 200_000)[1]))[::-1]
    rank = np.arange(4, 200)
    slope = np.polyfit(np.log(rank + 0.5), np.log(counts[rank - 1]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)


def test_any_part_can_be_drawn_alone() -> None:
    config = make(
        {"name": "user", "size": 5_000, "start": 0.5, "new": 0.1, "churn": 0.3},
        {"name": "item", "size": 30, "churn": 0.3},
        {"name": "city", "size": 20, "of": "user"},
    )
    whole = np.stack(draw_values(config, 2, 0, 6_000))
    for first, n in ((0, 7), (3_001, 2_999), (5_999, 1)):
        np.testing.assert_array_equal(np.stack(draw_values(config, 2, first, n)), whole[:, first : first + n])
    assert (whole != np.stack(draw_values(config, 3, 0, 6_000))).any()
    assert (whole != np.stack(draw_values(config.model_copy(update={"seed": 1}), 2, 0, 6_000))).any()


def test_hot_values_give_way() -> None:
    config = make(USER, {"name": "item", "size": 2_000, "zipf": 1.2, "churn": 0.1})
    blocks = [draw_values(config, block, 0, 40_000)[1] for block in range(11)]
    hot = np.argsort(-np.bincount(blocks[0]))[:20]
    share = np.array([np.isin(items, hot).mean() for items in blocks])
    before, after = share[0], share[10]
    assert before > 0.5
    assert after < 0.2
    np.testing.assert_allclose(share, np.linspace(before, after, 11), atol=0.015)


def test_cold_start() -> None:
    field = SimulatedField(name="item", size=1_000, zipf=0, start=0.5, new=0.1)
    assert [field.present(block) for block in range(8)] == [500, 600, 700, 800, 900, 1000, 1000, 1000]
    config, n = make(USER, field.model_dump()), 20_000
    for block in range(7):
        items = draw_values(config, block, 0, n)[1]
        here, before = field.present(block), field.present(block - 1) if block else 500
        assert items.max() < here
        share = (here - before) / here
        assert (items >= before).sum() == pytest.approx(n * share, abs=4 * np.sqrt(n * share) + 1e-9)


def test_a_value_keeps_what_follows_from_it() -> None:
    config = make(USER, {"name": "item", "size": 300, "churn": 0.5}, {"name": "kind", "size": 9, "of": "item"})
    kind_of: dict[int, int] = {}
    for block in range(4):
        _, items, kinds = draw_values(config, block, 0, 2_000)
        for item, kind in zip(items.tolist(), kinds.tolist(), strict=True):
            assert kind_of.setdefault(item, kind) == kind
    assert set(kind_of.values()) == set(range(9))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"rows": 0}, "rows"),
        ({"block": 3}, "did you mean 'blocks'"),
        ({"drift": float("nan")}, "drift"),
        ({"tasks": {"click": 1.0}}, "tasks.click"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": {"user": 0.1}}, "'user' names two"),
        ({"user": "viewer"}, "user: 'viewer'"),
        ({"fields": [USER, {"name": "item", "size": 1}]}, "fields.1.size"),
        ({"fields": [USER, {"name": "item", "size": 9, "zipf": -1}]}, "fields.1.zipf"),
        ({"fields": [USER, USER]}, "'user' names two"),
        ({"fields": [USER, {"name": "kind", "size": 9, "of": "item"}]}, "'kind' is of 'item'"),
        ({"fields": [USER, {"name": "kind", "size": 9, "of": "user", "churn": 0.1}]}, "follows 'user'"),
        ({"fields": [USER, {"name": "item", "size": 9}]}, "higher: needs 3 fields"),
        ({"fields": [USER, *({"name": f"f{i}", "size": 2**30} for i in range(2))]}, "2^31"),
    ],
)
def test_bad_configs_are_refused_by_key(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SimulateConfig, keys, where="sim.yaml")
    assert str(caught.value).startswith("sim.yaml: ")
    assert named in str(caught.value)
