"""The contents of a log: values, missing ones, rare ones, and what looks wrong."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.logs.ingestion.append import append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.report.log_report import _values_by_field, lines_to_print, report_log
from diet_ray.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "name": "s",
        "time": {"column": "t", "unit": "s"},
        "user": "u",
        "tasks": ["y"],
        "fields": [
            {"name": "item", "kind": "vocabulary", "min_count": 2},
            {"name": "city", "kind": "hashed", "buckets": 8},
        ],
    }
)
DAY, ROWS = 86_400, 1500


def write(folder: Path, day: int, *, share: float = 0.2, rows: int = ROWS) -> Path:
    """A day: each tenth row has an item of its own, and each fourth no city."""
    k = np.arange(rows)
    items = [f"only-{day}-{n}" if n % 10 == 0 else f"i{n % 7}" for n in k]
    table = {"t": day * DAY + k, "u": k % 50, "y": (k < share * rows).astype(int), "item": items}
    table["city"] = [None if n % 4 == 0 else "x" for n in k]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), folder / f"{day:02d}.parquet")
    return folder


def test_a_sound_log_has_counts_and_no_doubt(tmp_path: Path) -> None:
    for day in range(20_000, 20_004):
        write(tmp_path / "raw", day)
    ingest(SCHEMA, [tmp_path / "raw"], tmp_path / "log", by="day")
    report = report_log(tmp_path / "log")
    item, city = report.fields
    assert (item.values, item.missing, item.unknown) == (7, 0, 0.1)
    assert (city.values, city.missing, city.unknown) == (8, 0.25, 0)
    assert [block.rows for block in report.blocks] == [ROWS] * 4
    assert report.suspicious == []
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "log")])
    assert shown.exit_code == 0
    assert "20.0%" in shown.stdout
    assert "25.0%" in shown.stdout


def test_a_large_vocabulary_is_counted_in_little_memory(tmp_path: Path) -> None:
    file, n = tmp_path / "vocabulary.parquet", 200_000
    pq.write_table(pa.table({"field": ["user"] * n + ["item"], "value": [str(k) for k in range(n + 1)]}), file)
    tracemalloc.start()
    try:
        counts = _values_by_field(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts == {"user": n, "item": 1}
    assert peak < 1e6  # a Python string per value would take 10 MB


def test_what_looks_wrong_is_said(tmp_path: Path) -> None:
    for day, how in (
        (20_000, {}),
        (20_001, {}),
        (20_002, {"share": 0.9}),
        (20_005, {"rows": 200}),
        (20_006, {"share": 0.0}),
    ):
        write(tmp_path / "raw", day, **how)
    ingest(SCHEMA, [tmp_path / "raw"], tmp_path / "log", by="day")
    said = "\n".join(report_log(tmp_path / "log").suspicious)
    assert "before block 2024-10-09: is a file missing?" in said
    assert "block 2024-10-09 has 200 rows, the median is 1,500: is a file missing?" in said
    assert "90.0% of the labels y of block 2024-10-06 are 1, the median is 20.0%" in said
    assert "all labels y of block 2024-10-10 are 0" in said
    assert sum("look at:" in str(line) for line in lines_to_print(report_log(tmp_path / "log"))) == 4


@pytest.mark.parametrize("counted", [True, False])
def test_an_append_adds_to_the_counts(counted: bool, tmp_path: Path) -> None:
    for day in (20_000, 20_001):
        write(tmp_path / "raw", day)
    ingest(SCHEMA, [tmp_path / "raw"], tmp_path / "log", by="day")
    file = tmp_path / "log" / "log.json"
    if not counted:  # a log of an earlier release: a sum over the new blocks alone would be taken for one over all
        text = file.read_text()
        at = text.index(',\n  "counts"')
        file.write_text(text[:at] + "\n}\n")
    append(SCHEMA, [write(tmp_path / "raw", 20_002)], tmp_path / "log", by="day", now=20_010 * DAY)
    item, city = report_log(tmp_path / "log").fields
    assert (item.unknown, city.missing) == ((0.1, 0.25) if counted else (None, None))
