"""Whether all times of a log together can be what the schema says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.time_units import check_unit
from diet_ray.schema import Time
from tests.logs.ingestion.test_times import schema

BEGIN = 1_709_548_205
"""2024-03-04 10:30:05 UTC."""
MONTH = np.arange(BEGIN, BEGIN + 30 * 86_400, 977)
DAYS = np.arange(19_786, 19_816)


def judged(values: np.ndarray, unit: str, per_second: float) -> list[str]:
    """The notes on a log whose column of `unit` holds these values, of which `per_second` are a second."""
    seconds = np.unique(np.floor(values / per_second).astype(np.int64))
    return [note.what for note in check_unit(seconds, Time(column="t", unit=unit), "in.csv")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "unit", "per_second", "right"),
    [
        (MONTH, "ms", 1e3, "set time.unit to s"),
        (MONTH, "us", 1e6, "set time.unit to s"),
        (MONTH, "ns", 1e9, "set time.unit to s"),
        (MONTH * 10**3, "us", 1e6, "set time.unit to ms"),
        (MONTH * 10**3, "ns", 1e9, "set time.unit to ms"),
        (MONTH * 10**6, "ns", 1e9, "set time.unit to us"),
        (DAYS, "s", 1, "multiply by 86400 and set time.unit to s"),
        (DAYS, "ms", 1e3, "multiply by 86400 and set time.unit to s"),
        (MONTH, "timestamp", 1e9, "the column was made from numbers in another unit"),
        (MONTH, "timestamp", 1e3, "the column was made from numbers in another unit"),
        (DAYS, "timestamp", 1, "the column was made from numbers in another unit"),
    ],
)
def test_a_log_that_lands_in_1970_by_a_wrong_unit(values: np.ndarray, unit: str, per_second: float, right: str) -> None:
    with pytest.raises(BadInputError, match=r"in\.csv, column 't': all times lie on 1970-01") as caught:
        judged(values, unit, per_second)
    assert right in str(caught.value)
    assert "they would lie between 1990 and 2100" in str(caught.value)


def test_a_long_log_is_told_for_it_may_be_made_up() -> None:
    decade = np.arange(BEGIN - 9 * 365 * 86_400, BEGIN, 86_477)
    (told,) = judged(decade, "ms", 1e3)
    assert told.startswith(
        "all times lie on 1970-01-17 to 1970-01-20; counted in s they would lie between 1990 and 2100"
    )
    assert told.endswith("is time.unit 'ms' right?")


@pytest.mark.parametrize(
    "seconds",
    [
        np.arange(0, 40),
        np.arange(0, 3000, 7),
        np.arange(7 * 86_400),  # Criteo's days, of which only the order is published
        np.array([0, 1, 2_000_000]),
        np.array([0]),
        MONTH,
        MONTH // 60 * 60,
        DAYS * 86_400,
        DAYS * 86_400 - 5.5 * 3600,
        np.arange(BEGIN, BEGIN + 400, 50),
        np.array([BEGIN, BEGIN + 128, BEGIN + 256]),  # too few to say
    ],
)
def test_sound_times_and_those_of_made_up_logs_pass(seconds: np.ndarray) -> None:
    for unit in ("s", "ms", "us", "ns", "timestamp"):
        assert judged(seconds, unit, 1) == []


def test_steps_that_no_clock_has_are_told() -> None:
    coarse = MONTH.astype(np.float32).astype(np.float64)
    (told,) = judged(coarse, "s", 1)
    assert "all times are multiples of 128 s: were they rounded, as by 32-bit floats?" in told
    (told,) = judged(MONTH // 100 * 100, "s", 1)
    assert "all times are multiples of 100 s" in told


def write(values: Any, folder: Path, name: str) -> Path:
    n = len(values)
    table = pa.table({"t": values, "a": np.arange(n), "b": np.arange(n) % 3, "y": np.arange(n) % 2})
    path = folder / name
    pa_csv.write_csv(table, path) if path.suffix == ".csv" else pq.write_table(table, path)
    return path


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_the_whole_log_is_judged_and_not_a_piece_of_it(tmp_path: Path, name: str) -> None:
    path = write(MONTH, tmp_path, name)
    with pytest.raises(
        BadInputError, match=r"set time\.unit to s; the times of a made-up log may begin at 0"
    ) as caught:
        ingest(schema(unit="ms"), [path], tmp_path / "log", by="day")
    assert (caught.value.file, caught.value.column) == (str(path), "t")
    assert not (tmp_path / "log").exists()
    # The same rows are a part of a log that counts from 0.
    zero = write(np.arange(3), tmp_path, f"zero.{name}")
    ingest(schema(unit="ms"), [path, zero], tmp_path / "made-up", by="day")
    assert open_log(tmp_path / "made-up").notes == []


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_doubles_that_were_floats_once_are_told_in_the_log(tmp_path: Path, name: str) -> None:
    path = write(MONTH.astype(np.float32).astype(np.float64), tmp_path, name)
    ingest(schema(unit="s"), [path], tmp_path / "log", by="day")
    (note,) = open_log(tmp_path / "log").notes
    assert note.column == "t"
    assert "all times are multiples of 128 s" in note.what
