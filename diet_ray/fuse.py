"""Stage step 6: old and fresh units become one memory within the budget. Pure."""

from __future__ import annotations

import numpy as np

from diet_ray.config import BudgetConfig
from diet_ray.units import Units


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


def fuse(old: Units | None, fresh: Units, config: BudgetConfig) -> Units:
    """M_t: the aligned old units and the fresh ones; under a cap, those of lowest influence leave.

    Among equal influence the older block leaves first, then the smaller unit id. Fresh units stay: their influence is not known until
    they have been trained on.
    """
    if old is None:
        return fresh
    if config.cap is None or len(old) + len(fresh) <= config.cap:
        return Units.concat([old, fresh])
    room = max(config.cap - len(fresh), 0)
    order = np.lexsort((old.unit_id, old.block, old.influence))
    return Units.concat([old.take(np.sort(order[len(order) - room :])), fresh])
