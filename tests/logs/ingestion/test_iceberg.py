"""Iceberg tables: the rows of the current snapshot, and none that is deleted."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError, ResourceError
from diet_ray.logs.ingestion.folders import found_files
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from diet_ray.storage import parquet
from tests.logs.ingestion.test_folders import rows
from tests.logs.ingestion.test_ingest import make_schema, make_table
from tests.support.small_run import bytes_of

pytest.importorskip("pyiceberg", reason="needs the extra iceberg")

from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.partitioning import (
    PARTITION_FIELD_ID_START,
    UNPARTITIONED_PARTITION_SPEC,
    PartitionField,
    PartitionSpec,
)
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import update_table_metadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, LongType, NestedField, StringType
from pyroaring import BitMap


class Catalog(NoopCatalog):
    """As much of a catalog as a table needs to write versions of itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__("made-up")
        self.folder, self.version = folder, 0

    def write(self, metadata: TableMetadata) -> str:
        place = self.folder / "metadata" / f"{self.version:05d}-made-up.metadata.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(metadata.model_dump_json(by_alias=True, exclude_none=True))
        return str(place)

    def commit_table(self, table: Table, requirements: Any, updates: Any) -> Any:
        self.version += 1
        metadata = update_table_metadata(table.metadata, updates, metadata_location=table.metadata_location)
        return CommitTableResponse(metadata=metadata, metadata_location=self.write(metadata))


COLUMNS = [("a", LongType()), ("b", StringType()), ("day", StringType())]


def make(folder: Path, columns: list[tuple[str, Any]] = COLUMNS, by: str | None = None, **properties: str) -> Table:
    schema = Schema(*(NestedField(n, name, kind, required=False) for n, (name, kind) in enumerate(columns, start=1)))
    spec = UNPARTITIONED_PARTITION_SPEC
    if by is not None:
        spec = PartitionSpec(
            PartitionField(schema.find_field(by).field_id, PARTITION_FIELD_ID_START, IdentityTransform(), by)
        )
    catalog: Any = Catalog(folder)
    metadata = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, f"file://{folder}", properties)
    return Table(("t",), metadata, catalog.write(metadata), PyArrowFileIO(), catalog)


