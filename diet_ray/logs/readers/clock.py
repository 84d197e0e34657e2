"""Times for the readers: the local hour and weekday of a time, and made-up times for rows of which only the order is published."""

from __future__ import annotations

import numpy as np
import pandas as pd

DAY_MS = 86_400_000
"""Milliseconds of a day."""


def hour_and_weekday(time: np.ndarray, zone: str) -> dict[str, np.ndarray]:
    """`hour` (0 to 23) and `weekday` (0 is Monday), `[N]` int8 each, of times in ms since the epoch, in an IANA zone."""
    local = pd.DatetimeIndex(pd.to_datetime(time, unit="ms", utc=True)).tz_convert(zone)
    return {"hour": local.hour.to_numpy().astype(np.int8), "weekday": local.day_of_week.to_numpy().astype(np.int8)}


def spread(position: np.ndarray, *, per_second: int, seconds: int) -> np.ndarray:
    """Made-up times, `[N]` int64 ms from 0, for the rows at `position [N]` of a period; they keep the rows' order.

    Rows follow one another at `per_second`; those beyond the period's end share its last millisecond.
    """
    return np.minimum(position.astype(np.int64) * 1000 // per_second, seconds * 1000 - 1)
