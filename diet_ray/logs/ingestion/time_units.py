"""Whether the times of a whole log can be what the schema says: with a unit that is too small, all rows lie in the first weeks of 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np

from diet_ray.errors import BadInputError
from diet_ray.logs.notes import Note
from diet_ray.schema import Time

_DAYS = "days"
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, _DAYS: 86_400.0}
"""Units that a time may have been counted in, in seconds."""

_FACTORS: Final = (1e3, 1e6, 1e9, 86_400.0, 86_400e3)
"""By how much too small a time may be that was made a timestamp outside: by one to three steps of unit, or from days."""

_EARLY, _FIRST, _LAST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1980, 1990, 2100))

_SHORT = 43_200
"""A log of that many seconds or fewer is refused where another unit fits. A longer one is told: it may be made up and count from 1970."""

_ROUNDED = 64, 100
"""Times that are all multiples of so many seconds, but not of minutes, are told: 32-bit floats are, and their shortest decimal forms."""

_ENOUGH = 8
"""Different seconds from which steps are judged."""


def check_unit(seconds: np.ndarray, time: Time, source: str) -> list[Note]:
    """Judge the times of a whole log.

    Args:
        seconds: `[M]` int64, ascending: the seconds since the epoch in which the log has rows; M >= 1.
        time: the time column.
        source: the log's files, for the message.

    Returns:
        Notes on times that may be wrong.

    Raises:
        BadInputError: all rows lie within half a day before 1980, and another unit would put all of them between 1990 and 2100.
    """
    first, last = int(seconds[0]), int(seconds[-1])
    for factor, unit in _other_units(time.unit):
        if last < _EARLY and first * factor >= _FIRST and last * factor < _LAST:
            counted = f"counted in {unit}" if unit else f"{factor:,.0f} times as large"
            problem = f"all times lie on {_days(first, last)}; {counted} they would lie between 1990 and 2100"
            if last - first <= _SHORT:
                raise BadInputError(source, problem, column=time.column, remedy=_remedy(unit))
            return [Note(column=time.column, what=f"{problem}: is time.unit {time.unit!r} right?")]
    step = int(np.gcd.reduce(seconds)) if len(seconds) >= _ENOUGH else 0
    if step % 60 and any(step % rounded == 0 for rounded in _ROUNDED):
        rounded = "were they rounded, as by 32-bit floats? export them again as integers or timestamps"
        return [Note(column=time.column, what=f"all times are multiples of {step} s: {rounded}")]
    return []


def _other_units(stated: str) -> list[tuple[float, str]]:
    """Larger units than the stated one, as factors; a timestamp type names no unit."""
    if stated == "timestamp":
        return [(factor, "") for factor in _FACTORS]
    return [(size / _SECONDS[stated], unit) for unit, size in _SECONDS.items() if size > _SECONDS[stated]]


def _days(first: int, last: int) -> str:
    begin, end = (datetime.fromtimestamp(moment, UTC).date().isoformat() for moment in (first, last))
    return begin if begin == end else f"{begin} to {end}"


def _remedy(unit: str) -> str:
    made_up = "the times of a made-up log may begin at 0"
    if not unit:
        return f"the column was made from numbers in another unit: correct it where it is made; {made_up}"
    if unit == _DAYS:
        return f"multiply by 86400 and set time.unit to s, or write dates; {made_up}"
    return f"set time.unit to {unit}; {made_up}"
