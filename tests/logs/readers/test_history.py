"""Histories made of a log, against plain Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.logs.readers.history import Histories

EVENT = st.tuples(st.integers(-2, 3), st.integers(0, 9), st.integers(0, 99))


@given(st.lists(EVENT, max_size=30), st.lists(EVENT, max_size=15), st.integers(1, 4), st.integers(0, 30))
def test_histories_are_what_was_strictly_before(
    events: list[tuple[int, int, int]], asked: list[tuple[int, int, int]], length: int, cut: int
) -> None:
    batches = [np.array(part, np.int64).reshape(-1, 3).T for part in (events[:cut], events[cut:])]
    user, time, _ = np.array(asked, np.int64).reshape(-1, 3).T
    expected = []
    for u, t, _ in asked:
        mine = sorted((event for event in events if event[0] == u and event[1] < t), key=lambda event: event[1])
        expected.append([item for _, _, item in mine][-length:])
    assert Histories(iter(batches)).before(user, time, length).to_pylist() == expected
