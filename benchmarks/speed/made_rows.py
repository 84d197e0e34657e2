"""Rows of the shape of a published log, made from numbers alone, so that each build and peer can make the same. Needs numpy only."""

from __future__ import annotations

import numpy as np

VALUES = {
    "complete-journey": (2500, 7, 13, 6, 6, 6, 6, 5, 70_000, 6000, 35, 2, 300, 2200, 4000, 460, 25, 8, 32),
}
"""The number of values of each field; those of the first eight belong to a user."""
OF_USER, VISIT = 8, 7
"""The fields of a user, and the rows of one visit: a user's rows come together, as in a log in the order of time."""


def made_ids(shape: str, n: int) -> np.ndarray:
    """`[n, F]` int64: for each row the number of its value in each field, from 0; small numbers are frequent."""
    rng = np.random.default_rng(0)
    users = np.repeat(rng.integers(0, VALUES[shape][0], n // VISIT + 1), VISIT)[:n]
    columns = [
        users % size if field < OF_USER else np.minimum((size * rng.random(n) ** 3).astype(np.int64), size - 1)
        for field, size in enumerate(VALUES[shape])
    ]
    return np.stack(columns, axis=1)


def made_labels(n: int) -> np.ndarray:
    """`[n, 1]` uint8, three in ten 1."""
    return (np.random.default_rng(1).random((n, 1)) < 0.3).astype(np.uint8)