def data(**columns: list[Any]) -> pa.Table:
    kinds = {"a": pa.int64(), "b": pa.string(), "c": pa.string(), "day": pa.string(), "late": pa.int64()}
    return pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A table that was added to, lost a row, and got and renamed a column; its folder still has the files of before."""
    made = make(tmp_path / "events", by="day")
    made.append(data(a=[1, 2, 3], b=["x", "y", "z"], day=["m", "m", "n"]))
    made.append(data(a=[4], b=["u"], day=[None]))
    made.delete("a = 1")
    with made.update_schema() as update:
        update.rename_column("b", "c").add_column("late", LongType())
    made.append(data(a=[6], c=["w"], day=["n"], late=[9]))
    return made


@pytest.fixture
def folder(table: Table, tmp_path: Path) -> Path:
    """The same table, moved: all of its metadata names another place."""
    return shutil.move(tmp_path / "events", tmp_path / "elsewhere" / "a table")


NOW = [(2, "y", "m", None), (3, "z", "n", None), (4, "u", None, None), (6, "w", "n", 9)]


def test_a_table_is_its_current_snapshot(table: Table, tmp_path: Path) -> None:
    columns = ["a", "c", "day", "late"]
    assert len(list((tmp_path / "events" / "data").rglob("*.parquet"))) == 5
    assert rows([tmp_path / "events"], columns) == NOW
    assert sorted(tuple(row[name] for name in columns) for row in table.scan().to_arrow().to_pylist()) == NOW
    with pytest.raises(BadInputError, match=r"'b': column is missing \(the file has a, c, day"):
        find_pieces([tmp_path / "events"], ["b"])


def test_a_table_may_have_moved(folder: Path) -> None:
    assert rows([folder], ["a", "c", "day", "late"]) == NOW


def test_a_version_by_its_metadata_file(folder: Path) -> None:
    [third] = (folder / "metadata").glob("00002-*.metadata.json")
    assert rows([third], ["a", "b"]) == [(1, "x"), (2, "y"), (3, "z"), (4, "u")]


def test_a_part_of_a_table(folder: Path) -> None:
    assert rows([folder / "data" / "day=m"], ["a", "c"]) == [(2, "y")]
    live = {found.path for found in found_files([folder])}
    for path in (folder / "data").rglob("*.parquet"):
        if path in live:
            assert [found.path for found in found_files([path])] == [path]
            continue
        with pytest.raises(BadInputError, match=r"no file of the latest version .*\(give the table itself"):
            found_files([path])
    with pytest.raises(BadInputError, match="no file of the latest version"):
        found_files(sorted((folder / "data" / "day=m").iterdir()))
    with pytest.raises(BadInputError, match="is an Iceberg table within the folder"):
        found_files([folder.parent])


def test_a_log_is_that_of_plain_files(tmp_path: Path) -> None:
    rows, schema = make_table(700), make_schema()
    plain, kinds = (
        tmp_path / "plain.parquet",
        {pa.int64(): LongType(), pa.string(): StringType(), pa.float64(): DoubleType()},
    )
    pq.write_table(rows, plain)
    table = make(tmp_path / "t", [(field.name, kinds[field.type]) for field in rows.schema])
    table.append(rows)
    ingest(schema, [tmp_path / "t"], tmp_path / "one", by="day")
    ingest(schema, [plain], tmp_path / "other", by="day")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "other")


def test_files_that_were_added_as_they_are(tmp_path: Path) -> None:
    table = make(tmp_path / "t", by="day")
    place = tmp_path / "t" / "hive" / "day=x" / "0.parquet"
    place.parent.mkdir(parents=True)
    pq.write_table(data(a=[1], b=["u"], day=["x"]), place)
    table.add_files([str(place)])  # without field ids: the table maps its names
    with table.update_schema() as update:
        update.rename_column("b", "c")
    pq.write_table(data(a=[1], b=["u"]), place)  # Hive's files lack the column by which they are parted
    assert rows([tmp_path / "t"], ["a", "c", "day"]) == [(1, "u", "x")]


# --- deletes, which pyiceberg itself does not write


class DeletesWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return super()._meta | {"content": "deletes"}


def delete(table: Table, content: DataFileContent, name: str, kind: FileFormat = FileFormat.PARQUET) -> None:
    """Commit a snapshot with the list `name` of deleted rows, as Spark, Trino and Flink do."""
    before, io, place = table.metadata.current_snapshot(), table.io, f"{table.location()}/metadata"
    assert before is not None
    assert before.sequence_number is not None
    about = DataFile.from_args(
        content=content,
        file_path=f"{table.location()}/data/{name}",
        file_format=kind,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=1,
        equality_ids=[1] if content is DataFileContent.EQUALITY_DELETES else None,
    )
    about.spec_id = 0
    number = before.sequence_number + 1
    with DeletesWriter(
        table.spec(), table.schema(), io.new_output(f"{place}/d{number}.avro"), number, "null"
    ) as writer:
        writer.add_entry(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=number, data_file=about))
    manifests = f"{place}/list{number}.avro"
    with write_manifest_list(2, io.new_output(manifests), number, before.snapshot_id, number, "null") as listed:
        listed.add_manifests([writer.to_manifest_file(), *before.manifests(io)])
    raw = table.metadata.model_dump(by_alias=True, mode="json", exclude_none=True)
    after = {"snapshot-id": number, "sequence-number": number, "manifest-list": manifests, "schema-id": 0}
    summary = {"operation": "delete"}
    raw["snapshots"].append(
        after | {"parent-snapshot-id": before.snapshot_id, "timestamp-ms": before.timestamp_ms + 1, "summary": summary}
    )
    raw |= {"current-snapshot-id": number, "last-sequence-number": number, "snapshot-log": []}
    raw["refs"] = {"main": {"snapshot-id": number, "type": "branch"}}
    catalog: Any = table.catalog
    catalog.version += 1
    table.metadata = TableMetadataUtil.parse_obj(raw)
    catalog.write(table.metadata)


@pytest.fixture
def long(tmp_path: Path) -> tuple[Table, str, Path]:
    """A table of one file with 10 rows in 3 row groups, its file's name, and its folder."""
    table = make(tmp_path / "t", [("a", LongType())], **{"write.parquet.row-group-limit": "4"})
    table.append(data(a=list(range(10))))
    [task] = table.scan().plan_files()
    return table, task.file.file_path, tmp_path / "t"


