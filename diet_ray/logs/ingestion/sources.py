"""The source files of a log: Parquet and CSV, read piece by piece and batch by batch, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic import Field

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.folders import Found, found_files
from diet_ray.settings import Settings
from diet_ray.storage.hashes import sha256
from diet_ray.storage.parquet import BombError, batches

MOST_CSV_COLUMNS = 16_384
"""Most columns that a CSV file may have, whether they are read or not."""

_CSV_BYTES = 16 << 20
_CSV_HEADER_BYTES = 1 << 20

_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Errors that pyarrow raises for a damaged file."""


class Piece(Settings):
    """The part of a file that one task reads: a row group of a Parquet file, or a whole CSV file."""

    path: str
    """The file."""
    row_group: int | None = None
    """Index of the row group; None for CSV."""
    first_row: int = 0
    """Position of the piece's first row in the file, from 0; for messages."""
    int96: list[str] = Field(default_factory=list)
    """Columns that the Parquet file holds in its oldest type of timestamp, which is an instant; Arrow reads it without a zone."""
    given: dict[str, str | None] = Field(default_factory=dict)
    """Values of columns that the file lacks and its folders' names give, as text; see `diet_ray.logs.ingestion.folders`."""


def find_pieces(sources: list[Path], columns: list[str]) -> list[Piece]:
    """All pieces to read, in the order of `found_files`.

    Raises:
        BadInputError: a source is missing, of an unknown kind, damaged, given twice (under another name, too), or lacks one of
            `columns`.
        ResourceError: it is a Delta table, and the extra that reads them is not installed.
    """
    pieces: list[Piece] = []
    files = found_files(sources)
    for file in files:
        path = file.path
        if path.suffix != ".parquet":
            pieces.append(Piece(path=str(path), given=_lacking(file, _csv_header(path), columns)))
            continue
        try:
            with pq.ParquetFile(path) as parquet:
                names, groups = parquet.schema_arrow.names, parquet.metadata
                leaves = [parquet.schema.column(leaf) for leaf in range(groups.num_columns)]
        except _UNREADABLE as error:
            raise _damaged(path, error) from error
        given, first = _lacking(file, names, columns), 0
        int96 = [leaf.path for leaf in leaves if leaf.physical_type == "INT96" and leaf.path in columns]
        for group in range(groups.num_row_groups):
            pieces.append(Piece(path=str(path), row_group=group, first_row=first, int96=int96, given=given))
            first += groups.row_group(group).num_rows
    _refuse_copies(files, columns)
    return pieces


def read_piece(piece: Piece, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a piece as (position of the first row in the file, table of `columns`). CSV values are text, empty ones null.

    Raises:
        BadInputError: the file turns out to be damaged.
    """
    path, position = Path(piece.path), piece.first_row
    own = [name for name in columns if name not in piece.given]
    try:
        parts = _csv_batches(path, own) if piece.row_group is None else batches(path, own, piece.row_group)
        for batch in parts:
            if batch.num_rows:
                yield position, pa.table({name: _column(batch, name, piece.given) for name in columns})
            position += batch.num_rows
    except _UNREADABLE as error:
        raise _damaged(path, error, piece.row_group) from error


def _column(batch: pa.RecordBatch, name: str, given: dict[str, str | None]) -> pa.Array:
    if name in given:
        return pa.repeat(pa.scalar(given[name], pa.string()), batch.num_rows)
    return batch.column(name)


def _lacking(file: Found, names: list[str], columns: list[str]) -> dict[str, str | None]:
    """The values of the wanted `columns` that the file's folders give and that the file, whose columns are `names`, lacks."""
    given = {name: value for name, value in file.given.items() if name in columns and name not in names}
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
        if first is not file.path and _has_rows(file.path):
            raise BadInputError(
                file.path, f"has the same bytes as {first}", remedy="its rows would count twice; give one of the two"
            )


def _has_rows(path: Path) -> bool:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            return bool(file.metadata.num_rows)
    return any(True for _ in read_piece(Piece(path=str(path)), []))


def _require(path: Path, names: list[str], columns: list[str]) -> None:
    doubled = [name for name in columns if names.count(name) > 1]
    if doubled:
        raise BadInputError(path, "column is there twice", column=doubled[0], remedy="rename one of the two")
    for column in columns:
        if column not in names:
            raise BadInputError(
                path,
                "column is missing",
                column=column,
                remedy=f"the file has {', '.join(sorted(names))}; correct the schema or the file",
            )


def _csv_header(path: Path) -> list[str]:
    try:
        with pa.input_stream(str(path)) as stream:
            n_columns = stream.read(_CSV_HEADER_BYTES).partition(b"\n")[0].count(b",") + 1
        if n_columns > MOST_CSV_COLUMNS:  # Arrow takes minutes and gigabytes for a million of them
            raise BadInputError(
                path,
                f"its header has more than {MOST_CSV_COLUMNS} columns",
                remedy="leave out those that are not needed",
            )
        with pa_csv.open_csv(path) as reader:
            return list(reader.schema.names)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _csv_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    columns = columns or _csv_header(path)[:1]  # for Arrow, an empty list means all
    # Read as text: a type guessed from the first megabytes may not fit the rest, and "007" must not become 7.
    convert = pa_csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    with pa_csv.open_csv(path, pa_csv.ReadOptions(block_size=_CSV_BYTES), convert_options=convert) as reader:
        for batch in reader:
            for column in columns:
                # An unclosed quote turns several lines into one value, and rows are lost.
                if pc.any(pc.match_substring(batch.column(column), "\n")).as_py():
                    raise BadInputError(
                        path,
                        "a line break within a value",
                        column=column,
                        remedy="is a quote missing? write the value without line breaks",
                    )
            yield batch


def _damaged(path: Path, error: Exception, row_group: int | None = None) -> BadInputError:
    reason = str(error).strip().splitlines()
    part = "" if row_group is None else f"row group {row_group} "
    return BadInputError(
        path,
        f"{part}cannot be read: {reason[0] if reason else type(error).__name__}",
        remedy=_DIVIDE if isinstance(error, BombError) else "truncated or damaged? fetch or export it again",
    )


_DIVIDE = "damaged, or made to exhaust memory? if it is sound, write it again with smaller pages and row groups"
