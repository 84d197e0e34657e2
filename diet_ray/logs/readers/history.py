"""Histories: the items of each user before a given time, for logs without published histories. They are built from the log itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

LENGTH = 20
"""Most items of a history that a reader passes on, and so that a schema can keep."""


class Histories:
    """The events of a whole log that form histories, such as likes: `item` by `user` and `time`.

    Memory holds 24 bytes per event, and about three times as much during the construction. Events of equal time keep the rows' order.
    """

    def __init__(self, events: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Read batches of user, time and item, each `[N]` int64, in the order of the log's files."""
        none = np.zeros(0, np.int64)
        user, time, item = (np.concatenate(parts) for parts in zip((none, none, none), *events, strict=True))
        order = np.lexsort((time, user))
        self._times, moment = np.unique(time[order], return_inverse=True)
        self._users, owner = np.unique(user[order], return_inverse=True)
        self._keys = self._key(owner, moment)
        self._items = item[order]

    def before(self, user: np.ndarray, time: np.ndarray, length: int = LENGTH) -> pa.ListArray:
        """For N users and times, the last `length` items of the user strictly before the time, oldest first; `[N]` lists of int64."""
        owner = np.searchsorted(self._users, user)
        has_events = owner < len(self._users)
        has_events[has_events] = self._users[owner[has_events]] == user[has_events]
        moment = np.searchsorted(self._times, time)  # number of earlier times of the log
        first = np.searchsorted(self._keys, self._key(owner, np.zeros_like(moment)))
        end = np.where(has_events, np.searchsorted(self._keys, self._key(owner, moment)), first)
        n = np.minimum(end - first, length)
        offsets = np.concatenate([[0], np.cumsum(n)])
        at = np.arange(offsets[-1]) - np.repeat(offsets[1:] - end, n)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(self._items[at]))

    def _key(self, owner: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """One number per event, by which events sort by user, then by time."""
        return np.asarray(owner * (len(self._times) + 1) + moment, np.int64)
