"""The source files of a log, read piece by piece and batch by batch, so that memory stays bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic import Field

from diet_ray.errors import BadInputError, first_line
from diet_ray.logs.ingestion import avro_files, orc_files
from diet_ray.logs.ingestion.csv_dialect import csv_tables, dialect_of
from diet_ray.logs.ingestion.deletes import deleted_rows
from diet_ray.logs.ingestion.folders import found_files
from diet_ray.logs.ingestion.kinds import Deletes, Found, Kind
from diet_ray.logs.notes import Note
from diet_ray.settings import Settings
from diet_ray.storage.hashes import sha256
from diet_ray.storage.parquet import BombError, batches, footer, holds_two, types_are_lost

_CSV_BYTES = 16 << 20
"""Bytes of CSV that are read at a time; up to four times as many for more than 256 columns, because each time has a cost per column."""

_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Errors that pyarrow raises for a damaged file."""


class Piece(Settings):
    """The part of a file that one task reads: a row group of a Parquet file, or a whole file of another kind."""

    path: str
    """The file."""
    kind: Kind
    """Its kind."""
    row_group: int | None = None
    """Index of the row group; None where the piece is the whole file."""
    first_row: int = 0
    """Position of the piece's first row in the file, from 0; for messages."""
    int96: list[str] = Field(default_factory=list)
    """Columns that the Parquet file holds in its oldest type of timestamp, which is an instant; Arrow reads it without a zone."""
    given: dict[str, str | None] = Field(default_factory=dict)
    """Values of columns that the file lacks and its folders' names give, as text; see `diet_ray.logs.ingestion.folders`."""
    delimiter: str = ","
    """The delimiter of a CSV file."""
    named: dict[str, str] = Field(default_factory=dict)
    """The names of columns in the file, where it has others."""
    deletes: Deletes | None = None
    """Rows of the file that a table no longer has."""


def find_pieces(sources: list[Path], columns: list[str], notes: list[Note] | None = None) -> list[Piece]:
    """All pieces to read, in the order of `found_files`. What is passed over in folders is added to `notes`.

    Raises:
        BadInputError: a source is missing, of an unknown kind, damaged, given twice (under another name, too), or lacks one of
            `columns`.
        ResourceError: an extra that reads it is not installed.
    """
    files = found_files(sources, notes)
    pieces = [piece for file in files for piece in _pieces(file, columns)]
    _refuse_copies(files, columns)
    return pieces


def column_names(file: Found) -> list[str]:
    """The columns of a file, and those that its folders' names give.

    Raises:
        BadInputError: the file is damaged.
    """
    try:
        if file.kind == "parquet":
            with pq.ParquetFile(file.path, metadata=footer(file.path)) as parquet:
                schema = parquet.schema_arrow
            names = schema.names if file.named is None else list(file.named(schema))
        else:
            names, _ = _own_columns(file, None)
    except _UNREADABLE as error:
        raise _damaged(file.path, error) from error
    return [*names, *(name for name in file.given if name not in names)]


def _pieces(file: Found, columns: list[str]) -> list[Piece]:
    path = file.path
    try:
        if file.kind == "parquet":
            return _row_groups(file, columns)
        names, delimiter = _own_columns(file, [name for name in columns if name not in file.given])
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    given = _lacking(file, names, columns)
    return [Piece(path=str(path), kind=file.kind, given=given, delimiter=delimiter)]


def _own_columns(file: Found, wanted: list[str] | None) -> tuple[list[str], str]:
    """The columns of a file that is not Parquet, and the delimiter of a CSV file; see `dialect_of`."""
    if file.kind == "csv":
        return dialect_of(file.path, wanted)
    return (orc_files if file.kind == "orc" else avro_files).names(file.path), ","


def _row_groups(file: Found, columns: list[str]) -> list[Piece]:
    about = footer(file.path)
    if holds_two(file.path, about):
        raise BadInputError(
            file.path, "is two Parquet files joined into one, of which only one can be read", remedy="give both by name"
        )
    with pq.ParquetFile(file.path, metadata=about) as parquet:
        schema = parquet.schema_arrow
    named = {} if file.named is None else file.named(schema)
    given = _lacking(file, schema.names if file.named is None else list(named), columns)
    wanted = set(columns)
    named = {name: own for name, own in named.items() if name in wanted and name != own}
    leaves = [about.schema.column(leaf) for leaf in range(about.num_columns)]
    int96 = [leaf.path for leaf in leaves if leaf.physical_type == "INT96" and leaf.path in wanted]
    if types_are_lost(about):
        _refuse_lost(file.path, schema, columns)
    pieces, first = [], 0
    for group in range(about.num_row_groups):
        pieces.append(
            Piece(
                path=str(file.path),
                kind="parquet",
                row_group=group,
                first_row=first,
                int96=int96,
                given=given,
                named=named,
                deletes=file.deletes,
            )
        )
        first += about.row_group(group).num_rows
    return pieces


def _refuse_lost(path: Path, schema: pa.Schema, columns: list[str]) -> None:
    present = set(schema.names)
    for name in columns:
        if name in present and pa.types.is_fixed_size_binary(schema.field(name).type):
            raise BadInputError(
                path,
                f"has a type that Arrow lacks, stored as {schema.field(name).type}",
                column=name,
                remedy="write it as a 64-bit integer, a decimal or text",
            )


