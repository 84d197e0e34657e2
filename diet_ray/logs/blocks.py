"""The canonical log on disk: blocks of Parquet shards, each listed with its checksum in a manifest.

    LOG/log.json                      LogManifest, written last: a folder without it is not a log
    LOG/quarantine.parquet            file, row, column, reason of every row that was left out, if any (`ingestion/quarantine.py`)
    LOG/vocabulary.parquet            field, value, id, block of every vocabulary value (`ingestion/vocabulary.py`)
    LOG/blocks/NAME/manifest.json     BlockManifest
    LOG/blocks/NAME/shard-00000.parquet

A shard's columns: `row_id` int64, unique in the log and increasing with time within a block; `time` int64, ms since the epoch; `user`
int64, a hash; `ids` fixed_size_list<int32>[S], ids in one space shared by all fields (`Schema.first_static_id`); `labels`
fixed_size_list<uint8>[T].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field as Key
from pydantic import SerializerFunctionWrapHandler, model_serializer

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.layout import block_folder, block_manifest_file, log_manifest_file
from diet_ray.logs.notes import Note
from diet_ray.schema import Schema
from diet_ray.settings import Settings, parse_json, parse_json_with_checksum
from diet_ray.storage.arrays import Columns, column_of, column_problems, values_of
from diet_ray.storage.entries import OtherFileError, read_content
from diet_ray.storage.hashes import sha256
from diet_ray.storage.parquet import check_whole
from diet_ray.storage.parquet_writing import write_parquet

DTYPES = {"row_id": np.int64, "time": np.int64, "user": np.int64, "ids": np.int32, "labels": np.uint8}
"""The columns of a shard, as they are described above."""

FORMAT: Final = 1
"""Version of the log's layout; a reader refuses any other."""

_AGAIN = "ingest the log again"

