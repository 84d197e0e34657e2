"""The time column of a log, whatever its unit, type and zone, as milliseconds since the epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.checks import Origin, check_finite, nulls, parsed, usable, whole
from diet_ray.schema import Time

_PER_MS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_LATEST = np.datetime64("2200-01-01", "ms").astype(np.int64)


def read_time(table: pa.Table, time: Time, origin: Origin) -> np.ndarray:
    """The time column as `[N]` int64 ms since the epoch.

    Raises:
        BadInputError: the column has the wrong type.
        BadRows: a null, a value that is no time, or one outside 1970-2200 (usually a wrong unit).
    """
    with usable(time.column, origin):
        column = whole(table[time.column], time.column, origin)
        if column.null_count:
            origin.refuse(time.column, nulls(column), "no time", "remove the row, or give it its time")
        stamp = _timestamps(column, time, origin) if time.unit == "timestamp" else _epoch(column, time, origin)
    _inside(stamp, 0, int(_LATEST), column, time, origin)
    return stamp


def _inside(stamp: np.ndarray, first: int, end: int, column: pa.Array, time: Time, origin: Origin) -> None:
    outside = (stamp < first) | (stamp >= end)
    if outside.any():
        remedy = f"is time.unit {time.unit!r} right? else correct the time"
        origin.refuse(time.column, outside, "time outside 1970-2200", remedy)


def _epoch(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    times, divide = _PER_MS[time.unit]
    limit = int(_LATEST) * divide // times
    if pa.types.is_string(column.type):
        column = parsed(column, pa.int64(), r"^-?([0-9]{1,18}|[1-8][0-9]{18})$", time.column, origin, "an integer")
    if pa.types.is_floating(column.type):
        check_finite(column, time.column, origin)
        # The caller refuses values that are clipped here.
        stamp = np.clip(column.cast(pa.float64()).to_numpy(zero_copy_only=False), -1, limit)
        return np.asarray(np.floor(stamp * times / divide), np.int64)
    if not pa.types.is_integer(column.type):
        origin.wrong_type(
            time.column, column.type, "an integer epoch", "set time.unit to timestamp, or correct the column"
        )
    values = np.asarray(column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False))
    # Checked before scaling: a wrong unit must end in a message, not in an overflow.
    _inside(values, 0, limit, column, time, origin)
    return values * times // divide


def _timestamps(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    if pa.types.is_string(column.type):
        return _iso(column, time, origin)
    if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
        origin.wrong_type(
            time.column,
            column.type,
            "a date, timestamp or ISO text",
            "set time.unit to s, ms, us or ns for an integer epoch",
        )
    aware = False
    if pa.types.is_timestamp(column.type):
        aware, (times, divide) = column.type.tz is not None, _PER_MS[column.type.unit]
        # Checked before scaling, as above; a zone shifts a time by less than a day.
        raw, day = column.cast(pa.int64()).to_numpy(zero_copy_only=False), 86_400_000 * divide // times
        _inside(raw, -day, int(_LATEST) * divide // times + day, column, time, origin)
    stamp = (
        column.cast(pa.timestamp("ms", column.type.tz if aware else None), safe=False)
        .cast(pa.int64())
        .to_numpy(zero_copy_only=False)
    )
    return np.asarray(stamp) if aware else _local(pd.DatetimeIndex(stamp.astype("datetime64[ms]")), time.timezone)


def _iso(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    zoned = pc.match_substring_regex(column, r"[0-9](Z|[+-][0-9]{2}:?[0-9]{2})$").to_numpy(zero_copy_only=False)
    # A date such as 2022-04-25 ends like an offset, but an offset follows a time of day.
    zoned &= pc.match_substring(column, ":").to_numpy(zero_copy_only=False)
    text = column.to_numpy(zero_copy_only=False)
    stamp = np.zeros(len(column), np.int64)
    for mask, utc in ((zoned, True), (~zoned, False)):
        if mask.any():
            parsed = pd.DatetimeIndex(pd.to_datetime(text[mask], format="ISO8601", errors="coerce", utc=utc))
            if parsed.isna().any():
                bad = np.zeros(len(column), bool)
                bad[np.flatnonzero(mask)[parsed.isna()]] = True
                origin.refuse(
                    time.column,
                    bad,
                    "text that is no ISO 8601 time",
                    "write it as 2022-04-25 13:45:00, or set time.unit",
                )

            stamp[mask] = parsed.tz_localize(None).as_unit("ms").asi8 if utc else _local(parsed, time.timezone)
    return stamp


def _local(naive: pd.DatetimeIndex, timezone: str) -> np.ndarray:
    """Local times of a zone to ms. A time in an hour that clocks repeat is in the first pass; one in a skipped hour is that hour's end."""
    first = np.ones(len(naive), bool)
    aware = naive.as_unit("ms").tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")
    return np.asarray(aware.tz_convert("UTC").tz_localize(None).as_unit("ms").asi8)
