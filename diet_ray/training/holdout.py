"""Held-out rows, on which the reference of the stage does not train: hard targets of refinement, and the guard rows that judge it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from diet_ray.logs.blocks import Rows
from diet_ray.seeds import derive_seed, uniform_by_id


def held_out(row_id: np.ndarray, share: float, seed: int) -> np.ndarray:
    """`[N]` bool: the rows excluded from this stage's pass, chosen by a hash of their id."""
    return uniform_by_id(row_id, derive_seed(seed, "holdout")) < share


GUARD_SHARE = 1 / 3
"""Share of the held-out rows, the latest ones, on which refinement is judged; the others are its hard targets."""


def count_guard(n_rows: int) -> int:
    """The number of guard rows among `n_rows` held-out rows."""
    return int(n_rows * GUARD_SHARE)


def held_rows(parts: Iterable[Rows], share: float, seed: int) -> Rows:
    """The held-out rows among `parts`, in order."""
    return Rows.concat([rows.take(held_out(rows.row_id, share, seed)) for rows in parts])