Name = Annotated[str, Key(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""Name of a file or folder. It cannot lead out of the log, even in a damaged manifest."""


class LogShard(Settings):
    """One Parquet file of a block: the unit of scheduling, retry and quarantine."""

    path: Name
    """File name inside the block's folder."""
    rows: int = Key(ge=1)
    """Number of rows."""
    bytes: int = Key(ge=1)
    """Size of the file."""
    sha256: str
    """Checksum of the file, hexadecimal."""
    positives: list[int]
    """Rows with label 1, per task."""


class BlockManifest(Settings):
    """One block of the log."""

    name: Name
    """Name of the block, such as `2022-04-25`; names sort in time order."""
    index: int = Key(ge=0)
    """Position in the log, from 0."""
    rows: int = Key(ge=1)
    """Number of rows over all shards."""
    n_ids: int = Key(ge=1)
    """Size of the id space after this block; ids of this block are below it. It never shrinks from block to block."""
    time_min: int
    """Time of the first row, ms since the epoch."""
    time_max: int
    """Time of the last row, ms since the epoch."""
    positives: list[int]
    """Rows with label 1, per task."""
    quarantined: int = Key(default=0, ge=0)
    """Rows left out because they broke a rule, with a time from the block's first row up to the next block's."""
    shards: list[LogShard] = Key(min_length=1)
    """The files, in time order."""


class FieldCount(Settings):
    """How many rows of a log have no value of a field, or none with an id of its own."""

    field: str
    """Name of the field."""
    missing: int = Key(ge=0)
    """Rows without a value."""
    unknown: int = Key(ge=0)
    """Rows with a value that is too rare for an id of its own (`min_count`)."""


def add_counts(counts: Iterable[FieldCount]) -> list[FieldCount]:
    """The sums by field, in the order of first occurrences."""
    sums: dict[str, FieldCount] = {}
    for count in counts:
        before = sums.get(count.field, FieldCount(field=count.field, missing=0, unknown=0))
        sums[count.field] = FieldCount(
            field=count.field, missing=before.missing + count.missing, unknown=before.unknown + count.unknown
        )
    return list(sums.values())


class LogManifest(Settings):
    """The whole log: its schema and the blocks in time order."""

    format: Literal[1] = FORMAT
    """Version of the layout."""
    log_schema: Schema
    """The schema by which the log was ingested."""
    blocks: list[Name] = Key(min_length=1)
    """Names of the blocks, in time order."""
    notes: list[Note] = Key(default_factory=list)
    """What the ingest and later appends read otherwise than it stands in the files, or passed over."""
    counts: list[FieldCount] = Key(default_factory=list)
    """Of all rows, by field; empty where the log was made otherwise than by an ingest, or by an earlier release."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where there is nothing to say: the file of a log without them is what it always was.
        return {name: value for name, value in write(self).items() if name not in ("notes", "counts") or value}


@dataclass(frozen=True)
class Rows:
    """Rows of a log in memory, column-wise; N rows, S slots, T tasks."""

    row_id: np.ndarray
    """`[N]` int64."""
    time: np.ndarray
    """`[N]` int64, ms since the epoch."""
    user: np.ndarray
    """`[N]` int64 hash."""
    ids: np.ndarray
    """`[N, S]` int32."""
    labels: np.ndarray
    """`[N, T]` uint8."""

    def __len__(self) -> int:
        return len(self.row_id)

    def take(self, index: np.ndarray) -> Rows:
        """The rows at the positions `index`, or where the mask `index` is true."""
        return Rows(**{part.name: getattr(self, part.name)[index] for part in fields(self)})

    @staticmethod
    def concat(parts: list[Rows]) -> Rows:
        """All rows of `parts`, in order."""
        return Rows(**{part.name: np.concatenate([getattr(p, part.name) for p in parts]) for part in fields(Rows)})


@dataclass(frozen=True)
class Log:
    """An ingested log, opened for reading."""

    path: Path
    schema: Schema
    blocks: list[BlockManifest]
    notes: list[Note] = field(default_factory=list)
    """What its ingest and later appends read otherwise than it stands in the files, or passed over."""
    counts: list[FieldCount] = field(default_factory=list)
    """Of all rows, by field; empty where they were not counted."""
    checksums: list[str] = field(default_factory=list)
    """SHA-256 of the manifest of each block, of the bytes that were read when the log was opened."""

    def first(self, n: int) -> Log:
        """The log as it was when it had no more than its first n blocks."""
        return replace(self, blocks=self.blocks[:n], checksums=self.checksums[:n])

    def shard_path(self, block: BlockManifest, shard: LogShard) -> Path:
        """The path of a shard's file."""
        return block_folder(self.path, block.name) / shard.path

    def read_block(self, block: BlockManifest) -> Rows:
        """All rows of a block, in time order; for blocks that fit in memory."""
        return Rows.concat(list(self.iter_block(block)))

    def iter_block(self, block: BlockManifest) -> Iterator[Rows]:
        """The rows of a block, shard by shard, in time order."""
        for shard in block.shards:
            yield read_shard(self.shard_path(block, shard), shard, self.schema)


def open_log(path: str | Path) -> Log:
    """Open an ingested log.

    Raises:
        CorruptArtefactError: there is no complete log, one of its manifests is damaged, or its blocks are out of time order.
        VersionError: it was written in another format version.
    """
    path = Path(path)
    if not path.exists():
        raise CorruptArtefactError(f"{path}: there is no log; correct the path, or make the log by diet-ray ingest")
    manifest = parse_json(LogManifest, log_manifest_file(path))
    for name in manifest.blocks:
        if block_folder(path, name).is_symlink():
            raise CorruptArtefactError(f"{block_folder(path, name)}: a link; put the block itself there")
    read = [parse_json_with_checksum(BlockManifest, block_manifest_file(path, name)) for name in manifest.blocks]
    blocks = [block for block, _ in read]
    for name, problem in contradictions(manifest.blocks, blocks):
        raise CorruptArtefactError(f"{block_manifest_file(path, name)}: {problem}; ingest the log again")
    return Log(path, manifest.log_schema, blocks, manifest.notes, manifest.counts, [checksum for _, checksum in read])


def contradictions(names: list[str], blocks: Sequence[BlockManifest | None]) -> Iterator[tuple[str, str]]:
    """Contradictions between a log's manifests, such as blocks out of time order: a model must never see a block before an earlier one.

    Args:
        names: the blocks' names in the log's manifest.
        blocks: their manifests; None for one that cannot be read.

    Yields:
        The name of the block at fault, and its problem.
    """
    before: BlockManifest | None = None
    for index, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if block is None:
            continue
        if block.name != name or block.index != index:
            yield name, f"is block {block.index} {block.name!r}, log.json puts {name!r} at position {index}"
        if block.time_min > block.time_max or sum(shard.rows for shard in block.shards) != block.rows:
            yield name, "its times or its row counts contradict each other"
        if before and block.time_min <= before.time_max:
            yield name, f"begins before block {before.name!r} ends: the blocks are out of time order"
        if before and block.n_ids < before.n_ids:
            yield name, f"has fewer ids than block {before.name!r} before it"
        before = block


def write_shard(path: Path, rows: Rows) -> LogShard:
    """Write rows as one Parquet shard and return its manifest entry. The same rows give the same bytes."""
    table = pa.table({name: column_of(getattr(rows, name).astype(kind, copy=False)) for name, kind in DTYPES.items()})
    write_parquet(table, path)
    return LogShard(
        path=path.name,
        rows=len(rows),
        bytes=path.stat().st_size,
        sha256=sha256(path),
        positives=[int(n) for n in rows.labels.sum(axis=0, dtype=np.int64)],
    )


def read_shard(path: Path, shard: LogShard, schema: Schema) -> Rows:
    """Read a shard once, and check the bytes read against its manifest entry.

    Raises:
        CorruptArtefactError: the file is missing, truncated, changed, or of another shape than the schema says.
    """
    try:
        content = read_content(path, shard.bytes, shard.sha256)
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            # Checked by the footer, before anything is allocated.
            if file.metadata.num_rows != shard.rows:
                raise OtherFileError(f"{file.metadata.num_rows} rows, its manifest says {shard.rows}")
            check_whole(content, file, row_bytes(schema))
            for name, problem in column_problems(file.schema_arrow, shard_columns(schema)):
                raise CorruptArtefactError(f"{path}: column {name!r} {problem}; {_AGAIN}")
            table = file.read()
        table.validate(full=True)
        columns = {name: values_of(table[name]) for name in DTYPES}
    except OtherFileError as error:
        raise CorruptArtefactError(f"{path}: {error}; {_AGAIN}") from error
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise CorruptArtefactError(f"{path}: not a readable shard ({error}); {_AGAIN}") from error
    return Rows(**columns)


def shard_columns(schema: Schema) -> Columns:
    """The columns of a shard of a log of that schema."""
    widths = {"ids": schema.n_slots, "labels": schema.n_tasks}
    return {name: (kind, widths.get(name)) for name, kind in DTYPES.items()}


def row_bytes(schema: Schema) -> int:
    """Bytes of a row in memory."""
    return sum(np.dtype(kind).itemsize * (width or 1) for kind, width in shard_columns(schema).values())


def block_sha256(log: Log, block: BlockManifest) -> str:
    """Checksum of a block's manifest as it was when the log was opened. It covers all rows of the block, because the manifest holds their
    checksums, and every reading of rows is checked against it.
    """
    return log.checksums[block.index]
