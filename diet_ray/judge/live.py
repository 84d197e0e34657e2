"""Live: a candidate meets the rows of a block in time order; it predicts each batch, then learns it, as a model in production does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diet_ray.errors import ConfigError
from diet_ray.judge.live_state import LiveState
from diet_ray.logs.blocks import BlockManifest, Log, Rows
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.workers import Solo


@dataclass(frozen=True)
class LiveRows:
    """The rows that candidates meet live, by block."""

    blocks: list[BlockManifest]
    """The block of each part, in order; the last may be met in part."""
    parts: list[Rows]
    """The rows that are met, in time order: a part per block, or several where a race has rungs within a block."""
    known_ids: int
    """Ids from here on are new: no earlier block has them."""

    @cached_property
    def rows(self) -> Rows:
        """All rows."""
        return Rows.concat(self.parts)

    @property
    def sizes(self) -> dict[str, int]:
        """Name and number of rows of each whole block."""
        return {block.name: block.rows for block in self.blocks}


def rows_met(rows: int, share: float) -> int:
    """The rows of a block of `rows` that are met in a share of it, 0 to 1; at least one."""
    return max(1, math.floor(rows * share + 1e-9))


def rungs_of_rows(log: Log, first: BlockManifest, shares: Sequence[float], batch_size: int) -> list[LiveRows]:
    """The rows that the candidates of a race have met after each of its rungs.

    A rung within a block ends after whole batches, so that a candidate that goes on learns the batches of one that never paused.

    Args:
        log: the log.
        first: the block that they meet first; not the log's first.
        shares: in blocks, ascending, as in `live_rows`.
        batch_size: rows of a batch.

    Returns:
        One for each share; each begins with the parts of the one before.

    Raises:
        ConfigError: the log ends before the last share, or two shares end at the same row.
    """
    _check_share(log, first, shares[-1], "--rungs")
    whole = live_rows(log, first, math.ceil(shares[-1]))
    starts, ends = _starts_and_ends(whole.blocks, shares, batch_size)
    for share, before, end in zip(shares[1:], ends, ends[1:], strict=False):
        if end <= before:
            raise ConfigError(
                f"--rungs: the rung {share:g} ends after {end} rows of block {first.name!r}, as the rung before it does, because a rung "
                f"is a whole number of batches of {batch_size}; leave one out"
            )
    pieces = list(pairwise(sorted({*ends, *(int(start) for start in starts if start < ends[-1])})))
    blocks = [whole.blocks[int(np.searchsorted(starts, begin, side="right")) - 1] for begin, _ in pieces]
    parts = [whole.rows.take(np.arange(begin, end)) for begin, end in pieces]
    counts = [sum(end <= of_rung for _, end in pieces) for of_rung in ends]
    return [LiveRows(blocks[:count], parts[:count], whole.known_ids) for count in counts]


def distinct_rungs(log: Log, first: BlockManifest, shares: Sequence[float], batch_size: int) -> list[float]:
    """Of rungs that end after the same row, as on a block of a few batches, the last; the arguments are those of `rungs_of_rows`."""
    _, ends = _starts_and_ends(log.blocks[first.index :], shares, batch_size)
    return [share for share, end, after in zip(shares, ends, [*ends[1:], None], strict=True) if end != after]


def _starts_and_ends(
    blocks: list[BlockManifest], shares: Sequence[float], batch_size: int
) -> tuple[np.ndarray, list[int]]:
    """The row at which each block begins, with the end of the last, and the row at which each rung ends."""
    starts = np.cumsum([0, *(block.rows for block in blocks)])
    return starts, [_whole_batches(share, blocks, starts, batch_size) for share in shares]


def _whole_batches(share: float, blocks: list[BlockManifest], starts: np.ndarray, batch_size: int) -> int:
    """The rows up to a share in blocks: the end of a block, or a whole number of batches of the block in which it lies, at least one."""
    index = max(0, math.ceil(share - 1e-9) - 1)
    block, begin = blocks[index], int(starts[index])
    met = rows_met(block.rows, share - index)
    return begin + (met if met == block.rows else min(block.rows, max(1, met // batch_size) * batch_size))


def live_rows(log: Log, first: BlockManifest, share: float) -> LiveRows:
    """The rows that candidates meet from a block on.

    Args:
        log: the log.
        first: the block that they meet first; not the log's first.
        share: in blocks: 0.1 for the first tenth of the block, 2.5 for it, the next one and half of the third. At least one row.

    Raises:
        ConfigError: the log ends before.
    """
    _check_share(log, first, share, "--live")
    later, blocks, parts = log.blocks[first.index :], [], []
    for block, part in zip(later, np.clip(share - np.arange(len(later)), 0, 1), strict=True):
        if part > 0:
            n = rows_met(block.rows, float(part))
            blocks.append(block)
            parts.append(log.read_block(block).take(np.arange(n)))
    return LiveRows(blocks, parts, known_ids=log.blocks[first.index - 1].n_ids)


def _check_share(log: Log, first: BlockManifest, share: float, option: str) -> None:
    """Raise ConfigError where the log ends before."""
    later = len(log.blocks) - first.index
    if share > later:
        raise ConfigError(
            f"{option} {share:g}: the log has {later} blocks from {first.name!r} on; lower it, or append blocks to the log"
        )


def go_live(model: Reference, live: LiveRows, state: LiveState | None = None, *, keep: bool = False) -> np.ndarray:
    """Let a candidate with a table of its own meet the rows; it learns them.

    Args:
        model: the candidate, its only net; changed in place. Ids that are new grow its table.
        live: the rows.
        state: where it stands is kept there after each part but the last, and parts that it has met according to it are left out.
        keep: keep where it stands after the last part, too, so that it can go on from there.

    Returns:
        `[N, T]` float32 logits of the N rows, each predicted just before the batch of the row was learned.
    """
    logits = state.restore(model) if state else []
    for number in range(len(logits), len(live.blocks)):
        logits.append(_meet(model, live.blocks[number], live.parts[number]))
        if state and (keep or number + 1 < len(live.blocks)):
            state.save(model, logits, live.parts[: number + 1])
    return np.concatenate(logits[: len(live.blocks)])


def _meet(model: Reference, block: BlockManifest, rows: Rows) -> np.ndarray:
    """`[n, T]` float32 logits of rows of one block."""
    parts: list[Tensor] = []
    model.grow(block.n_ids)
    train_pass(
        model, [rows], Solo(), rows=len(rows), on_predicted=lambda _, predicted: parts.append(predicted[0].cpu())
    )
    return torch.cat(parts).numpy()
