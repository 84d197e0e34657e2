"""ORC and Avro give the log that Parquet gives; a type that Arrow lacks harms nobody who does not ask for it."""

from __future__ import annotations

import base64
import datetime
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from diet_ray.errors import BadInputError, ResourceError
from diet_ray.logs.ingestion import avro_files, orc_files
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from tests.logs.ingestion.test_ingest import make_schema, make_table
from tests.support.small_run import bytes_of

fastavro = pytest.importorskip("fastavro", reason="needs the extra avro")
UTC = datetime.UTC


def write_avro(path: Path, fields: list[tuple[str, Any]], rows: list[dict[str, Any]], codec: str = "null") -> Path:
    schema = {"type": "record", "name": "row", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows, codec=codec)
    return path


def read(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    return [
        row for piece in find_pieces([path], columns) for _, t in read_piece(piece, columns) for row in t.to_pylist()
    ]


@pytest.mark.parametrize("codec", ["deflate", "snappy", "zstandard"])
def test_a_log_from_avro_is_the_log_from_parquet(codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro_files, "_BATCH_ROWS", 64)
    table, schema = make_table(700), make_schema()
    kinds = {pa.int64(): "long", pa.float64(): "double", pa.string(): "string"}
    fields = [(field.name, ["null", kinds[field.type]]) for field in table.schema]
    write_avro(tmp_path / "x.avro", fields, table.to_pylist(), codec)
    pq.write_table(table, tmp_path / "x.parquet")
    for kind in ("avro", "parquet"):
        ingest(schema, [tmp_path / f"x.{kind}"], tmp_path / kind, by="day")
    assert bytes_of(tmp_path / "avro") == bytes_of(tmp_path / "parquet")


def test_a_log_from_orc_is_the_log_from_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orc_files, "_BATCH_ROWS", 64)
    table, schema = make_table(2000), make_schema()
    time = table["ts"].cast(pa.timestamp("ms"))
    table = table.set_column(table.schema.get_field_index("ts"), "ts", time)
    schema = make_schema(time={"column": "ts", "timezone": "Asia/Shanghai"})
    for compression in ("uncompressed", "zstd"):
        orc.write_table(table, tmp_path / "x.orc", compression=compression)
        ingest(schema, [tmp_path / "x.orc"], tmp_path / compression, by="day")
    pq.write_table(table, tmp_path / "x.parquet")
    ingest(schema, [tmp_path / "x.parquet"], tmp_path / "parquet", by="day")
    assert bytes_of(tmp_path / "zstd") == bytes_of(tmp_path / "uncompressed") == bytes_of(tmp_path / "parquet")


def test_batches_count_on_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (orc_files, avro_files):
        monkeypatch.setattr(module, "_BATCH_ROWS", 4)
    orc.write_table(pa.table({"a": range(10)}), tmp_path / "day=1.orc")
    write_avro(tmp_path / "x.avro", [("a", "long")], [{"a": value} for value in range(10)])
    for path in (tmp_path / "day=1.orc", tmp_path / "x.avro"):
        for columns in (["a"], []):  # the second one to count rows alone
            [piece] = find_pieces([path], columns)
            assert [(first, len(table)) for first, table in read_piece(piece, ["a"])] == [(0, 4), (4, 4), (8, 2)]
        with pytest.raises(BadInputError, match=r"'z': column is missing \(the file has a;"):
            find_pieces([path], ["z"])


def test_avros_types_are_arrows(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 3, 4, 1, 2, 3, 456789, tzinfo=UTC)
    logical = {
        "us": ("long", "timestamp-micros", moment),
        "ms": ("long", "timestamp-millis", moment.replace(microsecond=456000)),
        "wall": ("long", "local-timestamp-micros", moment.replace(tzinfo=None)),
        "day": ("int", "date", datetime.date(2024, 3, 4)),
        "uuid": ("string", "uuid", UUID(int=7)),
    }
    fields: list[tuple[str, Any]] = [(name, {"type": a, "logicalType": b}) for name, (a, b, _) in logical.items()]
    fields += [("price", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2})]
    fields += [("e", {"type": "enum", "name": "E", "symbols": ["x", "y"]}), ("e2", ["null", "E"])]
    fields += [
        ("tags", ["null", {"type": "array", "items": ["null", "string"]}]),
        ("map", {"type": "map", "values": "int"}),
    ]
    row = {name: value for name, (_, _, value) in logical.items()}
    row |= {"price": Decimal("1.10"), "e": "y", "e2": "x", "tags": ["a", None], "map": {"k": 1}}
    path = write_avro(tmp_path / "x.avro", fields, [row, row | {"e2": None, "tags": None}])
    wanted = [name for name, _ in fields if name != "map"]
    first, second = read(path, wanted)
    assert first == {name: row[name] for name in wanted} | {"uuid": str(UUID(int=7))}
    assert (second["e2"], second["tags"]) == (None, None)
    assert [row["e2"] for row in read(path, ["e2"])] == [
        "x",
        None,
    ]  # its type is written out with a column not asked for
    [piece] = find_pieces([path], ["map"])
    with pytest.raises(BadInputError, match="'map': has the Avro type"):
        list(read_piece(piece, ["map"]))


@pytest.mark.parametrize("kind", ["orc", "avro"])
def test_damaged_files_are_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "orc":
        orc.write_table(pa.table({"a": range(1000)}), path)
    else:
        write_avro(path, [("a", "long")], [{"a": value} for value in range(1000)], "deflate")
    data = path.read_bytes()
    for cut in (0, 3, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(BadInputError, match=rf"x\.{kind}: cannot be read: .*damaged"):
            read(path, ["a"])


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_avro(tmp_path / "x.avro", [("a", "long")], [{"a": 1}])
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(ResourceError, match=r"pip install -c constraints.txt -e '\.\[avro\]' in your clone"):
        find_pieces([path], ["a"])


def test_only_a_wanted_column_fails_by_its_type(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", None], "wide": pa.array([b"\0" * 16] * 3, pa.binary(16))})
    # What polars writes for an Int128: bytes, and the Arrow schema of an integer that Arrow cannot have.
    claimed = bytes(pa.schema([("a", pa.int64()), ("b", pa.string()), ("wide", pa.uint32())]).serialize())
    assert claimed.count(b"\x20\0\0\0") == 1  # the width of the third type in bits
    stored = base64.b64encode(claimed.replace(b"\x20\0\0\0", b"\x80\0\0\0"))
    path = tmp_path / "x.parquet"
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table, row_group_size=2)
        writer.add_key_value_metadata({"ARROW:schema": stored.decode()})
    with pytest.raises(pa.ArrowNotImplementedError):
        pq.ParquetFile(path)
    assert read(path, ["a", "b"]) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": None}]
    with pytest.raises(BadInputError, match=r"'wide': has a type that Arrow lacks, .*write it as a 64-bit integer"):
        find_pieces([path], ["a", "wide"])
