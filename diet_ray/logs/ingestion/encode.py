"""From canonical columns to ids: vocabularies that grow forward in time, buckets of numbers, `Rows`.

Ids live in one space. Id 0 is padding, ids 1..F are the fields' `unknown`, then come the fixed ranges of hashed and numeric fields,
then vocabulary values in the order in which blocks add them (within a block by field, then by value). A longer log therefore keeps
every id of a shorter one, and no id depends on a later block. A sequence uses the ids of the field that it is made of and adds none; its
empty places are padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.blocks import FieldCount, Rows
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.schema import Field, Schema


@dataclass(frozen=True)
class Encoder:
    """Turns canonical rows of one block into ids. It holds only vocabulary values of that block and of earlier ones."""

    schema: Schema
    values: dict[str, pa.Array]
    """Per vocabulary field its values."""
    ids: dict[str, np.ndarray]
    """Per vocabulary field `[V]` int32, the ids of `values`."""
    edges: Edges

    @staticmethod
    def at(block: int, schema: Schema, vocabulary: pa.Table, edges: Edges) -> Encoder:
        """The encoder of one block of a log whose whole `vocabulary` (schema `VOCABULARY`) is given."""
        until_now = vocabulary.filter(pc.less_equal(vocabulary["block"], block))
        names = [field.name for field in schema.fields if field.kind == "vocabulary"]
        parts = {name: until_now.filter(pc.equal(until_now["field"], name)) for name in names}
        values = {name: part["value"].combine_chunks() for name, part in parts.items()}
        return Encoder(schema, values, {name: part["id"].to_numpy() for name, part in parts.items()}, edges)

    def encode(self, table: pa.Table, first_row_id: int) -> tuple[Rows, list[FieldCount]]:
        """Rows of a canonical table of N rows, in time order, and how many of them have no value or no id of their own, by field.

        Rows of equal time keep their order. Row ids count up from `first_row_id`.
        """
        time = table["time"].to_numpy()
        order = np.argsort(time, kind="stable")
        ids, counts = np.zeros((len(table), self.schema.n_slots), np.int32), list[FieldCount]()
        owner, slot = self.schema.field_of_slot, 0
        for field in self.schema.fields:
            slots = slice(slot, slot + field.n_slots)
            columns = [table[f"slot.{index}"] for index in range(slots.start, slots.stop)]
            ids[:, slots], present, known = self._field(columns, field, owner[slots] + 1)
            unknown = int((present & ~known).any(axis=1).sum())
            counts.append(FieldCount(field=field.name, missing=int((~present.any(axis=1)).sum()), unknown=unknown))
            slot = slots.stop
        labels = [table[f"label.{task}"].to_numpy() for task in range(self.schema.n_tasks)]
        rows = Rows(
            row_id=first_row_id + np.arange(len(table), dtype=np.int64),
            time=time[order],
            user=table["user"].to_numpy()[order],
            ids=ids[order],
            labels=np.stack(labels, axis=1)[order],
        )
        return rows, counts

    def _field(
        self, columns: list[pa.ChunkedArray], field: Field, unknown: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Three arrays `[N, n_slots]` of a field's canonical columns: ids, whether there is a value, and whether it has an id of its own;
        `unknown [n_slots]` are the ids of values that the vocabulary lacks."""
        first_id, of = self.schema.lender(field)
        # All slots in one call: each call indexes the vocabulary anew.
        values = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
        if of.kind == "hashed":
            ids = pc.fill_null(values, 0).to_numpy()
        elif of.kind == "numeric":
            edges = np.asarray(self.edges.edges[of.name])
            ids = self.schema.first_static_id[first_id] + np.searchsorted(edges, values.to_numpy(), side="right")
        else:
            vocabulary_ids = np.concatenate([self.ids[of.name], [-1]])  # -1 for values that the vocabulary lacks
            at = pc.index_in(values, self.values[of.name])
            ids = vocabulary_ids[pc.fill_null(at, len(vocabulary_ids) - 1).to_numpy()]
        missing = np.zeros_like(unknown)
        if field.kind != "sequence":
            missing[0] = unknown[0]
        ids, present = (a.reshape(len(columns), -1).T for a in (ids, values.is_valid().to_numpy()))
        known = ids >= 0
        return np.where(present, np.where(known, ids, unknown), missing), present, known
