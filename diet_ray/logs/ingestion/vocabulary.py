"""The vocabulary of a log: the values of its fields, and the id that each value got when it first appeared. Ids grow forward in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import SchemaError
from diet_ray.schema import MAX_IDS, Schema
from diet_ray.storage.parquet import BombError, batches

COUNTS = pa.schema([("block", pa.int32()), ("field", pa.int32()), ("value", pa.string()), ("rows", pa.int64())])
"""Rows of a block that hold a value of a vocabulary field; counts of the same value may come in several parts."""


VOCABULARY = pa.schema([("field", pa.string()), ("value", pa.string()), ("id", pa.int32()), ("block", pa.int32())])
"""Every vocabulary value, in id order: its field's name, its canonical text, its id, the block that added it."""


MOST_PER_BYTE = 1000
"""A vocabulary's file may unpack to this multiple of its size: its values are all different."""


def read_vocabulary(path: Path) -> pa.Table:
    """A log's vocabulary, schema `VOCABULARY`, which the file must have. Raises pa.ArrowException or OSError where it cannot be read."""
    parts, n_bytes, most = [], 0, MOST_PER_BYTE * path.stat().st_size
    for batch in batches(path, VOCABULARY.names):
        parts.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > most:
            raise BombError(f"unpacks to more than {MOST_PER_BYTE} times its size")
    return pa.Table.from_batches(parts, VOCABULARY)


def first_slots(schema: Schema) -> np.ndarray:
    """`[F]` int64: the first id slot of each field."""
    return np.searchsorted(schema.field_of_slot, np.arange(schema.n_fields))


def count_values(table: pa.Table, schema: Schema, block: np.ndarray) -> pa.Table:
    """Count, per block, the rows that hold each vocabulary value.

    Args:
        table: N rows in canonical form (see `diet_ray.logs.ingestion.canonical`).
        block: `[N]` int64, the block of each row.

    Returns:
        A table of the schema `COUNTS`, each (block, field, value) once. A row that holds a value twice counts once.
    """
    parts = []
    for index, (field, slot) in enumerate(zip(schema.declared, first_slots(schema), strict=True)):
        if field.kind != "vocabulary":
            continue
        chunks = [chunk for k in range(field.max_values) for chunk in table[f"slot.{slot + k}"].chunks]
        coded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
        code = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        row = np.tile(np.arange(len(table)), field.max_values)[code >= 0]
        code, size = code[code >= 0], max(len(coded.dictionary), 1)
        if field.max_values > 1:
            row, code = np.divmod(np.unique(row * size + code), size)
        key, rows = np.unique(block[row] * size + code, return_counts=True)
        parts.append(
            pa.table(
                {
                    "block": pa.array(key // size, pa.int32()),
                    "field": pa.array(np.full(len(key), index), pa.int32()),
                    "value": coded.dictionary.take(pa.array(key % size)),
                    "rows": pa.array(rows, pa.int64()),
                }
            )
        )
    return pa.concat_tables(parts) if parts else COUNTS.empty_table()


def merge_counts(counts: list[pa.Table]) -> pa.Table:
    """The sum of several tables of the schema `COUNTS`, each (block, field, value) once."""
    merged = pa.concat_tables(counts).group_by(["block", "field", "value"]).aggregate([("rows", "sum")])
    return merged.rename_columns({"rows_sum": "rows"}).select(COUNTS.names).cast(COUNTS)


def build_vocabulary(counts: pa.Table, schema: Schema) -> pa.Table:
    """Assign ids block by block, as if the blocks had arrived one after another.

    A value enters in the first block that has it in at least its field's `min_count` rows.

    Args:
        counts: a table of the schema `COUNTS`, each (block, field, value) once.

    Returns:
        A table of the schema `VOCABULARY`.

    Raises:
        SchemaError: the id space would exceed 2^31.
    """
    least = pa.array([field.least_rows for field in schema.declared], pa.int64()).take(counts["field"].combine_chunks())
    frequent = counts.filter(pc.greater_equal(counts["rows"], least))
    first = frequent.group_by(["field", "value"]).aggregate([("block", "min")]).rename_columns({"block_min": "block"})
    first = first.sort_by([("block", "ascending"), ("field", "ascending"), ("value", "ascending")])
    start = int(schema.first_static_id[-1])
    if start + len(first) > MAX_IDS:
        raise SchemaError(
            f"log {schema.name!r} needs {start + len(first)} ids, more than 2^31: hash its largest fields, or raise min_count"
        )
    names = pa.array(schema.field_names, pa.string())
    columns = {
        "field": names.take(first["field"].combine_chunks()),
        "value": first["value"],
        "id": pa.array(np.arange(start, start + len(first)), pa.int32()),
        "block": first["block"],
    }
    return pa.table(columns).cast(VOCABULARY)


def ids_after(vocabulary: pa.Table, schema: Schema, n_blocks: int = 1) -> np.ndarray:
    """`[B]` int64, B at least `n_blocks`: the size of the id space after each block; all ids of rows up to there are below it."""
    added = np.bincount(np.asarray(vocabulary["block"].to_numpy(), np.int64), minlength=n_blocks)
    return np.asarray(schema.first_static_id[-1] + np.cumsum(added), np.int64)
