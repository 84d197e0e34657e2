import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.logs.ingestion.block_plan import cut_blocks

HISTOGRAM = st.dictionaries(st.integers(0, 3_000_000), st.integers(1, 40), min_size=1, max_size=60)


def arrays(histogram: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    seconds = np.array(sorted(histogram), np.int64)
    return seconds, np.array([histogram[s] for s in seconds.tolist()], np.int64)


@given(HISTOGRAM, st.sampled_from(["day", "week", 1, 7, 50]), st.integers(1, 60), st.sampled_from([None, 1, 3]))
def test_a_plan_covers_every_second_once(histogram: dict[int, int], by, shard_rows: int, blocks: int | None) -> None:
    seconds, rows = arrays(histogram)
    plan = cut_blocks(seconds, rows, by=by, timezone="UTC", shard_rows=shard_rows, blocks=blocks)
    shard = plan.shard_of(seconds * 1000 + 999)
    kept = shard >= 0
    # A prefix is kept, shards and blocks go forward, and the counts are those of the histogram.
    assert (np.diff(kept.astype(int)) <= 0).all()
    assert (np.diff(shard[kept]) >= 0).all()
    np.testing.assert_array_equal(np.bincount(shard[kept], rows[kept], len(plan.rows)), plan.rows)
    assert (plan.rows > 0).all()
    np.testing.assert_array_equal(np.unique(plan.block), np.arange(len(plan.names)))
    assert plan.names == sorted(plan.names)
    assert kept.all() or len(plan.names) == blocks
    # Positions: each block starts at 0 and its shards follow one another.
    for block in range(len(plan.names)):
        mine = plan.rows[plan.block == block]
        np.testing.assert_array_equal(plan.first_row[plan.block == block], np.cumsum(mine) - mine)
    # No shard is too big unless one second is: what a shard holds beyond its target is less than its last second.
    target = np.array(
        [mine.sum() / -(-mine.sum() // shard_rows) for mine in (plan.rows[plan.block == b] for b in plan.block)]
    )
    largest = np.array([rows[shard == s].max() for s in range(len(plan.rows))])
    assert (plan.rows < target + largest).all()


@given(HISTOGRAM, st.integers(1, 60))
def test_by_rows_closes_as_soon_as_it_may(histogram: dict[int, int], least: int) -> None:
    seconds, rows = arrays(histogram)
    plan = cut_blocks(seconds, rows, by=least, timezone="UTC", shard_rows=10**6)
    expected, now = [], 0
    for count in rows.tolist():
        now += count
        if now >= least:
            expected.append(now)
            now = 0
    expected += [now] if now else []
    np.testing.assert_array_equal(plan.rows, expected)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("by", ["day", "week"])
def test_calendar_blocks_against_datetime(zone: str, by: str) -> None:
    seconds = np.arange(1_482_900_000, 1_483_900_000, 4_321)  # over New Year 2017, a Sunday, across ISO years
    plan = cut_blocks(seconds, np.ones(len(seconds), np.int64), by=by, timezone=zone, shard_rows=10**6)
    local = [datetime.datetime.fromtimestamp(int(s), ZoneInfo(zone)) for s in seconds]
    expected = [f"{d:%Y-%m-%d}" if by == "day" else f"{d:%G}-W{d:%V}" for d in local]
    assert [plan.names[plan.block[s]] for s in plan.shard_of(seconds * 1000)] == expected


def test_a_gap_in_days_is_simply_absent() -> None:
    plan = cut_blocks(np.array([0, 5 * 86_400]), np.array([1, 1]), by="day", timezone="UTC", shard_rows=10)
    assert plan.names == ["1970-01-01", "1970-01-06"]


def test_more_blocks_change_no_earlier_one() -> None:
    rng = np.random.default_rng(0)
    seconds = np.unique(rng.integers(0, 10 * 86_400, 500))
    rows = rng.integers(1, 9, len(seconds))
    long = cut_blocks(seconds, rows, by="day", timezone="UTC", shard_rows=20)
    early = seconds < 4 * 86_400
    short = cut_blocks(seconds[early], rows[early], by="day", timezone="UTC", shard_rows=20)
    n = len(short.rows)
    assert long.names[:4] == short.names
    np.testing.assert_array_equal(long.rows[:n], short.rows)
    np.testing.assert_array_equal(long.start[:n], short.start)
