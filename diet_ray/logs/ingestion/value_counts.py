"""Counting the values of vocabulary fields, on disk: which value how many rows of each block hold.

A value goes by its key, a hash of 64 bits of its text, from here on; the text itself is needed once more, when ids are given out
(`numbering.py`). That two values have the same key is always found out, before an id is given: then all are hashed anew, with another salt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import DietError
from diet_ray.logs.ingestion.categories import objects_of, stable_hash
from diet_ray.schema import Schema
from diet_ray.storage.arrays import values_of

COUNTS = pa.schema(
    [("key", pa.uint64()), ("block", pa.int32()), ("field", pa.int32()), ("value", pa.string()), ("rows", pa.int64())]
)
"""Rows of a block that hold a value of a field (its position in the schema); counts of the same value may come in several parts."""

BUFFER_BYTES = 32 << 20
"""Bytes of counts that a task holds before it writes them to disk."""


class SameKeyError(DietError):
    """Two values have the same key. It never reaches the user: the values get other keys."""


def keys_of(texts: pa.Array, field: str, salt: int) -> np.ndarray:
    """`[N]` uint64: the keys of a field's values, a string array."""
    return stable_hash(objects_of(texts), f"value {salt} {field}")


def keyed(rows: pa.Table, schema: Schema, block: np.ndarray, salt: int) -> tuple[pa.Table, list[pa.Table]]:
    """Give the values of vocabulary fields their keys, and count them.

    Args:
        rows: N rows in canonical form, each column in one chunk.
        schema: the log's.
        block: `[N]` int64, the block of each row, non-decreasing.
        salt: of the keys.

    Returns:
        The rows, with nullable uint64 keys in the columns of vocabulary fields and of sequences of their values; and tables of the schema
        `COUNTS`. In each, a (block, field, value) stands once; a row that holds a value twice counts once, and what only sequences hold
        does not count.
    """
    counts, slot = list[pa.Table](), 0
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    for field, (index, of) in zip(schema.fields, schema.lenders, strict=True):
        names = [f"slot.{slot + k}" for k in range(field.n_slots)]
        slot += field.n_slots
        if of.kind != "vocabulary":
            continue
        parts = [one_chunk(columns[name]) for name in names]
        texts = parts[0].dictionary
        keys = pa.array(keys_of(texts, of.name, salt), pa.uint64())
        columns |= {name: keys.take(part.indices) for name, part in zip(names, parts, strict=True)}
        if field.kind == "vocabulary" and len(texts):
            codes = np.stack([pc.fill_null(part.indices, -1).to_numpy() for part in parts], axis=1)
            counts.append(_counted(codes, texts, keys, block, index))
    return pa.table(columns), counts


def _counted(codes: np.ndarray, texts: pa.Array, keys: pa.Array, block: np.ndarray, field: int) -> pa.Table:
    """Counts of one field, whose values in a row, `codes [N, S]`, are positions in `texts`, -1 where there is none."""
    size, first = len(texts), int(block[0])
    if codes.shape[1] > 1:
        codes = np.sort(codes, axis=1)  # so that a value which a row holds twice follows itself
        codes[:, 1:][codes[:, 1:] == codes[:, :-1]] = -1
    cell = (codes + (block[:, None] - first) * size)[codes >= 0]
    n_cells = (int(block[-1]) - first + 1) * size
    if n_cells <= 8 * len(cell):
        rows = np.bincount(cell, minlength=n_cells)
        found = np.flatnonzero(rows)
        rows = rows[found]
    else:
        found, rows = np.unique(cell, return_counts=True)
    value = pa.array(found % size)
    columns = {
        "key": keys.take(value),
        "block": pa.array(found // size + first, pa.int32()),
        "field": pa.array(np.full(len(found), field), pa.int32()),
        "value": texts.take(value),
        "rows": pa.array(rows, pa.int64()),
    }
    return pa.table(columns, COUNTS)


def merge_counts(counts: list[pa.Table]) -> pa.Table:
    """The sum of several tables of the schema `COUNTS`, each (block, field, value) once, by key and block.

    Raises:
        SameKeyError: two values have the same key.
    """
    table = pa.concat_tables([COUNTS.empty_table(), *counts])
    key, block = values_of(table["key"]), values_of(table["block"])
    order = np.lexsort((block, key))
    key, block = key[order], block[order]
    table = table.take(pa.array(order))
    same = key[1:] == key[:-1]
    if same.any():
        for name in ("field", "value"):
            other = pc.not_equal(table[name].slice(1), table[name].slice(0, len(key) - 1))
            if (same & other.to_numpy()).any():
                raise SameKeyError("two values have the same key")
    first = np.flatnonzero(np.append(True, ~same | (block[1:] != block[:-1]))[: len(key)])
    if len(first) == len(key):
        return table
    rows = np.add.reduceat(values_of(table["rows"]), first)
    return table.take(pa.array(first)).set_column(COUNTS.get_field_index("rows"), "rows", pa.array(rows, pa.int64()))


class CountFile:
    """A file of counts: some are held in memory and merged, and written by key when they are too many. A context manager."""

    def __init__(self, path: Path) -> None:
        """Write to `path`, which is not made before there are counts."""
        self.path = path
        self.n_bytes = 0
        """Bytes of the counts in the file."""
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._writer: pa.RecordBatchFileWriter | None = None

    def __enter__(self) -> CountFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._write(merge_counts(self._held))
        if self._writer is not None:
            self._writer.close()

    def add(self, counts: list[pa.Table]) -> None:
        """Add tables of the schema `COUNTS`. Raises SameKeyError where two values have the same key."""
        self._held += counts
        self._held_bytes += sum(table.nbytes for table in counts)
        if self._held_bytes > BUFFER_BYTES:
            merged = merge_counts(self._held)
            self._held = [merged]
            if merged.nbytes > BUFFER_BYTES // 2:
                self._write(merged)
                self._held = []
            self._held_bytes = sum(table.nbytes for table in self._held)

    def _write(self, counts: pa.Table) -> None:
        if not len(counts):
            return
        if self._writer is None:
            # Not packed, so that a reader finds the keys that it wants without reading the others.
            self._writer = pa.ipc.new_file(str(self.path), COUNTS)
        self._writer.write_batch(one_batch(counts))
        self.n_bytes += counts.nbytes


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch."""
    return pa.RecordBatch.from_arrays([one_chunk(column) for column in table.columns], schema=table.schema)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([pa.array([], column.type), *column.chunks])