def read_piece(piece: Piece, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a piece as (position of the first row in the file, table of `columns`). CSV values are text, empty ones null.

    Where a table has deleted rows of the file, those are left out, and a table's positions count on from its first row without gaps.

    Raises:
        BadInputError: the file turns out to be damaged.
    """
    path, position = Path(piece.path), piece.first_row
    own = [name for name in columns if name not in piece.given]
    try:
        deleted = None if piece.deletes is None else deleted_rows(piece.deletes)
        for batch in _batches(piece, [piece.named.get(name, name) for name in own]):
            live = batch if deleted is None else _without(batch, deleted - position)
            if live.num_rows:
                yield position, pa.table({name: _column(live, name, piece) for name in columns})
            position += batch.num_rows
    except _UNREADABLE as error:
        raise _damaged(path, error, piece.row_group) from error


def _batches(piece: Piece, columns: list[str]) -> Iterator[pa.RecordBatch]:
    path = Path(piece.path)
    if piece.kind == "csv":
        return _csv_batches(path, columns, piece.delimiter)
    if piece.kind == "orc":
        return orc_files.batches(path, columns)
    if piece.kind == "avro":
        return avro_files.batches(path, columns)
    return batches(path, columns, piece.row_group)


def _without(batch: pa.RecordBatch, deleted: np.ndarray) -> pa.RecordBatch:
    """A batch without the rows at the positions `deleted`, some of which may lie outside it."""
    keep = np.ones(batch.num_rows, bool)
    keep[deleted[(deleted >= 0) & (deleted < len(keep))]] = False
    if not batch.num_columns:  # Arrow would lose the number of rows
        return pa.record_batch({"": pa.nulls(int(keep.sum()))})
    return batch.take(pa.array(np.flatnonzero(keep)))


def _column(batch: pa.RecordBatch, name: str, piece: Piece) -> pa.Array:
    if name in piece.given:
        return pa.repeat(pa.scalar(piece.given[name], pa.string()), batch.num_rows)
    return batch.column(piece.named.get(name, name))


def _lacking(file: Found, names: list[str], columns: list[str]) -> dict[str, str | None]:
    """The values of the wanted `columns` that the file's folders give and that the file, whose columns are `names`, lacks."""
    wanted, present = set(columns), set(names)
    given = {name: value for name, value in file.given.items() if name in wanted and name not in present}
    _require(file.path, [*names, *given], columns)
    return given


def _refuse_copies(files: list[Found], columns: list[str]) -> None:
    """Refuse a file with the same bytes as another one, unless it has no rows. Only files of equal size are read for this check."""
    by_size = sorted(files, key=lambda file: file.path.stat().st_size)
    equal = {
        file.path
        for pair in pairwise(by_size)
        if len({file.path.stat().st_size for file in pair}) == 1
        for file in pair
    }
    first_with: dict[tuple[Any, ...], Path] = {}
    for file in (file for file in files if file.path in equal):
        # Partitions may hold equal files: with other values of the partitions, their rows differ.
        values = (file.given.get(name) for name in columns)
        first = first_with.setdefault((sha256(file.path), *values), file.path)
        if first is not file.path and _has_rows(file, columns):
            raise BadInputError(
                file.path, f"has the same bytes as {first}", remedy="its rows would count twice; give one of the two"
            )


def _has_rows(file: Found, columns: list[str]) -> bool:
    return any(True for piece in _pieces(file, columns) for _ in read_piece(piece, []))


def _require(path: Path, names: list[str], columns: list[str]) -> None:
    times = Counter(names)
    doubled = [name for name in columns if times[name] > 1]
    if doubled:
        raise BadInputError(path, "column is there twice", column=doubled[0], remedy="rename one of the two")
    for column in columns:
        if not times[column]:
            raise BadInputError(
                path,
                "column is missing",
                column=column,
                remedy=f"the file has {', '.join(sorted(names))}; correct the schema or the file",
            )


def _csv_batches(path: Path, columns: list[str], delimiter: str) -> Iterator[pa.RecordBatch]:
    # Read as text: a type guessed from the first megabytes may not fit the rest, and "007" must not become 7.
    convert = pa_csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    n_bytes = int(_CSV_BYTES * min(max(len(columns) / 256, 1), 4))
    for table in csv_tables(path, delimiter, convert, n_bytes):
        for column in columns:
            # An unclosed quote turns several lines into one value, and rows are lost.
            if pc.any(pc.match_substring(table.column(column), "\n")).as_py():
                raise BadInputError(
                    path,
                    "a line break within a value",
                    column=column,
                    remedy="is a quote missing? write the value without line breaks",
                )
        yield from table.to_batches()


def _damaged(path: Path, error: Exception, row_group: int | None = None) -> BadInputError:
    part = "" if row_group is None else f"row group {row_group} "
    return BadInputError(
        path,
        f"{part}cannot be read: {first_line(error)}",
        remedy=_DIVIDE if isinstance(error, BombError) else "truncated or damaged? fetch or export it again",
    )


_DIVIDE = "damaged, or made to exhaust memory? if it is sound, write it again with smaller pages and row groups"
