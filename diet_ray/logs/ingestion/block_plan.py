"""The plan of a log's blocks and shards. It needs only the number of rows in each second.

Cuts are between seconds, so rows of equal time stay together. The whole plan takes 16 bytes per second that has rows, whatever the number
of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

By = Literal["day", "week"] | int
"""How long a block is: a local day, a local ISO week, or at least so many rows."""


@dataclass(frozen=True)
class BlockPlan:
    """A plan of B blocks and N shards, both in time order."""

    names: list[str]
    """`[B]` block names; they sort in time order."""
    start: np.ndarray
    """`[N]` int64: first second of each shard, ascending; a shard ends where the next begins."""
    end: int
    """First second after the last shard."""
    block: np.ndarray
    """`[N]` int64: the block to which each shard belongs, non-decreasing."""
    rows: np.ndarray
    """`[N]` int64: rows of each shard, at least 1."""

    @property
    def first_row(self) -> np.ndarray:
        """`[N]` int64: position of each shard's first row within its block."""
        before = np.concatenate([[0], np.cumsum(self.rows)])[:-1]
        opens = np.searchsorted(self.block, self.block)  # the block's first shard
        return np.asarray(before - before[opens], np.int64)

    def shard_of(self, time: np.ndarray) -> np.ndarray:
        """`[N]` int64: the shard of each time (ms since the epoch), -1 for rows outside the plan."""
        second = time // 1000
        shard = np.searchsorted(self.start, second, side="right") - 1
        return np.where(second < self.end, shard, -1)


def cut_blocks(
    seconds: np.ndarray, rows: np.ndarray, *, by: By, timezone: str, shard_rows: int, blocks: int | None = None
) -> BlockPlan:
    """Plan the blocks and shards of a log.

    Args:
        seconds: `[M]` int64, ascending: the seconds since the epoch in which the log has rows; M >= 1.
        rows: `[M]` int64: number of rows in each second.
        by: block length. With a number of rows, a block closes at the end of the second in which it reaches it; the last may have fewer.
        timezone: IANA zone in which days and weeks begin.
        shard_rows: target number of rows per shard; the shards of a block are about equal, and a second is never divided.
        blocks: number of blocks to keep, from the start; None keeps all.
    """
    if isinstance(by, int):
        block, names = _by_rows(rows, by)
    else:
        block, names = _by_calendar(seconds, by, timezone)
    if blocks is not None and blocks < len(names):
        keep = block < blocks
        seconds, rows, block, names = seconds[keep], rows[keep], block[keep], names[:blocks]

    of_block = np.bincount(block, weights=rows).astype(np.int64)
    opens = np.searchsorted(block, np.arange(len(names)))
    before = np.concatenate([[0], np.cumsum(rows)])[:-1]
    within = before - before[opens][block]
    part = within * (-(-of_block // shard_rows))[block] // of_block[block]
    first = np.flatnonzero(np.concatenate([[True], (np.diff(block) > 0) | (np.diff(part) > 0)]))
    return BlockPlan(names, seconds[first], int(seconds[-1]) + 1, block[first], np.add.reduceat(rows, first))


def _by_rows(rows: np.ndarray, least: int) -> tuple[np.ndarray, list[str]]:
    total = np.cumsum(rows)
    firsts, first = [], 0
    while first < len(rows):
        firsts.append(first)
        done = total[first - 1] if first else 0
        first = int(np.searchsorted(total, done + least)) + 1
    block = np.searchsorted(firsts, np.arange(len(rows)), side="right") - 1
    return block, [f"rows-{index:05d}" for index in range(len(firsts))]


def _by_calendar(seconds: np.ndarray, by: str, timezone: str) -> tuple[np.ndarray, list[str]]:
    local = pd.to_datetime(seconds, unit="s", utc=True).tz_convert(timezone).tz_localize(None)
    day = local.to_numpy().astype("datetime64[D]").astype(np.int64)
    # Day 0 of the epoch was a Thursday; ISO weeks begin on Monday.
    period = day if by == "day" else (day + 3) // 7
    # Where clocks go back at midnight, a local day can return. Its rows then stay in the later block, so blocks never go back in time.
    period = np.maximum.accumulate(period)
    kinds, block = np.unique(period, return_inverse=True)
    if by == "day":
        return block, [str(np.datetime64(int(kind), "D")) for kind in kinds]
    mondays = pd.to_datetime(kinds * 7 - 3, unit="D").isocalendar()
    return block, [f"{year:04d}-W{week:02d}" for year, week in zip(mondays["year"], mondays["week"], strict=True)]
