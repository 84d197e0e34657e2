"""Stage step 6: the budget. It sets the number of fresh units from a block and the old units that leave the memory."""

from __future__ import annotations

import numpy as np

from diet_ray.config import BudgetConfig


def quota(config: BudgetConfig, *, block_rows: int, rows_before: int, units_before: int) -> int:
    """The number of fresh units to make from a block.

    With a ratio, the budget for all rows seen minus the units in the memory; this is 0 where a block is too small for one more unit. The
    memory always gets a first unit. With a cap, the cap times the block's share of all rows seen, at least 1, so that each block is
    represented in proportion to its size.
    """
    rows = rows_before + block_rows
    if config.ratio is not None:
        return max(0, max(1, round(config.ratio * rows)) - units_before)
    assert config.cap is not None
    return max(1, min(block_rows, round(config.cap * block_rows / rows)))


def leaving(influence: np.ndarray, block: np.ndarray, unit_id: np.ndarray, n: int) -> np.ndarray:
    """`[min(n, M)]` int64: positions of the units that leave first under a cap, those of lowest influence.

    At equal influence, units of older blocks leave first, then smaller unit ids. The first `n` of all units are among the first `n` of each
    shard.
    """
    return np.lexsort((unit_id, block, influence))[:n]
