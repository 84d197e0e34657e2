"""The index of a log's vocabulary while its rows are encoded: the id of each key, in files that are mapped and not loaded.

    keys    uint64, ascending: the keys of all values of all fields (`value_counts.py`)
    ids     int32: their ids
    opens   int64: the position of the first key of each of 2^k equal ranges of keys, and the number of keys
    sizes   int64: the size of the id space after each block

Keys are hashes, so that about one is in each range: an id is found in two or three looks, where a binary search needs twenty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KEYS, IDS, OPENS, SIZES = "keys", "ids", "opens", "sizes"
TYPES: dict[str, Any] = {KEYS: "<u8", IDS: "<i4", OPENS: "<i8", SIZES: "<i8"}

_AT_ONCE = 1 << 20
"""Ranges whose first keys are found at a time."""


@dataclass(frozen=True)
class IdIndex:
    """The ids of V values."""

    keys: np.ndarray
    """`[V]` uint64, ascending."""
    ids: np.ndarray
    """`[V]` int32."""
    opens: np.ndarray
    """`[2^k + 1]` int64."""
    n_ids: np.ndarray
    """`[B]` int64: size of the id space after each block."""

    @staticmethod
    def open(folder: Path) -> IdIndex:
        """The index in a folder. Its memory is the system's to give and to take, whatever the number of values."""
        return IdIndex(*(_mapped(folder / name, kind) for name, kind in TYPES.items()))

    def of(self, keys: np.ndarray) -> np.ndarray:
        """`[N]` int32: the ids of `keys [N]` uint64, -1 for keys that no value has."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int32)
        at = self.opens[(keys >> _shift(len(self.opens) - 1)).astype(np.int64)]
        np.minimum(at, len(self.keys) - 1, out=at)
        found = self.keys[at]
        ids = np.where(found == keys, self.ids[at], np.int32(-1))
        todo = np.flatnonzero(found < keys)
        at = at[todo]
        while len(todo):  # keys are ascending: a key that is behind the one sought ends the search
            at = at + 1
            inside = at < len(self.keys)
            todo, at = todo[inside], at[inside]
            found, wanted = self.keys[at], keys[todo]
            hit = found == wanted
            ids[todo[hit]] = self.ids[at[hit]]
            further = found < wanted
            todo, at = todo[further], at[further]
        return ids


def write_opens(folder: Path) -> None:
    """Complete an index that has its keys: the positions at which the ranges of keys begin."""
    keys = _mapped(folder / KEYS, TYPES[KEYS])
    n_ranges = 2 << max(len(keys) - 1, 0).bit_length()
    with (folder / OPENS).open("wb") as file:
        for begin in range(0, n_ranges, _AT_ONCE):
            bounds = np.arange(begin, min(begin + _AT_ONCE, n_ranges)).astype(np.uint64) << _shift(n_ranges)
            file.write(np.searchsorted(keys, bounds).astype(TYPES[OPENS]).tobytes())
        file.write(np.array([len(keys)], TYPES[OPENS]).tobytes())


def _shift(n_ranges: int) -> np.uint64:
    """The bits of a key below those that number its range."""
    return np.uint64(64 - (n_ranges.bit_length() - 1))


def _mapped(path: Path, kind: Any) -> np.ndarray:
    return np.asarray(np.memmap(path, kind, "r")) if path.stat().st_size else np.zeros(0, kind)
