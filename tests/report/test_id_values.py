"""What ids mean: values of a vocabulary, ranges of numbers, buckets of a hash."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.layout import vocabulary_file
from diet_ray.report.id_values import UNKNOWN, values_of
from diet_ray.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "name": "shop",
        "time": {"column": "time", "unit": "s"},
        "user": "user",
        "tasks": ["click"],
        "fields": [
            {"name": "item", "kind": "vocabulary"},
            {"name": "price", "kind": "numeric", "buckets": 2},
            {"name": "city", "kind": "hashed", "buckets": 3},
        ],
    }
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, n = tmp_path_factory.mktemp("shop"), 40
    rows = {
        "time": list(range(n)),
        "user": [f"u{row % 5}" for row in range(n)],
        "click": [row % 2 for row in range(n)],
        "item": ["pear" if row % 2 else "apple" for row in range(n)],
        "price": [float(row % 2) for row in range(n)],
        "city": ["Ulm"] * n,
    }
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    ingest(SCHEMA, [folder / "rows.parquet"], folder / "log", by="day")
    return folder / "log"


def test_each_id_has_the_value_from_which_it_came(shop: Path) -> None:
    log = open_log(shop)
    rows = log.read_block(log.blocks[0])
    values = values_of(log, rows.ids.ravel().tolist())
    first = [values[int(number)] for number in rows.ids[1]]
    second = [values[int(number)] for number in rows.ids[0]]
    assert (first[0], second[0]) == ("pear", "apple")
    assert second[1].startswith("below ")
    assert first[1].endswith(" or more")
    assert first[2] == second[2]
    assert first[2] in ("bucket 0", "bucket 1", "bucket 2")
    assert values_of(log, [0, 1]) == {1: UNKNOWN}


def test_a_vocabulary_that_cannot_be_read_is_named(shop: Path) -> None:
    log = open_log(shop)
    file = vocabulary_file(shop)
    whole = file.read_bytes()
    file.write_bytes(b"PAR1")
    try:
        with pytest.raises(CorruptArtefactError, match=r"vocabulary.parquet: cannot be read"):
            values_of(log, [int(log.schema.first_static_id[-1])])
    finally:
        file.write_bytes(whole)
