"""Logs as other engines wrote them: what becomes of each type is what docs/your-log.md says, from `benchmarks/results/formats.json`.

`data/` holds what the engines wrote. Where a verdict has changed for good, `python -m benchmarks.formats --fixtures-only` stores it anew.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.formats import verdicts
from benchmarks.formats.engines.rows import N
from benchmarks.formats.environments import ENGINES
from benchmarks.formats.page import PAGE, RESULT, page
from benchmarks.formats.result import Matrix
from diet_ray.errors import ResourceError
from diet_ray.settings import parse_json

MOST_BYTES = 300_000
"""Size that the fixtures may have together."""

FILES = [written for engine in verdicts.engines() for written in verdicts.written_by(engine)]


@pytest.mark.parametrize("written", FILES, ids=lambda written: f"{written.engine} {written.kind}")
def test_what_an_engine_wrote_is_read_as_the_page_says(written: verdicts.Written) -> None:
    try:
        found = verdicts.verdicts(written)
    except ResourceError as error:
        pytest.skip(str(error))
    assert found == parse_json(Matrix, RESULT).engines[written.engine].written[written.kind]


def test_there_are_files_of_every_engine() -> None:
    assert {path.name for path in verdicts.engines()} == set(ENGINES) == set(parse_json(Matrix, RESULT).engines)
    assert sum(path.stat().st_size for path in verdicts.DATA.rglob("*") if path.is_file()) < MOST_BYTES


def test_the_page_is_written_from_the_verdicts() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text)


def test_nothing_is_read_otherwise_than_it_was_written() -> None:
    matrix = parse_json(Matrix, RESULT)
    wrong = {
        (name, kind, case)
        for name, engine in matrix.engines.items()
        for kind, cases in engine.written.items()
        for case, verdict in cases.items()
        if verdict.verdict == "WRONG"
    }
    assert wrong == set()
    assert not [read.because for export in matrix.exports.values() for read in export.columns.values() if read.because]


def test_another_value_is_found(tmp_path: Path) -> None:
    """The comparison can fail: here each row has the values of the next one."""
    table = pq.read_table(verdicts.DATA / "pyarrow" / "log.parquet")
    moved = pa.concat_tables([table[1:], table[:1]]).set_column(0, "n", table["n"])
    pq.write_table(moved, tmp_path / "log.parquet")
    written = verdicts.Written("pyarrow", "Parquet", tmp_path / "log.parquet", lacks={}, asks=None, home=None)
    found = verdicts.verdicts(written)
    assert {name for name, verdict in found.items() if verdict.verdict.startswith("read")} == set()


def test_a_row_that_is_there_twice_is_found(tmp_path: Path) -> None:
    table = pq.read_table(verdicts.DATA / "pyarrow" / "log.parquet")
    pq.write_table(pa.concat_tables([table, table[:1]]), tmp_path / "log.parquet")
    written = verdicts.Written("pyarrow", "Parquet", tmp_path / "log.parquet", lacks={}, asks=["cost"], home=None)
    assert verdicts.verdicts(written)["number: cost"].because == f"{N + 1} rows for {N}"
