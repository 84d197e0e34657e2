"""Rows that a stage's reference does not learn from: hard targets of refinement, and the guard that judges it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from diet_ray.logs.blocks import Rows
from diet_ray.seeds import derive_seed, uniform_by_id


def held_out(row_id: np.ndarray, share: float, seed: int) -> np.ndarray:
    """`[N]` bool: the rows kept from this stage's pass, by a hash of their id, to serve as hard targets."""
    return uniform_by_id(row_id, derive_seed(seed, "holdout")) < share


GUARD_SHARE = 1 / 3
"""Share of the held-out rows, the latest, on which refinement is judged; the others serve as hard targets."""


def count_guard(n_rows: int) -> int:
    """How many of so many rows held out judge refinement."""
    return int(n_rows * GUARD_SHARE)


def held_rows(parts: Iterable[Rows], share: float, seed: int) -> Rows:
    """The rows among `parts` that are held out, in order."""
    return Rows.concat([rows.take(held_out(rows.row_id, share, seed)) for rows in parts])
