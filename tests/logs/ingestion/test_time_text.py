"""Times as text: the forms that are read, to the millisecond, and what is no time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diet_ray.logs.ingestion.time_text import read_text

BERLIN = ZoneInfo("Europe/Berlin")


def read(*texts: str, zone: str = "UTC") -> list[int | None]:
    stamp, bad = read_text(pa.array(texts, pa.string()), zone)
    assert stamp.dtype == np.int64
    return [None if wrong else int(ms) for ms, wrong in zip(stamp, bad, strict=True)]


def ms(*parts: int, micro: int = 0, **ago: float) -> int:
    """A UTC time in ms; `ago` is its distance east of Greenwich."""
    return int((datetime(*parts, tzinfo=UTC) - timedelta(**ago)).timestamp() * 1000) + micro // 1000  # type: ignore[misc,arg-type]


NOON = (2024, 3, 4, 10, 30, 5)

ZONED = {
    "2024-03-04T10:30:05Z": ms(*NOON),
    "2024-03-04t10:30:05z": ms(*NOON),
    "20240304T103005Z": ms(*NOON),
    "2024-03-04T10Z": ms(2024, 3, 4, 10),
    "2024-03-04T10:30Z": ms(2024, 3, 4, 10, 30),
    "20240304T1030+0100": ms(2024, 3, 4, 9, 30),
    "2024-03-04T10:30:05,123+01": ms(*NOON, hours=1) + 123,
    "2024-W10-1T10:30:05Z": ms(*NOON),
    "2024-064T10:30:05Z": ms(*NOON),
    "2024-03-04T24:00:00Z": ms(2024, 3, 5),
    "2016-12-31T23:59:60Z": ms(2017, 1, 1),
    "2024-03-04T10:30:05\u221205:00": ms(*NOON, hours=-5),
    # Postgres and DuckDB
    "2024-03-04 10:30:05+01": ms(*NOON, hours=1),
    "2024-03-04 10:30:05.123456+00": ms(*NOON) + 123,
    "2024-03-04 10:30:05.1-03:30": ms(*NOON, hours=-3.5) + 100,
    "1971-12-31 23:15:30-00:44:30": ms(1972, 1, 1),
    # BigQuery
    "2024-03-04 10:30:05 UTC": ms(*NOON),
    "2024-03-04 10:30:05.123456 UTC": ms(*NOON) + 123,
    # Snowflake, SQL Server
    "2024-03-04 10:30:05.000 +0100": ms(*NOON, hours=1),
    "2024-03-04 10:30:05.1239999 +05:45": ms(*NOON, hours=5.75) + 123,
    # Trino
    "2024-03-04 10:30:05.000 Europe/Berlin": ms(*NOON, hours=1),
    "2024-07-04 10:30:05 Europe/Berlin": ms(2024, 7, 4, 8, 30, 5),
    # Spark
    "2024-03-04T10:30:05.123+01:00": ms(*NOON, hours=1) + 123,
    # pandas
    "2024-03-04 10:30:05+00:00": ms(*NOON),
    "2024-03-04 10:30:05.123456789+01:00": ms(*NOON, hours=1) + 123,
}

LOCAL = {
    "2024-03-04": ms(2024, 3, 4),
    "20240304": ms(2024, 3, 4),
    "2024/03/04": ms(2024, 3, 4),
    "2024.03.04 10:30": ms(2024, 3, 4, 10, 30),
    "2024-3-4 1:02:03": ms(2024, 3, 4, 1, 2, 3),
    "2024-03": ms(2024, 3, 1),
    "2024": ms(2024, 1, 1),
    "2024-W10": ms(2024, 3, 4),
    "2020W537": ms(2021, 1, 3),
    "2024-366": ms(2024, 12, 31),
    "2024-03-04T10": ms(2024, 3, 4, 10),
    "20240304 103005.5": ms(*NOON) + 500,
    "2024-03-04 10:30:05": ms(*NOON),  # ClickHouse, MySQL, Hive, pandas
    "2024-03-04 10:30:05.123": ms(*NOON) + 123,
    "2024-03-04 10:30:05.123456789": ms(*NOON) + 123,
    "2024-03-04T10:30:05": ms(*NOON),
    " 2024-03-04 10:30:05 ": ms(*NOON),
}

NO_TIMES = [
    "now", "Now", "today", "tomorrow", "yesterday", "NaT", "nan", "None", "", "-", "epoch", "infinity",
    "04/03/2024", "3/4/2024", "24-03-04", "Mar 4 2024", "4 March 2024", "Mon Mar  4 10:30:05 2024", "202403", "2024-03/04",
    "1709548205", "1709548205123", "20240304103005", "2024-03-04T", "2024-03-04T103", "2024-03-04T10.5", "2024-03-04-10:30",
    "10:30:05", "T10:30:05", "2024-03-04  10:30:05", "2024-03-04 10:30:05 AM", "2024-03-04 10:30:05 EST", "2024-03-04 10:30:05 CET",
    "2024-03-04 10:30:05 Mars/Base", "2024-03-04 10:30:05 America", "2024-03-04 10:30:05 America/Argentina",
    "2024-03-04 10:30:05 ../UTC", "2024-03-04 10:30:05+1", "2024-03-04 10:30:05+24:00", "2024-03-04 10:30:05+01:60",
    "2024-03-04Z", "2024-02-30", "2023-02-29", "2024-13-01", "2024-00-10", "2024-01-00", "2023-366", "2024-000", "2024-W00-1",
    "2021-W53-1", "2024-W10-8", "2024-03-04 24:00:01", "2024-03-04 25:00", "2024-03-04 10:60", "2024-03-04 10:30:60",
    "2024-03-04 10:30:61", "+2024-03-04", "-2024-03-04", "2024-03-04 10:30:05 x", "2024-03-04\n10:30:05", "\uff12\uff10\uff12\uff14-03-04",
]  # fmt: skip


@pytest.mark.parametrize("text", ZONED)
def test_a_time_with_an_offset_or_zone(text: str) -> None:
    assert read(text) == read(text, zone="Asia/Tokyo") == [ZONED[text]]


@pytest.mark.parametrize("text", LOCAL)
def test_a_time_without_is_that_of_the_logs_zone(text: str) -> None:
    assert read(text) == [LOCAL[text]]
    assert read(text, zone="Asia/Tokyo") == [LOCAL[text] - 9 * 3_600_000]


def test_all_forms_in_one_column() -> None:
    texts = [*ZONED, *NO_TIMES, *LOCAL]
    assert read(*texts) == [*ZONED.values(), *[None] * len(NO_TIMES), *LOCAL.values()]


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_would_need_a_clock_or_a_guess_is_no_time(text: str) -> None:
    assert read(text) == read(text, zone="Asia/Tokyo") == [None]


def test_many_offsets_and_many_wrong_names_take_no_time() -> None:
    offsets = [f"2024-03-04 00:00:00+{k // 3600:02}:{k // 60 % 60:02}:{k % 60:02}" for k in range(50_000)]
    assert read(*offsets) == [ms(2024, 3, 4) - 1000 * k for k in range(50_000)]
    assert read(*(f"2024-03-04 00:00:00 A{k}/B" for k in range(20_000))) == [None] * 20_000


def test_the_hours_that_clocks_repeat_or_skip_in_forms_of_all_kinds() -> None:
    for twice, skipped in (("2022-10-30 02:30", "2022-03-27 02:30"), ("20221030T0230", "20220327T0230")):
        for zone in ("", " Europe/Berlin"):
            expected = [ms(2022, 10, 30, 0, 30), ms(2022, 3, 27, 1)]
            assert read(twice + zone, skipped + zone, zone="Europe/Berlin") == expected


@st.composite
def written(draw: st.DrawFn) -> tuple[str, int]:
    """A time in Berlin in one of the forms, and its ms."""
    moment = draw(st.datetimes(datetime(1971, 1, 1), datetime(2199, 12, 30)))
    day, dash, colon = moment.date(), *draw(st.sampled_from([("-", ":"), ("", ""), ("-", "")]))
    iso = day.isocalendar()
    text = draw(
        st.sampled_from(
            [
                f"{day:%Y}{dash}{day:%m}{dash}{day:%d}",
                f"{iso.year:04}{dash}W{iso.week:02}{dash}{iso.weekday}",
                f"{day:%Y}{dash}{day:%j}",
            ]
        )
    )
    text += draw(st.sampled_from("T t")) + f"{moment:%H}"
    precision = draw(st.integers(0, 4))
    text += "".join([f"{colon}{moment:%M}", f"{colon}{moment:%S}"][: min(precision, 2)])
    digits = 0
    if precision > 2:
        digits = draw(st.integers(1, 6))
        text += draw(st.sampled_from(".,")) + f"{moment.microsecond:06}"[:digits]
    kept = moment.replace(
        minute=moment.minute if precision > 0 else 0,
        second=moment.second if precision > 1 else 0,
        microsecond=moment.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits),
    )
    kind = draw(st.sampled_from(["none", "Z", "z", " UTC", "name", "hh", "hhmm", "hh:mm"]))
    if kind == "none" or kind == "name":
        aware = kept.replace(tzinfo=BERLIN)
        if aware.astimezone(UTC).astimezone(BERLIN).replace(tzinfo=None) != kept:  # an hour that clocks skip
            aware, kind = kept.replace(tzinfo=UTC), "Z"
        text += {"none": "", "name": " Europe/Berlin", "Z": "Z"}[kind]
    elif kind in ("Z", "z", " UTC"):
        aware, text = kept.replace(tzinfo=UTC), text + kind
    else:
        minutes = draw(st.integers(-23 * 60, 23 * 60)) // (60 if kind == "hh" else 1) * (60 if kind == "hh" else 1)
        east = timedelta(minutes=minutes)
        sign, (hour, minute) = "-+"[minutes >= 0], divmod(abs(minutes), 60)
        aware = kept.replace(tzinfo=timezone(east))
        text += draw(st.sampled_from(["", " "])) + sign
        text += {"hh": f"{hour:02}", "hhmm": f"{hour:02}{minute:02}", "hh:mm": f"{hour:02}:{minute:02}"}[kind]
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return text, since // timedelta(milliseconds=1)


@given(st.lists(written(), min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_any_time_in_any_form(times: list[tuple[str, int]]) -> None:
    texts, expected = zip(*times, strict=True)
    assert read(*texts, zone="Europe/Berlin") == list(expected)


LIKE_TIMES = st.one_of(
    st.text("0123456789-:T. +ZW/", max_size=28),
    st.tuples(*[st.sampled_from(parts) for parts in (
        ["2024-02-29", "20240229", "2024-060", "2024-W09-4", "2024"], ["T", " ", ""], ["10", "10:30", "103005", "24:00", "10:59:60"],
        ["", ".5", ".123456", ",1234567"], ["", "Z", "+01", " -0530", "+23:59", "+24:00"]
    )]).map("".join),
)  # fmt: skip


@given(LIKE_TIMES)
@example("2024-03-04T10-05")
@settings(deadline=None, max_examples=150)
def test_a_text_is_read_alike_alone_and_beside_others_and_as_python_does(text: str) -> None:
    """Alone it may take Arrow's way, beside a week it cannot."""
    (alone,) = read(text, zone="Europe/Berlin")
    assert read(text, "2024-W10-1", zone="Europe/Berlin")[0] == alone
    try:
        python = datetime.fromisoformat(text)
    except ValueError:
        return
    aware = python.replace(tzinfo=BERLIN) if python.tzinfo is None else python
    if alone is not None and aware.astimezone(UTC).astimezone(BERLIN).replace(tzinfo=None) == python.replace(
        tzinfo=None
    ):
        assert alone == (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_every_day_of_some_years_in_all_three_calendars() -> None:
    days = [date(2019, 12, 20) + timedelta(days=k) for k in range(500)]
    expected = [ms(day.year, day.month, day.day) for day in days]
    assert read(*(f"{day:%Y%m%d}" for day in days)) == expected
    assert read(*(f"{day:%G-W%V-%u}" for day in days)) == expected
    assert read(*(f"{day:%Y-%j}" for day in days)) == expected
