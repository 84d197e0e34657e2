"""Stage step 6: the budget. How many fresh units a block gives, and which old ones leave for them."""

from __future__ import annotations

import numpy as np

from diet_ray.config import BudgetConfig


def quota(config: BudgetConfig, *, block_rows: int, rows_before: int, units_before: int) -> int:
    """How many fresh units a block gives.

    With a ratio, what the budget for all rows seen leaves free, which is nothing where blocks are too small for a unit of their own;
    the first unit is always granted. With a cap, the block's share of all rows seen, at least 1, so that each block keeps a say in
    proportion to its size.
    """
    rows = rows_before + block_rows
    if config.ratio is not None:
        return max(0, max(1, round(config.ratio * rows)) - units_before)
    assert config.cap is not None
    return max(1, min(block_rows, round(config.cap * block_rows / rows)))


def leaving(influence: np.ndarray, block: np.ndarray, unit_id: np.ndarray, n: int) -> np.ndarray:
    """`[min(n, M)]` int64: positions of the units that leave first under a cap, those of lowest influence.

    Among equal influence the older block leaves first, then the smaller unit id. The first `n` of several shards hold the first `n` of all.
    """
    return np.lexsort((unit_id, block, influence))[:n]
