"""The time column of a log, whatever its unit, type and zone, as milliseconds since the epoch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.checks import NUMBER, Origin, check_finite, nulls, parsed, usable, whole
from diet_ray.logs.ingestion.time_text import read_text, wall_clock
from diet_ray.schema import Time

_PER_MS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_LATEST = np.datetime64("2200-01-01", "ms").astype(np.int64)

_INTEGER = r"^-?([0-9]{1,18}|[1-8][0-9]{18})$"


def read_time(table: pa.Table, time: Time, origin: Origin) -> np.ndarray:
    """The time column as `[N]` int64 ms since the epoch, rounded down.

    Raises:
        BadInputError: the column has the wrong type, or a type that is too coarse for its times.
        BadRows: a null, a value that is no time, or one outside 1970-2200 (usually a wrong unit).
    """
    with usable(time.column, origin):
        column = whole(table[time.column], time.column, origin)
        if column.null_count:
            origin.refuse(time.column, nulls(column), "no time", "remove the row, or give it its time")
        stamp = _timestamps(column, time, origin) if time.unit == "timestamp" else _epoch(column, time, origin)
    _inside(stamp, 0, int(_LATEST), time, origin)
    return stamp


def _inside(stamp: np.ndarray, first: int, end: int, time: Time, origin: Origin) -> None:
    outside = (stamp < first) | (stamp >= end)
    if outside.any():
        remedy = f"is time.unit {time.unit!r} right? else correct the time"
        origin.refuse(time.column, outside, "time outside 1970-2200", remedy)


def _epoch(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    kind = column.type
    if pa.types.is_decimal(kind):
        column = column.cast(pa.string())  # exact, and then as in CSV
    if pa.types.is_string(column.type):
        return _epoch_text(column, time, origin)
    if pa.types.is_floating(kind):
        check_finite(column, time.column, origin)
        _check_resolution(column, time, origin)
        return _from_floats(column.cast(pa.float64()).to_numpy(zero_copy_only=False), time)
    if not pa.types.is_integer(kind):
        origin.wrong_type(time.column, kind, "an integer epoch", "set time.unit to timestamp, or correct the column")
    return _from_integers(column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False), time, origin)


def _from_integers(values: np.ndarray, time: Time, origin: Origin) -> np.ndarray:
    times, divide = _PER_MS[time.unit]
    # Checked before scaling: a wrong unit must end in a message, not in an overflow.
    _inside(values, 0, int(_LATEST) * divide // times, time, origin)
    return np.asarray(values) * times // divide


def _from_floats(values: np.ndarray, time: Time) -> np.ndarray:
    """Numbers with a point, to the nearest microsecond, then down to the millisecond: as a double, 1709548205.123 is a little less."""
    times, divide = _PER_MS[time.unit]
    # The caller refuses values that are clipped here.
    values = np.clip(values, -1, int(_LATEST) * divide // times)
    if divide > 1000:
        return np.asarray(np.floor(values / divide), np.int64)
    return np.asarray(np.rint(values * (1000 * times // divide)), np.int64) // 1000


def _epoch_text(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    integer = pc.match_substring_regex(column, _INTEGER).to_numpy(zero_copy_only=False)
    if integer.all():
        return _from_integers(column.cast(pa.int64()).to_numpy(zero_copy_only=False), time, origin)
    floats = parsed(column, pa.float64(), NUMBER, time.column, origin, "a number")
    stamp = _from_floats(floats.to_numpy(zero_copy_only=False), time)
    exact = column.filter(pa.array(integer)).cast(pa.int64()).to_numpy(zero_copy_only=False)
    stamp[integer] = _from_integers(exact, time, origin.at(integer))
    return stamp


def _check_resolution(column: pa.Array, time: Time, origin: Origin) -> None:
    """Refuse floats of which neighbours are more than a unit apart: 32 bits hold a second of 2024 to 128 s."""
    if pa.types.is_float64(column.type):
        return
    latest = np.abs(column.to_numpy(zero_copy_only=False)).max(initial=0)
    step = np.spacing(latest)
    if step <= 1:
        return
    raise BadInputError(
        origin.file,
        f"has type {column.type}, which is too coarse for a time: at {latest:.0f} {time.unit} its steps are {step:.0f} {time.unit}",
        column=time.column,
        remedy="export it again from its source as integer, double or timestamp: what was rounded off cannot be brought back",
    )


def _timestamps(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    kind = column.type
    if pa.types.is_string(kind):
        stamp, bad = read_text(column, time.timezone)
        if bad.any():
            remedy = (
                "write it as 2022-04-25 13:45:00, 2022-04-25T13:45:00Z or 2022-04-25T13:45:00+02:00, or set time.unit"
            )
            origin.refuse(time.column, bad, "text {!r}, which is no ISO 8601 time", remedy, column)
        return stamp
    if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        origin.wrong_type(
            time.column, kind, "a date, timestamp or ISO text", "set time.unit to s, ms, us or ns for an integer epoch"
        )
    aware = False
    if pa.types.is_timestamp(kind):
        aware, (times, divide) = kind.tz is not None, _PER_MS[kind.unit]
        # Checked before scaling, as above; a zone shifts a time by less than a day.
        raw, day = column.cast(pa.int64()).to_numpy(zero_copy_only=False), 86_400_000 * divide // times
        _inside(raw, -day, int(_LATEST) * divide // times + day, time, origin)
    stamp = np.asarray(
        column.cast(pa.timestamp("ms", kind.tz if aware else None), safe=False)
        .cast(pa.int64())
        .to_numpy(zero_copy_only=False)
    )
    if time.column in origin.instants and not aware:
        if time.timezone != "UTC":
            origin.note(time.column, np.ones(len(stamp), bool), f"{INT96}, not as clock times of {time.timezone}")
        aware = True
    return stamp if aware else wall_clock(stamp, time.timezone)


INT96 = "INT96 timestamps are instants, as Spark and Hive write them: read as UTC"
"""The note on a time column that a Parquet file holds as INT96."""
