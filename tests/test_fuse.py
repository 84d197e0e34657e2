import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_units import make

from diet_ray.config import BudgetConfig
from diet_ray.fuse import fuse, quota
from diet_ray.units import Units

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def fresh(first: int, n: int, block: int) -> Units:
    units = make(n)
    return units.updated(unit_id=np.arange(first, first + n), block=np.full(n, block, np.int32))


def stream(sizes: list[int], config: BudgetConfig) -> list[tuple[int, int, int]]:
    """Rows seen, units and fresh units after each block."""
    memory: Units | None = None
    rows, seen = 0, []
    for block, size in enumerate(sizes):
        before = len(memory) if memory else 0
        n = min(quota(config, block_rows=size, rows_before=rows, units_before=before), size)
        memory = fuse(memory, fresh(rows, n, block), config)
        rows += size
        seen.append((rows, len(memory), n))
    return seen


@settings(deadline=None)
@given(sizes=SIZES, ratio=st.sampled_from([0.001, 0.01, 0.02, 0.3, 1.0]))
def test_a_ratio_is_never_exceeded(sizes: list[int], ratio: float) -> None:
    for rows, units, _ in stream(sizes, BudgetConfig(ratio=ratio)):
        assert 1 <= units <= max(1, round(ratio * rows))


@settings(deadline=None)
@given(sizes=st.lists(st.integers(50, 400), min_size=1, max_size=6), ratio=st.sampled_from([0.01, 0.1]))
def test_a_ratio_is_used_up(sizes: list[int], ratio: float) -> None:
    for rows, units, _ in stream(sizes, BudgetConfig(ratio=ratio)):
        assert units == max(1, round(ratio * rows))


@settings(deadline=None)
@given(sizes=SIZES, cap=st.integers(1, 70))
def test_a_cap_is_never_exceeded_and_kept_full(sizes: list[int], cap: int) -> None:
    full = False
    for block, (rows, units, n) in enumerate(stream(sizes, BudgetConfig(cap=cap))):
        assert units <= min(cap, rows)
        assert n >= 1
        full = full or units == cap
        assert units == cap or not full
        assert n == max(1, min(sizes[block], round(cap * sizes[block] / rows)))


@settings(deadline=None)
@given(old=st.integers(1, 30), new=st.integers(1, 10), cap=st.integers(1, 30), seed=st.integers(0, 99))
def test_the_lowest_influence_leaves_then_the_older_block_then_the_smaller_id(
    old: int, new: int, cap: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = make(old).updated(
        influence=rng.integers(-1, 2, old).astype(np.float32), block=rng.integers(0, 3, old).astype(np.int32)
    )
    after = fuse(before, fresh(1000, new, 9), BudgetConfig(cap=cap))
    leaves = sorted(range(old), key=lambda i: (before.influence[i], before.block[i], before.unit_id[i]))
    stays = leaves[max(0, old + new - cap) :]
    assert after.unit_id.tolist() == sorted(before.unit_id[stays].tolist()) + list(range(1000, 1000 + new))


@pytest.mark.parametrize("config", [BudgetConfig(ratio=0.1), BudgetConfig(cap=5)])
def test_the_first_block_is_taken_as_it_is(config: BudgetConfig) -> None:
    units = fresh(0, 5, 0)
    assert fuse(None, units, config) is units
