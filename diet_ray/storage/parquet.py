"""Parquet files, read within bounds: a file's claims are checked before anything is unpacked or allocated.

A few kilobytes can stand for many gigabytes: pages that unpack to huge sizes, long values that a dictionary repeats, lists without an end,
rows that take no bits. A sound file of any size passes, because its rows are read in batches. There are limits only on parts that cannot
be divided.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diet_ray.storage.arrays import runs
from diet_ray.storage.parquet_pages import Chunk, PageError, read_chunk

BATCH_ROWS = 131_072
"""Rows that a reader holds at a time, at most."""
BATCH_BYTES = 256 << 20
"""Approximate bytes that a reader holds at a time; rows may hold long lists. The text of a single row may not take more."""
PAGE_BYTES = 1 << 30
"""Bytes that the largest pages of all columns together may unpack to; or `PAGE_BYTES_PER_COLUMN` per column, where that is more."""
PAGE_BYTES_PER_COLUMN = 4 << 20
LIST_VALUES = 1 << 28
"""Values that a list column may have in one row group: all of them may belong to one row."""
ROWS_PER_BYTE = 8
"""Most rows per byte of a file that diet_ray wrote: every row has its own id, which takes more than a bit."""
MANY_ROWS = 1 << 24
"""Rows that a foreign file of any size may have. A file with more rows may have `MANY_ROWS_PER_BYTE` per byte."""
MANY_ROWS_PER_BYTE = 1000


class BombError(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow is without types
    """A file would unpack to more than is allowed. It is an Arrow error: code that handles those adds the name of the file."""


def batches(path: Path, columns: list[str], row_group: int | None = None) -> Iterator[pa.RecordBatch]:
    """The columns of a Parquet file, or of one of its row groups, in batches that fit in memory. Text is never dictionary-encoded.

    Raises:
        pa.ArrowException, OSError: the file cannot be read; or `BombError`.
    """
    about = footer(path)
    with pq.ParquetFile(path, metadata=about) as file:
        groups = range(about.num_row_groups) if row_group is None else [row_group]
        wanted = frozenset(columns)
        leaves = [leaf for leaf in range(about.num_columns) if _belongs(file.schema.column(leaf).path, wanted)]
        texts = [file.schema.column(leaf).path for leaf in leaves if _is_text(file, leaf)]
        check_rows(path, sum(about.row_group(group).num_rows for group in range(about.num_row_groups)))
    # Text is read as codes and a dictionary. That takes no more memory than its pages, however often a value repeats.
    # INT96 as microseconds: in nanoseconds, years after 2262 would come back as others, without an error.
    with pq.ParquetFile(path, metadata=about, read_dictionary=texts, coerce_int96_timestamp_unit="us") as file:
        for group in groups:
            n = _rows_at_a_time(path, file, group, leaves)
            for batch in file.iter_batches(n, row_groups=[group], columns=columns):
                yield from _plain(batch)


def footer(path: Path) -> pq.FileMetaData:
    """The footer of a Parquet file. One whose stored Arrow schema has types that Arrow lacks is read without it (`types_are_lost`).

    Raises:
        pa.ArrowException, OSError: the file cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata
    except pa.ArrowNotImplementedError:
        with path.open("rb") as source:
            source.seek(-_TAIL_BYTES, os.SEEK_END)
            tail = source.read()
            length = int.from_bytes(tail[:4], "little")
            source.seek(-_TAIL_BYTES - length, os.SEEK_END)
            content = source.read(length)
        alone = (
            tail[4:] + content.replace(_STORED, _LOST) + tail
        )  # a file without pages: its magic bytes, and the footer
        with pq.ParquetFile(BytesIO(alone)) as file:
            return file.metadata


def holds_two(path: Path, about: pq.FileMetaData) -> bool:
    """Whether a file is two Parquet files one after the other, as `cat` joins them: the rows of the first would be lost.

    Between the pages and the footer, which `about` has read, there are only indexes.
    """
    if not about.num_row_groups:
        return False
    group = about.row_group(about.num_row_groups - 1)
    columns = [group.column(leaf) for leaf in range(about.num_columns)]
    end = max((_start(column) + column.total_compressed_size for column in columns), default=0)
    with path.open("rb") as source:
        source.seek(end)
        return _MAGIC + _MAGIC in source.read(max(path.stat().st_size - _TAIL_BYTES - about.serialized_size - end, 0))


def types_are_lost(about: pq.FileMetaData) -> bool:
    """Whether the file has types that Arrow lacks; columns of such types then look like bytes of fixed length."""
    return _LOST in (about.metadata or {})


_STORED, _LOST = b"ARROW:schema", b"arrow:schema"  # of equal length: the footer stays valid
_TAIL_BYTES, _MAGIC = 8, b"PAR1"


def check_whole(content: bytes, file: pq.ParquetFile, row_bytes: int) -> None:
    """Check that a file that diet_ray wrote may be unpacked at once.

    Args:
        content: the file's bytes.
        file: opened from `content`; its columns hold no text.
        row_bytes: bytes of a row in memory.

    Raises:
        BombError: the file claims more rows than its size can hold, or its pages unpack to more than its rows need.
    """
    about, n_bytes = file.metadata, len(content)
    n_rows = about.num_rows
    if sum(about.row_group(group).num_rows for group in range(about.num_row_groups)) != n_rows:
        raise BombError(f"its row groups do not add up to its {n_rows} rows")
    if n_rows > n_bytes * ROWS_PER_BYTE:
        raise BombError(f"claims {n_rows} rows in {n_bytes} bytes")
    for group in range(about.num_row_groups):
        for chunk in _chunks(BytesIO(content), about, group, range(about.num_columns)):
            # A value of one byte in memory may take four in a page.
            if chunk.values > n_rows * row_bytes or _at_once(chunk) > 4 * n_rows * row_bytes + (1 << 20):
                raise BombError(f"its pages unpack to more than {n_rows} rows of {row_bytes} bytes need")


