"""From canonical columns to ids: vocabularies that grow forward in time, bucket edges fitted on the first block, `Rows`. Pure.

Ids live in one space. Id 0 is padding, ids 1..F are the fields' `unknown`, then come the fixed ranges of hashed and numeric fields,
then vocabulary values in the order in which blocks bring them (within a block by field, then by value). A longer log therefore keeps
every id of a shorter one, and no id depends on a later block. A sequence has the ids of the field that it is made of, brings none, and
its empty places are padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.blocks import Rows
from diet_ray.errors import SchemaError
from diet_ray.schema import MAX_IDS, Field, Schema
from diet_ray.settings import Settings
from diet_ray.storage.parquet import BombError, batches

COUNTS = pa.schema([("block", pa.int32()), ("field", pa.int32()), ("value", pa.string()), ("rows", pa.int64())])
"""Rows of a block that hold a value of a vocabulary field; counts of the same value may come in several parts."""

VOCABULARY = pa.schema([("field", pa.string()), ("value", pa.string()), ("id", pa.int32()), ("block", pa.int32())])
"""Every vocabulary value, in id order: its field's name, its canonical text, its id, the block that brought it."""


MOST_PER_BYTE = 1000
"""What a vocabulary's file may unpack to, as a multiple of its size: its values are all different."""


def read_vocabulary(path: Path) -> pa.Table:
    """A log's vocabulary, schema `VOCABULARY`, which the file must have. Raises pa.ArrowException or OSError where it cannot be read."""
    parts, n_bytes, most = [], 0, MOST_PER_BYTE * path.stat().st_size
    for batch in batches(path, VOCABULARY.names):
        parts.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > most:
            raise BombError(f"unpacks to more than {MOST_PER_BYTE} times its size")
    return pa.Table.from_batches(parts, VOCABULARY)


class Edges(Settings):
    """Bucket edges of the numeric fields, fitted on the first block; `edges.json` of a log."""

    edges: dict[str, list[float]]
    """Inner edges per field, ascending, at most `buckets - 1`; a value on an edge belongs to the bucket above it."""


def first_slots(schema: Schema) -> np.ndarray:
    """`[F]` int64: the first id slot of each field."""
    return np.searchsorted(schema.field_of_slot, np.arange(schema.n_fields))


def count_values(table: pa.Table, schema: Schema, block: np.ndarray) -> pa.Table:
    """Count, per block, the rows that hold each vocabulary value.

    Args:
        table: N rows in canonical form (see `diet_ray.columns`).
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
    """Hand out ids block by block, as if the blocks had come one after another.

    A value enters in the first block that has it in at least its field's `min_count` rows.

    Args:
        counts: a table of the schema `COUNTS`, each (block, field, value) once.

    Returns:
        A table of the schema `VOCABULARY`.

    Raises:
        SchemaError: the id space would pass 2^31.
    """
    least = pa.array([field.min_count for field in schema.declared], pa.int64()).take(counts["field"].combine_chunks())
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


def count_ids(vocabulary: pa.Table, schema: Schema, block: int) -> int:
    """Size of the id space after `block`: all ids of rows up to there are below it."""
    return int(schema.first_static_id[-1]) + int(pc.sum(pc.less_equal(vocabulary["block"], block)).as_py() or 0)


def fit_edges(values: np.ndarray, field: Field) -> list[float]:
    """Bucket edges of a numeric field from its non-null values in the first block, `[N]` float64.

    Equal quantiles fall together, so that a field with few values uses fewer buckets. `log` counts negative values as 0.

    Raises:
        SchemaError: the first block holds no value of the field.
    """
    if not len(values):
        raise SchemaError(
            f"numeric field {field.name!r} has no value in the first block, on which its buckets are fitted: "
            "make the first block longer, or the field hashed"
        )
    steps = np.linspace(0.0, 1.0, field.buckets + 1)[1:-1]
    logarithmic = field.transform == "log"
    edges = np.expm1(steps * np.log1p(max(float(values.max()), 0.0))) if logarithmic else np.quantile(values, steps)
    return [float(edge) for edge in np.unique(edges)]


@dataclass(frozen=True)
class Encoder:
    """Turns canonical rows of one block into ids; knows only what that block and earlier ones brought."""

    schema: Schema
    values: dict[str, pa.Array]
    """Per vocabulary field the values known."""
    ids: dict[str, np.ndarray]
    """Per vocabulary field `[V]` int32, the ids of `values`."""
    edges: Edges

    @staticmethod
    def at(block: int, schema: Schema, vocabulary: pa.Table, edges: Edges) -> Encoder:
        """The encoder of one block of a log whose whole `vocabulary` (schema `VOCABULARY`) is given."""
        known = vocabulary.filter(pc.less_equal(vocabulary["block"], block))
        names = [field.name for field in schema.fields if field.kind == "vocabulary"]
        parts = {name: known.filter(pc.equal(known["field"], name)) for name in names}
        values = {name: part["value"].combine_chunks() for name, part in parts.items()}
        return Encoder(schema, values, {name: part["id"].to_numpy() for name, part in parts.items()}, edges)

    def encode(self, table: pa.Table, first_row_id: int) -> Rows:
        """Rows of a canonical table of N rows, in time order; rows of equal time keep their order.

        Row ids count up from `first_row_id`.
        """
        time = table["time"].to_numpy()
        order = np.argsort(time, kind="stable")
        ids = np.zeros((len(table), self.schema.n_slots), np.int32)
        owner, slot = self.schema.field_of_slot, 0
        for field in self.schema.fields:
            slots = slice(slot, slot + field.n_slots)
            columns = [table[f"slot.{index}"] for index in range(slots.start, slots.stop)]
            ids[:, slots] = self._field(columns, field, owner[slots] + 1)
            slot = slots.stop
        labels = [table[f"label.{task}"].to_numpy() for task in range(self.schema.n_tasks)]
        return Rows(
            row_id=first_row_id + np.arange(len(table), dtype=np.int64),
            time=time[order],
            user=table["user"].to_numpy()[order],
            ids=ids[order],
            labels=np.stack(labels, axis=1)[order],
        )

    def _field(self, columns: list[pa.ChunkedArray], field: Field, unknown: np.ndarray) -> np.ndarray:
        """`[N, n_slots]` ids of a field's canonical columns; `unknown [n_slots]` are the ids of values that are not known."""
        first_id, of = self.schema.lender(field)
        # All slots at once: a vocabulary is indexed anew by every call.
        column = pa.chunked_array([chunk for one in columns for chunk in one.chunks], columns[0].type)
        if of.kind == "hashed":
            found = pc.fill_null(column, 0).to_numpy()
        elif of.kind == "numeric":
            edges = np.asarray(self.edges.edges[of.name])
            found = self.schema.first_static_id[first_id] + np.searchsorted(edges, column.to_numpy(), side="right")
        else:
            known = np.concatenate(
                [self.ids[of.name], [-1]]
            )  # the last one is for values that are not in the vocabulary
            at = pc.index_in(column, self.values[of.name])
            found = known[pc.fill_null(at, len(known) - 1).to_numpy()]
        missing = np.zeros_like(unknown)
        if field.kind != "sequence":
            missing[0] = unknown[0]
        found, present = (a.reshape(len(columns), -1).T for a in (found, column.is_valid().to_numpy()))
        return np.where(present, np.where(found < 0, unknown, found), missing)
