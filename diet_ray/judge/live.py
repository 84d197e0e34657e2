"""Live: a candidate meets the rows of a block in time order; it predicts each batch, then learns it, as a model in production does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

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
    """The blocks in order; the last may be met in part."""
    parts: list[Rows]
    """The rows of each block that are met, in time order."""
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


def live_rows(log: Log, first: BlockManifest, share: float) -> LiveRows:
    """The rows that candidates meet from a block on.

    Args:
        log: the log.
        first: the block that they meet first; not the log's first.
        share: in blocks: 0.1 for the first tenth of the block, 2.5 for it, the next one and half of the third. At least one row.

    Raises:
        ConfigError: the log ends before.
    """
    later = log.blocks[first.index :]
    if share > len(later):
        raise ConfigError(
            f"--live {share:g}: the log has {len(later)} blocks from {first.name!r} on; lower it, or append blocks to the log"
        )
    blocks, parts = [], []
    for block, part in zip(later, np.clip(share - np.arange(len(later)), 0, 1), strict=True):
        if part > 0:
            n = rows_met(block.rows, float(part))
            blocks.append(block)
            parts.append(log.read_block(block).take(np.arange(n)))
    return LiveRows(blocks, parts, known_ids=log.blocks[first.index - 1].n_ids)


def go_live(model: Reference, live: LiveRows, state: LiveState | None = None) -> np.ndarray:
    """Let a candidate with a table of its own meet the rows; it learns them.

    Args:
        model: the candidate, its only net; changed in place. Ids that are new grow its table.
        live: the rows.
        state: where it stands is kept there after each block but the last, and blocks that it has met according to it are left out.

    Returns:
        `[N, T]` float32 logits of the N rows, each predicted just before the batch of the row was learned.
    """
    logits = state.restore(model) if state else []
    for number in range(len(logits), len(live.blocks)):
        if number and state:
            state.save(model, logits)
        logits.append(_meet(model, live.blocks[number], live.parts[number]))
    return np.concatenate(logits)


def _meet(model: Reference, block: BlockManifest, rows: Rows) -> np.ndarray:
    """`[n, T]` float32 logits of the rows of one block."""
    parts: list[Tensor] = []
    model.grow(block.n_ids)
    train_pass(
        model, [rows], Solo(), rows=len(rows), on_predicted=lambda _, predicted: parts.append(predicted[0].cpu())
    )
    return torch.cat(parts).numpy()
