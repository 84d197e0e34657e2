"""Vocabularies that are counted and numbered on disk: the same log, however little is in memory, and whatever keys the values have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import users_error
from diet_ray.logs.ingestion import number_pass, numbering, value_counts
from diet_ray.logs.ingestion.append import append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.value_counts import COUNTS, CountFile, SameKeyError, merge_counts
from tests.logs.ingestion.test_ingest import make_schema, make_table
from tests.support.small_run import bytes_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pq.write_table(make_table(days=3), tmp_path / "all.parquet", row_group_size=400)
    return tmp_path / "all.parquet"


def counted(*rows: tuple[int, int, int, str, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(COUNTS.names, row, strict=True)) for row in rows], COUNTS)


def test_little_memory_gives_the_same_log(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(make_schema(), [source], tmp_path / "whole", by="day")
    monkeypatch.setattr(value_counts, "BUFFER_BYTES", 2000)
    monkeypatch.setattr(numbering, "RANGE_BYTES", 3000)
    monkeypatch.setattr(numbering, "CHUNK_BYTES", 500)
    monkeypatch.setattr(numbering, "BATCH_ROWS", 7)
    calls: list[str] = []

    def each(function: Any, descriptions: Any, /, **shared: Any) -> Any:
        calls.append(function.__name__)
        return (function(description, **shared) for description in descriptions)

    ingest(make_schema(), [source], tmp_path / "parts", by="day", each=each)
    assert "merge_range" in calls
    ingest(make_schema(), [source], tmp_path / "grown", by="day", blocks=1, each=each)
    append(make_schema(), [source], tmp_path / "grown", by="day", now=4e9, each=each)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "grown")


def test_values_with_the_same_key_get_others(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(make_schema(), [source], tmp_path / "whole", by="day")
    salts: list[int] = []
    real = value_counts.keys_of

    def weak(texts: pa.Array, field: str, salt: int) -> np.ndarray:
        salts.append(salt)
        return real(texts, field, salt) % np.uint64(5 if salt < 2 else 2**63)

    for module in (value_counts, number_pass):
        monkeypatch.setattr(module, "keys_of", weak)
    ingest(make_schema(), [source], tmp_path / "again", by="day")
    assert set(salts) == {0, 1, 2}
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "again")


def test_counts_are_summed_and_a_shared_key_is_found() -> None:
    sums = merge_counts(
        [counted((2**64 - 1, 0, 1, "b", 1), (5, 1, 0, "a", 2)), counted((5, 1, 0, "a", 3), (5, 0, 0, "a", 4))]
    )
    assert sums.equals(counted((5, 0, 0, "a", 4), (5, 1, 0, "a", 5), (2**64 - 1, 0, 1, "b", 1)))
    assert merge_counts([]).equals(COUNTS.empty_table())
    for other in ((5, 3, 0, "b", 1), (5, 3, 1, "a", 1)):
        with pytest.raises(SameKeyError):
            merge_counts([counted((5, 1, 0, "a", 2)), counted(other)])


def test_a_full_disk_is_one_line() -> None:
    full = CountFile(Path("/dev/full"))  # a device on which no write succeeds
    with pytest.raises(OSError, match="No space left") as caught, full:
        full.add([counted((5, 1, 0, "a" * 100_000, 2))])
    assert str(users_error(caught.value)).endswith("no space left on the disk; free some space and continue")
