import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.config import BudgetConfig, StreamConfig
from diet_ray.distill.fuse import leaving, quota
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.memory.units import Units
from tests.memory.test_units import make
from tests.support import synthetic
from tests.support.small_memory import memory_of, units_of

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def fresh(first: int, n: int, block: int) -> Units:
    units = make(n)
    return units.updated(unit_id=np.arange(first, first + n), block=np.full(n, block, np.int32))


def memory(units: Units, *, shards: int = 2) -> ShardedMemory:
    config = StreamConfig.model_validate({"log": "x", "reference": {"dim": 3}})
    return memory_of(units, synthetic.schema(tasks=2), config, shards=shards)


def stream(sizes: list[int], config: BudgetConfig) -> list[tuple[int, int, int]]:
    """Rows seen, units and fresh units after each block."""
    fused = memory(make(0))
    rows, seen = 0, []
    for block, size in enumerate(sizes):
        n = min(quota(config, block_rows=size, rows_before=rows, units_before=fused.count()), size)
        fused.fuse(fresh(rows, n, block), config)
        rows += size
        seen.append((rows, fused.count(), n))
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
@given(
    old=st.integers(1, 30),
    new=st.integers(1, 10),
    cap=st.integers(1, 30),
    shards=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_lowest_influence_leaves_then_the_older_block_then_the_smaller_id(
    old: int, new: int, cap: int, shards: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = make(old).updated(
        influence=rng.integers(-1, 2, old).astype(np.float32), block=rng.integers(0, 3, old).astype(np.int32)
    )
    fused = memory(before, shards=shards)
    fused.fuse(fresh(1000, new, 9), BudgetConfig(cap=cap))
    after = units_of(fused)
    leaves = sorted(range(old), key=lambda i: (before.influence[i], before.block[i], before.unit_id[i]))
    stays = leaves[max(0, old + new - cap) :]
    assert after.unit_id.tolist() == sorted(before.unit_id[stays].tolist()) + list(range(1000, 1000 + new))


def test_no_more_leave_than_there_are() -> None:
    units = make(4)
    assert sorted(leaving(units.influence, units.block, units.unit_id, 9).tolist()) == [0, 1, 2, 3]