def test_deleted_positions_are_left_out(long: tuple[Table, str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    table, file, folder = long
    positions = pa.table({"file_path": [file, file, "other.parquet", file], "pos": [0, 5, 7, 9]})
    pq.write_table(positions, folder / "data" / "deletes.parquet")
    delete(table, DataFileContent.POSITION_DELETES, "deletes.parquet")
    pq.write_table(pa.table({"file_path": [file], "pos": [6]}), folder / "data" / "more.parquet")
    delete(table, DataFileContent.POSITION_DELETES, "more.parquet")
    assert sorted(table.scan().to_arrow()["a"].to_pylist()) == [1, 2, 3, 4, 7, 8]
    pieces = find_pieces([folder], ["a"])
    assert len(pieces) == 3
    found = [(first, len(part)) for piece in pieces for first, part in read_piece(piece, ["a"])]
    assert found == [(0, 3), (4, 2), (8, 1)]
    assert rows([folder], ["a"]) == [(value,) for value in (1, 2, 3, 4, 7, 8)]
    monkeypatch.setattr(parquet, "BATCH_ROWS", 3)
    assert rows([folder], ["a"]) == [(value,) for value in (1, 2, 3, 4, 7, 8)]


def test_a_deletion_vector_is_left_out(long: tuple[Table, str, Path]) -> None:
    table, file, folder = long
    bitmap = BitMap([1, 8]).serialize()
    payload = b"\xd1\xd3\x39\x64" + (1).to_bytes(8, "little") + bytes(4) + bitmap
    blob = len(payload).to_bytes(4, "big") + payload + zlib.crc32(payload).to_bytes(4, "big")
    about = {"type": "deletion-vector-v1", "fields": [], "snapshot-id": -1, "sequence-number": -1, "offset": 4}
    about |= {"length": len(blob), "properties": {"referenced-data-file": file, "cardinality": "2"}}
    footer = json.dumps({"blobs": [about]}).encode()
    content = b"PFA1" + blob + b"PFA1" + footer + len(footer).to_bytes(4, "little") + bytes(4) + b"PFA1"
    (folder / "data" / "deletes.puffin").write_bytes(content)
    delete(table, DataFileContent.POSITION_DELETES, "deletes.puffin", FileFormat.PUFFIN)
    assert rows([folder], ["a"]) == [(value,) for value in (0, 2, 3, 4, 5, 6, 7, 9)]


def test_rows_deleted_by_value_are_refused(long: tuple[Table, str, Path]) -> None:
    table, _, folder = long
    pq.write_table(pa.table({"a": [3]}), folder / "data" / "deletes.parquet")
    delete(table, DataFileContent.EQUALITY_DELETES, "deletes.parquet")
    with pytest.raises(BadInputError, match=r"cannot be read: .*equality deletes.*rewrite its data files"):
        found_files([folder])


# --- what cannot be read


def test_two_newest_versions_are_refused(folder: Path) -> None:
    newest = max((folder / "metadata").glob("*.metadata.json"))
    other = newest.with_name(newest.name.replace("made-up", "lost"))
    shutil.copy(newest, other)
    with pytest.raises(BadInputError, match="two newest versions"):
        found_files([folder])
    assert rows([newest], ["a", "c", "day", "late"]) == NOW


def test_packed_metadata_and_that_of_hadoop(folder: Path) -> None:
    newest = max((folder / "metadata").glob("*.metadata.json"))
    (folder / "metadata" / "v17.gz.metadata.json").write_bytes(gzip.compress(newest.read_bytes()))
    shutil.copy(min((folder / "metadata").glob("*.metadata.json")), newest)  # which would have no rows
    assert rows([folder], ["a", "c", "day", "late"]) == NOW


def test_files_elsewhere_are_refused(folder: Path) -> None:
    newest = max((folder / "metadata").glob("*.metadata.json"))
    newest.write_text(newest.read_text().replace('/events"', '/others"'))
    with pytest.raises(BadInputError, match=r"with a file elsewhere.*copy the table whole"):
        found_files([folder])


def test_damage_is_named(folder: Path) -> None:
    newest = max((folder / "metadata").glob("*.metadata.json"))
    text = newest.read_text()
    newest.write_text(text[: len(text) // 2])
    with pytest.raises(BadInputError, match="Iceberg table that cannot be read"):
        found_files([folder])
    newest.write_text(text)
    for path in (folder / "metadata").glob("*.avro"):
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(BadInputError, match="Iceberg table that cannot be read"):
        found_files([folder])


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diet_ray.logs.ingestion.iceberg", raising=False)
    monkeypatch.delattr("diet_ray.logs.ingestion.iceberg", raising=False)
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog.noop", None)
    with pytest.raises(ResourceError, match=r"pip install -c constraints.txt -e '\.\[iceberg\]' in your clone"):
        found_files([folder])
