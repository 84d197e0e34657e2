"""What decides ids is covered by checksums: no digit of the bucket edges, value of the vocabulary or key of the schema changes unseen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import CorruptArtefactError, DietError
from diet_ray.logs.blocks import BlockManifest, open_log
from diet_ray.logs.id_chain import schema_checksum, vocabulary_checksums
from diet_ray.logs.ingestion.append import append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.vocabulary import VOCABULARY
from diet_ray.memory.verification import notes, verify
from diet_ray.settings import parse_json, write_json
from tests.logs.ingestion.test_ingest import make_schema, make_table

LATER = 4e9
FIRST = "blocks/2024-02-27/manifest.json"
NEXT = "blocks/2024-02-28/manifest.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of three days, the log of the first two, and their source."""
    folder = tmp_path_factory.mktemp("made")
    pq.write_table(make_table(600, days=3), folder / "all.parquet")
    for name, blocks in (("whole", None), ("log", 2)):
        ingest(make_schema(), [folder / "all.parquet"], folder / name, by="day", blocks=blocks)
    return folder


@pytest.fixture
def log(made: Path, tmp_path: Path) -> Path:
    """A copy of the log of two days, to be damaged."""
    return Path(shutil.copytree(made / "log", tmp_path / "log"))


def grow(made: Path, log: Path) -> None:
    append(make_schema(), [made / "all.parquet"], log, by="day", now=LATER)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def price(change: Callable[[list[float]], Any]) -> Callable[[Path], None]:
    return lambda log: edit(
        log / "edges.json", lambda content: content["edges"].update(price=change(content["edges"]["price"]))
    )


def values(change: Callable[[dict[str, list[Any]]], Any]) -> Callable[[Path], None]:
    def plant(log: Path) -> None:
        columns = pq.read_table(log / "vocabulary.parquet").to_pydict()
        change(columns)
        pq.write_table(pa.table(columns, schema=VOCABULARY), log / "vocabulary.parquet")

    return plant


def swap_fields(content: dict[str, Any]) -> None:
    fields = content["log_schema"]["fields"]
    for key in ("name", "column"):
        fields[0][key], fields[3][key] = fields[3][key], fields[0][key]


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    # What was done to the log, where the fault is found, and what is said of it.
    "a digit of an edge": (
        price(lambda edges: [edges[0] + 0.01, *edges[1:]]),
        "edges.json",
        "has other edges than those by which",
    ),
    "an edge fewer": (price(lambda edges: edges[1:]), "edges.json", "has other edges than those by which"),
    "an edge too many": (
        price(lambda edges: [*edges, 1e9]),
        "edges.json",
        "has 5 edges of field 'price', whose 5 buckets",
    ),
    "edges fall": (price(lambda edges: edges[::-1]), "edges.json", "not finite numbers in ascending order"),
    "an endless edge": (
        lambda log: (log / "edges.json").write_text('{"edges": {"price": [1.0, Infinity]}}'),
        "edges.json",
        "not finite numbers in ascending order",
    ),
    "an edge as text": (price(lambda edges: ["low", *edges[1:]]), "edges.json", "not a valid Edges (edges.price.0"),
    "edges of no field": (
        lambda log: edit(log / "edges.json", lambda content: content["edges"].update(item=[1.0])),
        "edges.json",
        "has edges of 'item', which is no numeric field",
    ),
    "edges that are no JSON": (lambda log: (log / "edges.json").write_text("{"), "edges.json", "not a valid Edges"),
    "a value renamed": (
        values(lambda columns: columns["value"].__setitem__(0, "999")),
        "vocabulary.parquet",
        "has other values than those by which block '2024-02-27' was encoded",
    ),
    "a value of a later block renamed": (
        values(lambda columns: columns["value"].__setitem__(-1, "999")),
        "vocabulary.parquet",
        "has other values than those by which block '2024-02-28' was encoded",
    ),
    "two ids swapped": (
        values(lambda columns: columns["value"].__setitem__(slice(0, 2), columns["value"][1::-1])),
        "vocabulary.parquet",
        "has other values than those by which",
    ),
    "a value of another field": (
        values(lambda columns: columns["field"].__setitem__(0, "tags")),
        "vocabulary.parquet",
        "has other values than those by which",
    ),
    "a value of no field": (
        values(lambda columns: columns["field"].__setitem__(0, "x")),
        "vocabulary.parquet",
        "values of fields that the schema does not have",
    ),
    "a value is missing": (
        values(lambda columns: columns["value"].__setitem__(0, None)),
        "vocabulary.parquet",
        "has missing values",
    ),
    "a value of an earlier block": (
        values(lambda columns: columns["block"].__setitem__(-1, 0)),
        "vocabulary.parquet",
        "not in the order of their blocks",
    ),
    "names of fields swapped": (
        lambda log: edit(log / "log.json", swap_fields),
        FIRST,
        "was encoded by another schema than log.json has",
    ),
    "a block of other edges": (
        lambda log: edit(log / NEXT, lambda content: content["id_checksums"].update(edges_sha256="0")),
        NEXT,
        "was encoded by other bucket edges than the block before it",
    ),
    "a block of another vocabulary": (
        lambda log: edit(log / NEXT, lambda content: content["id_checksums"].update(vocabulary_before_sha256="0")),
        NEXT,
        "was encoded by a vocabulary that does not go on from that of the block before it",
    ),
    "a block without checksums": (
        lambda log: edit(log / NEXT, lambda content: content.pop("id_checksums") and None),
        NEXT,
        "has no checksums of what decides its ids, though the block before it has",
    ),
    "more ids than values": (
        lambda log: edit(log / NEXT, lambda content: content.update(n_ids=2_000_000_000)),
        NEXT,
        "says 2000000000 ids, the schema and the vocabulary have",
    ),
}


