"""Times written as text: ISO 8601, basic and extended, and the default forms of databases, as milliseconds since the epoch.

A text is read by its digits alone. Words that would need a clock (`now`), forms that need a guess (04/03/2024, 10:00 PM, EST) and dates
that do not exist are no times.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_FRACTION = r"(?:[.,](?P<fraction{0}>[0-9]*))?"
_DATE = (
    r"(?P<sep>[-/.])(?P<month1>[0-9]{1,2})(?P<sep2>[-/.])(?P<day1>[0-9]{1,2})"
    r"|(?P<month2>[0-9]{2})(?P<day2>[0-9]{2})"
    r"|-?W(?P<week>[0-9]{2})(?:-?(?P<weekday>[1-7]))?"
    r"|-?(?P<ordinal>[0-9]{3})"
)
_CLOCK = (
    r"(?P<hour1>[0-9]{1,2}):(?P<minute1>[0-9]{2})(?::(?P<second1>[0-9]{2})" + _FRACTION.format(1) + ")?"
    r"|(?P<hour2>[0-9]{2})(?:(?P<minute2>[0-9]{2})(?:(?P<second2>[0-9]{2})" + _FRACTION.format(2) + ")?)?"
)
_ZONE = (
    r"(?P<sign>[+\-\x{2212}])(?P<hours>[0-9]{2})(?::?(?P<minutes>[0-9]{2})(?::?(?P<seconds>[0-9]{2}))?)?"
    r"|(?P<name>[A-Za-z]+(?:/[A-Za-z0-9_+-]+)*)"
)
_FORM = rf"^\s*(?P<year>[0-9]{{4}})(?:[-/.](?P<month3>[0-9]{{2}})|(?:{_DATE})(?:[Tt ](?:{_CLOCK})(?:\s?(?:{_ZONE}))?)?)?\s*$"
_DAY_MS = 86_400_000
_UTC = ("z", "utc", "gmt", "ut")


def read_text(column: pa.Array, timezone: str) -> tuple[np.ndarray, np.ndarray]:
    """Read N texts without nulls.

    Args:
        column: strings.
        timezone: IANA zone of the texts that carry neither an offset nor a zone.

    Returns:
        `[N]` int64 ms since the epoch, rounded down; and `[N]` bool: which texts are no times.
    """
    for zone in (None, "UTC"):  # Arrow reads the usual forms, if all rows have one with an offset, or none has
        try:
            for part in (column.slice(0, 1), column):  # it takes longer to fail for all rows than to read them
                stamp = part.cast(pa.timestamp("us", zone)).cast(pa.int64()).to_numpy(zero_copy_only=False) // 1000
        except pa.ArrowInvalid:
            continue
        return wall_clock(stamp, timezone) if zone is None else stamp, np.zeros(len(column), bool)
    parts = pc.extract_regex(column, _FORM)
    bad = parts.is_null().to_numpy(zero_copy_only=False)
    read = _Parts(parts.drop_null())
    stamp, wrong = np.zeros(len(column), np.int64), bad.copy()
    stamp[~bad], wrong[~bad] = read.instants(timezone)
    return stamp, wrong


def wall_clock(wall: np.ndarray, timezone: str) -> np.ndarray:
    """Local times of a zone, `[N]` int64 ms as on its clocks, to ms since the epoch.

    A time in an hour that clocks repeat is in the first pass; one in a skipped hour is that hour's end.
    """
    naive, first = pd.DatetimeIndex(wall.astype("datetime64[ms]")), np.ones(len(wall), bool)
    aware = naive.tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")
    return np.asarray(aware.tz_convert("UTC").tz_localize(None).as_unit("ms").asi8)


class _Parts:
    """The parts of N texts that have the form of a time."""

    def __init__(self, parts: pa.StructArray) -> None:
        self._parts, self._n = parts, len(parts)

    def instants(self, timezone: str) -> tuple[np.ndarray, np.ndarray]:
        """As `read_text`."""
        day, bad_day = self._day()
        clock, bad_clock = self._clock()
        offset, named, codes, names = self._zone()
        bad = bad_day | bad_clock | (offset == _NO_OFFSET)
        zones = [_zone_of(name, timezone) for name in names]
        bad |= named & np.array([zone is None for zone in zones], bool)[codes]
        stamp = day * _DAY_MS + clock - np.where(bad, 0, offset)
        for code, zone in enumerate(zones):
            if zone is not None and zone != "UTC":
                rows = named & (codes == code) & ~bad
                stamp[rows] = wall_clock(stamp[rows], zone)
        return stamp, bad

    def _day(self) -> tuple[np.ndarray, np.ndarray]:
        """`[N]` days since the epoch, and which of them do not exist."""
        year = (self._number("year") - 1970).astype("datetime64[Y]")
        month = year.astype("datetime64[M]") + (self._number("month1", "month2", "month3", absent=1) - 1)
        day = month.astype("datetime64[D]") + (self._number("day1", "day2", absent=1) - 1)
        bad = (month.astype("datetime64[Y]") != year) | (day.astype("datetime64[M]") != month)
        bad |= self._text("sep") != self._text("sep2")
        week, ordinal = self._number("week", absent=-1), self._number("ordinal", absent=-1)
        if (week >= 0).any():
            fourth = year.astype("datetime64[D]") + 3  # always in the first week; day 0 of the epoch was a Thursday
            monday = fourth - (fourth.astype(np.int64) + 3) % 7 + (week - 1) * 7
            day = np.where(week >= 0, monday + (self._number("weekday", absent=1) - 1), day)
            bad |= (week >= 0) & ((monday + 3).astype("datetime64[Y]") != year)
        if (ordinal >= 0).any():
            day = np.where(ordinal >= 0, year.astype("datetime64[D]") + (ordinal - 1), day)
            bad |= (ordinal >= 0) & (day.astype("datetime64[Y]") != year)
        return day.astype("datetime64[D]").astype(np.int64), bad

    def _clock(self) -> tuple[np.ndarray, np.ndarray]:
        """`[N]` ms since midnight, and which of them no clock shows."""
        hour, minute, second = (self._number(f"{part}1", f"{part}2") for part in ("hour", "minute", "second"))
        digits = pc.utf8_slice_codeunits(pc.utf8_rpad(self._joined("fraction1", "fraction2"), 3, "0"), 0, 3)
        clock = ((hour * 60 + minute) * 60 + second) * 1000 + digits.cast(pa.int64()).to_numpy()
        leap = (second == 60) & (minute == 59)
        bad = (minute > 59) | ((second > 59) & ~leap) | ((hour > 23) & (clock != _DAY_MS))
        return clock, bad

    def _zone(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """`[N]` ms east of Greenwich; which rows have no offset but a name; their codes; and the names, "" for none."""
        sign = self._text("sign")
        hours, minutes, seconds = (self._number(part) for part in ("hours", "minutes", "seconds"))
        offset = ((hours * 60 + minutes) * 60 + seconds) * 1000 * np.where(sign == "+", 1, -1)
        coded = self._parts.field(self._index("name")).dictionary_encode()
        offset = np.where((hours > 23) | (minutes > 59) | (seconds > 59), _NO_OFFSET, offset)
        return offset, sign == "", coded.indices.to_numpy(), coded.dictionary.to_pylist()

    def _index(self, name: str) -> int:
        return int(self._parts.type.get_field_index(name))

    def _text(self, name: str) -> np.ndarray:
        return np.asarray(self._parts.field(self._index(name)).to_numpy(zero_copy_only=False), object)

    def _joined(self, *names: str) -> pa.Array:
        """The text of whichever of these groups matched."""
        return pc.binary_join_element_wise(*(self._parts.field(self._index(name)) for name in names), "")

    def _number(self, *names: str, absent: int = 0) -> np.ndarray:
        text = self._joined(*names)
        return np.asarray(pc.if_else(pc.equal(text, ""), str(absent), text).cast(pa.int64()).to_numpy())


_NO_OFFSET = np.iinfo(np.int64).max


def _zone_of(name: str, default: str) -> str | None:
    """The IANA zone of a zone's name in a text; None for other names. Abbreviations such as EST stand for several zones."""
    if not name:
        return default
    if name.lower() in _UTC:
        return "UTC"
    try:
        return ZoneInfo(name).key if "/" in name else None
    except (OSError, ValueError, KeyError):
        return None
