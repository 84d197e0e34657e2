"""Rows that a stage's reference does not learn from: hard targets of refinement, and the guard that judges it."""

from __future__ import annotations

import numpy as np

from diet_ray.seeds import derive_seed, uniform_by_id


def held_out(row_id: np.ndarray, share: float, seed: int) -> np.ndarray:
    """`[N]` bool: the rows kept from this stage's pass, by a hash of their id, to serve as hard targets."""
    return uniform_by_id(row_id, derive_seed(seed, "holdout")) < share


GUARD_SHARE = 1 / 3
"""Share of the held-out rows, the latest, on which refinement is judged; the others serve as hard targets."""
