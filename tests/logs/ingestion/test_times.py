"""The time column in all types and units, to the millisecond; times as text have tests of their own."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.errors import BadInputError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.times import read_time
from diet_ray.logs.ingestion.vocabulary import read_vocabulary
from diet_ray.logs.layout import vocabulary_file
from diet_ray.schema import Schema, Time

MOMENT = 1_709_548_205_123
"""2024-03-04 10:30:05.123 UTC."""
HOUR = 3_600_000
UNITS = {"s": 1000, "ms": 1, "us": 1 / 1000, "ns": 1 / 1_000_000}


def times(values: Any, **time: Any) -> list[int]:
    table = pa.table({"t": values})
    stamp = read_time(table, Time(column="t", **time), Origin("f", np.arange(len(table))))
    assert stamp.dtype == np.int64
    return stamp.tolist()


def schema(**time: str) -> Schema:
    fields = [{"name": "a", "kind": "vocabulary"}, {"name": "b", "kind": "vocabulary"}]
    raw = {"name": "s", "time": {"column": "t", **time}, "user": "a", "tasks": ["y"], "fields": fields}
    return Schema.model_validate(raw)


def log_of(folder: Path, values: pa.Array, of: Schema, *, csv: bool = False, **how: Any) -> list[int]:
    """The times of a log made of a file with such a column."""
    n, folder = len(values), folder / f"{len(list(folder.iterdir()))}"
    folder.mkdir()
    table = pa.table({"t": values, "a": np.arange(n), "b": np.arange(n) % 3, "y": np.arange(n) % 2})
    path = folder / ("x.csv" if csv else "x.parquet")
    pa_csv.write_csv(table, path) if csv else pq.write_table(table, path, **how)
    ingest(of, [path], folder / "log", by="day")
    log = open_log(folder / "log")
    return [ms for block in log.blocks for ms in log.read_block(block).time.tolist()]


@given(st.integers(0, 7_258_118_399_999))
@settings(deadline=None)
def test_one_moment_in_all_ways_to_count(moment: int) -> None:
    second, rest = divmod(moment, 1000)
    point = f"{second}.{rest:03}"
    assert (
        times([moment], unit="ms") == times([str(moment)], unit="ms") == times([float(moment)], unit="ms") == [moment]
    )
    assert times([second], unit="s") == times([str(second)], unit="s") == [second * 1000]
    for column in ([point], [float(point)], [f"{point}456"], [Decimal(point)], [f"{float(point):.17E}"], [f"+{point}"]):
        assert times(column, unit="s") == [moment], column
    for unit, text in (
        ("ms", f"{moment}.0"),
        ("us", f"{moment}000.0"),
        ("us", f"{moment}999"),
        ("ns", f"{moment}999999"),
    ):
        assert times([text], unit=unit) == [moment]
        if unit != "us" or "." not in text:
            assert times([Decimal(text)], unit=unit) == [moment]
    # A row is read alike, whatever its neighbours are.
    assert times([f"{moment}999999", "1.5"], unit="ns") == [moment, 0]


@pytest.mark.parametrize("kind", [pa.decimal128(38, 9), pa.decimal256(60, 3), pa.decimal128(13, 3)])
def test_decimals_are_read_by_value(kind: pa.DataType) -> None:
    assert times(pa.array([Decimal("1709548205.123")], kind), unit="s") == [MOMENT]
    assert times(pa.array([Decimal(MOMENT)], pa.decimal128(20, 0)), unit="ms") == [MOMENT]
    with pytest.raises(BadInputError, match="outside 1970-2200 in row 1"):
        times(pa.array([Decimal(1), Decimal(10) ** 37], pa.decimal128(38, 0)), unit="ms")


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.int32(), pa.uint32()])
def test_integers_of_all_widths(kind: pa.DataType) -> None:
    assert times(pa.array([MOMENT // 1000], kind), unit="s") == [MOMENT // 1000 * 1000]
    assert times(pa.array([MOMENT // 1000], kind).dictionary_encode(), unit="s") == [MOMENT // 1000 * 1000]


@pytest.mark.parametrize("unit", UNITS)
def test_timestamps_of_all_units_with_and_without_zone(unit: str) -> None:
    raw, read = pa.array([round(MOMENT / UNITS[unit])]), [MOMENT // max(int(UNITS[unit]), 1) * max(int(UNITS[unit]), 1)]
    for zone in ("UTC", "Europe/Berlin", "+05:30", "America/New_York"):
        assert times(raw.view(pa.timestamp(unit, zone)), timezone="Asia/Tokyo") == read
    assert times(raw.view(pa.timestamp(unit))) == read
    assert times(raw.view(pa.timestamp(unit)), timezone="Asia/Tokyo") == [read[0] - 9 * HOUR]
    summer = pa.array([datetime(2024, 7, 4, 12)], pa.timestamp(unit))
    assert times(summer, timezone="Europe/Berlin") == [int(datetime(2024, 7, 4, 10, tzinfo=UTC).timestamp()) * 1000]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_are_local_midnights(kind: pa.DataType) -> None:
    midnight = int(datetime(2024, 3, 4, tzinfo=UTC).timestamp()) * 1000
    assert times(pa.array([date(2024, 3, 4)], kind)) == [midnight]
    assert times(pa.array([date(2024, 3, 4)], kind), timezone="Asia/Tokyo") == [midnight - 9 * HOUR]


@pytest.mark.parametrize(
    ("values", "unit", "words"),
    [
        (pa.array([1], pa.duration("s")), "s", "type duration"),
        (pa.array([1], pa.duration("ns")), "timestamp", "type duration"),
        (pa.array([1], pa.time64("us")), "timestamp", "type time64"),
        (pa.array([1], pa.time32("s")), "s", "type time32"),
        (pa.array([Decimal(1)]), "timestamp", "set time.unit to s, ms, us or ns"),
        (pa.array([1.0]), "timestamp", "set time.unit to s, ms, us or ns"),
        (pa.array([1], pa.timestamp("ms")), "s", "set time.unit to timestamp"),
        (pa.array([1], pa.date32()), "ms", "set time.unit to timestamp"),
    ],
)
def test_what_is_no_moment_is_refused_by_its_type(values: pa.Array, unit: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        times(values, unit=unit)


def test_floats_that_cannot_hold_a_time_are_refused_with_their_steps() -> None:
    for kind, unit, value, step in (
        (pa.float32(), "s", MOMENT / 1000, "128 s"),
        (pa.float32(), "ms", MOMENT, "131072 ms"),
        (pa.float16(), "s", 60_000, "32 s"),
    ):
        with pytest.raises(BadInputError, match=rf"too coarse for a time: at \d+ {unit} its steps are {step}"):
            times(pa.array(np.array([0, value], kind.to_pandas_dtype())), unit=unit)
    # A counter of seconds that 24 bits hold, and doubles, which hold any time to a microsecond.
    assert times(pa.array([0, 2**22 + 0.5], pa.float32()), unit="s") == [0, 2**22 * 1000 + 500]
    assert times(pa.array([MOMENT * 1e6]), unit="ns") == [MOMENT]


def test_epochs_in_csv_and_parquet_give_the_same_times(tmp_path: Path) -> None:
    moments = MOMENT + np.arange(0, 2_000_000, 1237)
    for unit, column, csv in (
        ("ms", pa.array(moments), False),
        ("ms", pa.array(moments), True),
        ("s", pa.array(moments / 1000), False),
        ("s", pa.array([f"{second}.{rest:03}" for second, rest in (divmod(int(ms), 1000) for ms in moments)]), True),
        ("s", pa.array([f"{ms / 1000:.12E}" for ms in moments]), True),
        ("s", pa.array([Decimal(int(ms)) / 1000 for ms in moments], pa.decimal128(18, 6)), False),
    ):
        assert log_of(tmp_path, column, schema(unit=unit), csv=csv) == moments.tolist()


def test_postgres_and_bigquery_text_in_csv_and_parquet(tmp_path: Path) -> None:
    seconds = MOMENT // 1000 + np.arange(0, 400_000, 4001)
    stamps = [datetime.fromtimestamp(int(second), UTC) for second in seconds]
    cet = [stamp + timedelta(hours=1) for stamp in stamps]
    forms = [
        f"{at:%Y-%m-%d %H:%M:%S}+01" if k % 3 else f"{stamps[k]:%Y-%m-%d %H:%M:%S} UTC" for k, at in enumerate(cet)
    ]
    of = schema(timezone="America/New_York")
    for csv in (False, True):
        assert log_of(tmp_path, pa.array(forms), of, csv=csv) == (seconds * 1000).tolist()


def test_int96_is_an_instant_and_told_where_the_zone_would_matter(tmp_path: Path) -> None:
    moments = MOMENT + np.arange(0, 200_000_000, 3_600_000 // 4)
    naive = pa.array(moments).view(pa.timestamp("ms"))
    spark: dict[str, Any] = {"use_deprecated_int96_timestamps": True, "row_group_size": 70, "store_schema": False}
    berlin = schema(timezone="Europe/Berlin")
    assert log_of(tmp_path, naive, berlin, **spark) == moments.tolist()
    (note,) = open_log(tmp_path / "0" / "log").notes
    assert (note.column, note.rows, note.file) == ("t", len(moments), str(tmp_path / "0" / "x.parquet"))
    assert "read as UTC, not as clock times of Europe/Berlin" in note.what
    # In UTC both readings are one, and nothing is told.
    assert log_of(tmp_path, naive, schema(), **spark) == moments.tolist()
    assert "notes" not in json.loads((tmp_path / "1" / "log" / "log.json").read_text())
    # A timestamp of the newer type without a zone is what its clock shows.
    assert log_of(tmp_path, naive, berlin) == (moments - HOUR).tolist()
    assert open_log(tmp_path / "2" / "log").notes == []
    assert log_of(tmp_path, naive.cast(pa.timestamp("ms", "UTC")), berlin) == moments.tolist()


def test_int96_after_2262_is_no_other_year(tmp_path: Path) -> None:
    """In nanoseconds, 9999-12-31 would wrap round to 1816, and 5000-01-01 to 2077."""
    ends = [datetime(2024, 3, 4), datetime(5000, 1, 1), datetime(9999, 12, 31)]
    table = pa.table({"t": pa.array(ends, pa.timestamp("us")), "a": [1, 2, 3], "b": [1, 2, 3], "y": [0, 1, 0]})
    pq.write_table(table, tmp_path / "x.parquet", use_deprecated_int96_timestamps=True)
    stamped = schema(unit="timestamp")
    with pytest.raises(BadInputError, match=r"column 't': time outside 1970-2200 in row 1 \(from 0\), and 1 more"):
        ingest(stamped, [tmp_path / "x.parquet"], tmp_path / "log", by="day")
    as_category = {
        "time": {"column": "a", "unit": "s"},
        "user": "b",
        "fields": [{"name": "t", "kind": "vocabulary"}, {"name": "b", "kind": "vocabulary"}],
    }
    of_category = Schema.model_validate({**stamped.model_dump(), **as_category})
    with pytest.raises(BadInputError, match=r"column 't': cannot be used: .*out of bounds"):
        ingest(of_category, [tmp_path / "x.parquet"], tmp_path / "log", by="day")
    pq.write_table(table[:1], tmp_path / "y.parquet", use_deprecated_int96_timestamps=True)
    ingest(of_category, [tmp_path / "y.parquet"], tmp_path / "log", by="day")
    values = read_vocabulary(vocabulary_file(tmp_path / "log"))["value"].to_pylist()
    assert "2024-03-04 00:00:00.000000000" in values


def test_int96_is_noted_only_for_rows_that_are_kept(tmp_path: Path) -> None:
    moments = MOMENT + np.arange(0, 4 * 86_400_000, HOUR)
    table = pa.table(
        {"t": pa.array(moments).view(pa.timestamp("ms")), "a": moments % 7, "b": moments % 5, "y": moments % 2}
    )
    pq.write_table(table, tmp_path / "x.parquet", use_deprecated_int96_timestamps=True)
    ingest(schema(timezone="Asia/Tokyo"), [tmp_path], tmp_path / "log", by="day", blocks=2, max_quarantined_rows=1)
    log = open_log(tmp_path / "log")
    assert log.notes[0].rows == sum(block.rows for block in log.blocks) < len(moments)