def test_a_sound_log_has_no_fault_and_grows_to_the_whole(made: Path, log: Path) -> None:
    assert verify(log) == notes(log) == []
    grow(made, log)
    assert verify(log) == []
    for path in (made / "whole").rglob("*.json"):
        assert path.read_bytes() == (log / path.relative_to(made / "whole")).read_bytes()


def test_the_forger_of_these_tests_leaves_no_trace(log: Path) -> None:
    price(lambda edges: edges)(log)
    values(lambda columns: None)(log)
    edit(log / NEXT, lambda content: None)
    assert verify(log) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named_and_stops_an_append(made: Path, log: Path, damage: str) -> None:
    plant, where, what = DAMAGES[damage]
    plant(log)
    faults = verify(log)
    assert [fault for fault in faults if fault.where == where and what in fault.what], faults
    before = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    with pytest.raises(DietError) as caught:
        grow(made, log)
    assert type(caught.value) is not DietError
    assert {path: path.read_bytes() for path in log.rglob("*") if path.is_file() and path.name != "lock.json"} == before


@pytest.mark.parametrize("damage", [name for name, (_, where, _) in DAMAGES.items() if where in (FIRST, NEXT)])
def test_a_log_of_blocks_that_do_not_belong_together_is_not_opened(log: Path, damage: str) -> None:
    plant, where, what = DAMAGES[damage]
    plant(log)
    with pytest.raises(CorruptArtefactError, match=what) as caught:
        open_log(log)
    assert where in str(caught.value)


def test_a_log_of_an_earlier_release_opens_and_gets_checksums_by_an_append(made: Path, log: Path) -> None:
    for path in log.glob("blocks/*/manifest.json"):
        write_json(path, parse_json(BlockManifest, path).model_copy(update={"id_checksums": None}))
        assert "id_checksums" not in path.read_text()
    assert [block.id_checksums for block in open_log(log).blocks] == [None, None]
    assert verify(log) == []
    assert notes(log)[0].startswith(
        "the log is of an earlier release: its blocks have no checksums of schema, bucket edges"
    )
    grow(made, log)
    *old, new = open_log(log).blocks
    assert [block.id_checksums for block in old] == [None, None]
    assert new.id_checksums == open_log(made / "whole").blocks[-1].id_checksums
    assert notes(log) == verify(log) == []
    values(lambda columns: columns["value"].__setitem__(0, "999"))(log)
    assert [fault.where for fault in verify(log)] == ["vocabulary.parquet"]


def test_values_that_an_interrupted_append_left_change_nothing(made: Path, log: Path) -> None:
    shutil.copy(made / "whole" / "vocabulary.parquet", log / "vocabulary.parquet")
    assert verify(log) == []
    grow(made, log)
    assert verify(log) == []


def table(*rows: tuple[str, str, int, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(VOCABULARY.names, row, strict=True)) for row in rows], VOCABULARY)


def test_a_checksum_covers_the_values_until_its_block_and_no_later_ones() -> None:
    schema = make_schema()
    rows = [("user", "a", 80, 0), ("tags", "ab", 81, 0), ("user", "b", 82, 2)]
    chain = vocabulary_checksums(table(*rows), schema, 3)
    assert len(chain) == len(set(chain)) == 4  # a block without a new value is a link of its own
    assert vocabulary_checksums(table(*rows[:2]), schema, 2) == chain[:3]
    assert vocabulary_checksums(table(*rows, ("user", "c", 83, 3)), schema, 3) == chain
    # In several chunks, as a file of several row groups is read.
    parts = pa.concat_tables([table(row) for row in rows])
    assert vocabulary_checksums(parts, schema, 3) == chain
    # Where a value ends is part of it.
    assert vocabulary_checksums(table(("user", "aa", 80, 0), ("tags", "b", 81, 0)), schema, 1)[1] != chain[1]
    assert vocabulary_checksums(VOCABULARY.empty_table(), schema, 0) == chain[:1]


def test_the_order_of_the_fields_is_part_of_a_schema() -> None:
    fields = make_schema().model_dump()["fields"]
    turned = make_schema(fields=[fields[1], fields[0], *fields[2:]])
    assert schema_checksum(turned) != schema_checksum(make_schema()) == schema_checksum(make_schema())


def test_a_large_vocabulary_costs_little() -> None:
    n = 200_000
    big = pa.table(
        {
            "field": pa.array(["user"] * n),
            "value": pa.array(np.arange(n).astype(str)),
            "id": pa.array(np.arange(n, dtype=np.int32)),
            "block": pa.array(np.arange(n, dtype=np.int32) // 1000),
        }
    )
    assert len(set(vocabulary_checksums(big, make_schema(), 200))) == 201
