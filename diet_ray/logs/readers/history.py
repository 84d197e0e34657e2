"""What each user did before a moment: the histories of logs that do not publish any, made of the log itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

LENGTH = 20
"""Items of a history that a reader passes on; a schema keeps at most so many."""


class Histories:
    """Events that make a history, such as what a user liked, of a whole log: `item` by `user` and `time`.

    Holds 24 bytes per event, and about three times as much while it is made. Row order settles equal times.
    """

    def __init__(self, events: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Take in batches of user, time and item, each `[N]` int64, in the order of the log's files."""
        none = np.zeros(0, np.int64)
        user, time, item = (np.concatenate(parts) for parts in zip((none, none, none), *events, strict=True))
        order = np.lexsort((time, user))
        self._times, moment = np.unique(time[order], return_inverse=True)
        self._users, owner = np.unique(user[order], return_inverse=True)
        self._keys = self._key(owner, moment)
        self._items = item[order]

    def before(self, user: np.ndarray, time: np.ndarray, length: int = LENGTH) -> pa.ListArray:
        """For N users and moments the last `length` items from strictly before, oldest first; `[N]` lists of int64."""
        owner = np.searchsorted(self._users, user)
        known = owner < len(self._users)
        known[known] = self._users[owner[known]] == user[known]
        moment = np.searchsorted(self._times, time)  # how many of the log's moments are earlier
        first = np.searchsorted(self._keys, self._key(owner, np.zeros_like(moment)))
        end = np.where(known, np.searchsorted(self._keys, self._key(owner, moment)), first)
        n = np.minimum(end - first, length)
        offsets = np.concatenate([[0], np.cumsum(n)])
        at = np.arange(offsets[-1]) - np.repeat(offsets[1:] - end, n)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(self._items[at]))

    def _key(self, owner: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """One number by which events are in the order of users, then of time."""
        return np.asarray(owner * (len(self._times) + 1) + moment, np.int64)