def check_rows(path: Path, n_rows: int) -> None:
    """Raise BombError where a file claims more rows than one of its size may have."""
    n_bytes = path.stat().st_size
    if n_rows > max(MANY_ROWS, n_bytes * MANY_ROWS_PER_BYTE):
        raise BombError(f"claims {n_rows} rows in {n_bytes} bytes")


def _rows_at_a_time(path: Path, file: pq.ParquetFile, group: int, leaves: list[int]) -> int:
    """The number of rows of a row group to read at a time."""
    with path.open("rb") as source:
        chunks = _chunks(source, file.metadata, group, leaves)
    n_rows, at_once = file.metadata.row_group(group).num_rows, sum(map(_at_once, chunks))
    if at_once > max(PAGE_BYTES, PAGE_BYTES_PER_COLUMN * len(leaves)):
        raise BombError(f"its pages unpack to {at_once} bytes at a time")
    row_bytes, text_bytes, text_total = 0.0, 0.0, 0
    for leaf, chunk in zip(leaves, chunks, strict=True):
        about, per_row = file.schema.column(leaf), 1.0
        if about.max_repetition_level:
            if chunk.values > LIST_VALUES:
                raise BombError(
                    f"column {about.path!r} has {chunk.values} values in lists, at most {LIST_VALUES} can be read"
                )
            per_row = chunk.values / max(n_rows, 1)
        width = {"BYTE_ARRAY": 4, "FIXED_LEN_BYTE_ARRAY": about.length, "INT96": 12}.get(about.physical_type, 8)
        row_bytes += per_row * width
        if about.physical_type == "BYTE_ARRAY":
            text_bytes += per_row * (chunk.largest if chunk.prefixed else chunk.densest)
            text_total += chunk.values * chunk.largest if chunk.prefixed else chunk.total
    if text_total > BATCH_BYTES:
        row_bytes += text_bytes
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(row_bytes, 1))))


def _chunks(source: BinaryIO, about: pq.FileMetaData, group: int, leaves: Iterable[int]) -> list[Chunk]:
    columns = [about.row_group(group).column(leaf) for leaf in leaves]
    try:
        return [read_chunk(source, _start(column), column.num_values) for column in columns]
    except PageError as error:
        raise BombError(str(error)) from error


def _start(column: pq.ColumnChunkMetaData) -> int:
    """The position at which Arrow reads the first page."""
    first, dictionary = column.data_page_offset, column.dictionary_page_offset
    return int(dictionary if column.has_dictionary_page and 0 < dictionary < first else first)


def _at_once(chunk: Chunk) -> int:
    return chunk.dictionary + chunk.largest


def _belongs(path: str, columns: frozenset[str]) -> bool:
    """Whether a leaf of the schema is one of the columns, or a part of one."""
    return path in columns or any(path[:at] in columns for at, letter in enumerate(path) if letter == ".")


def _is_text(file: pq.ParquetFile, leaf: int) -> bool:
    return bool(file.schema.column(leaf).physical_type == "BYTE_ARRAY")


# --- text as codes


def _plain(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch with its text decoded, in several parts where the text is large."""
    if not batch.num_columns:  # in Arrow, a slice without columns loses its number of rows
        yield batch
        return
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _text_bytes(column)
    if sizes.max(initial=0) > BATCH_BYTES:
        raise BombError(f"the text of a single row takes {sizes.max()} bytes, at most {BATCH_BYTES} can be read")
    part = np.cumsum(sizes) // BATCH_BYTES
    for begin, end in runs(part):
        rows = batch.slice(begin, end - begin)
        yield pa.RecordBatch.from_arrays([_written_out(column) for column in rows.columns], batch.schema.names)


def _text_bytes(column: pa.Array) -> np.ndarray | int:
    """Bytes of each row's text, `[N]` int64."""
    if _is_coded(column.type):
        return _lengths(column)
    if not _is_list_of_codes(column.type):
        return 0
    column = column.cast(pa.list_(column.type.value_type))
    before = np.concatenate([[0], np.cumsum(_lengths(column.values))])
    return np.asarray(np.diff(before[column.offsets.to_numpy()]))


def _lengths(column: pa.DictionaryArray) -> np.ndarray:
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return np.asarray(lengths.take(column.indices).fill_null(0).to_numpy(zero_copy_only=False), np.int64)


def _written_out(column: pa.Array) -> pa.Array:
    if _is_coded(column.type):
        return column.dictionary_decode()
    return column.cast(pa.list_(column.type.value_type.value_type)) if _is_list_of_codes(column.type) else column


def _is_coded(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and bool(
        pa.types.is_string(kind.value_type)
        or pa.types.is_binary(kind.value_type)
        or pa.types.is_large_string(kind.value_type)
    )


def _is_list_of_codes(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and _is_coded(kind.value_type))
