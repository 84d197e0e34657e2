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
from diet_ray.logs.ingestion.id_index import IdIndex
from diet_ray.schema import Field, Schema


@dataclass(frozen=True)
class Encoder:
    """Turns canonical rows into ids."""

    schema: Schema
    index: IdIndex
    """The ids of the values of vocabulary fields."""
    edges: Edges

    def encode(self, table: pa.Table, block: np.ndarray, row_id: np.ndarray) -> tuple[Rows, list[FieldCount]]:
        """Rows of a canonical table, in time order, and how many of them have no value or no id of their own, by field.

        Rows of equal time keep their order.

        Args:
            table: N rows, with keys for the values of vocabulary fields (`value_counts.keyed`).
            block: `[N]` int64, the block of each. Values that only later blocks add are unknown in it.
            row_id: `[N]` int64, the ids of the rows in time order.
        """
        time = table["time"].to_numpy()
        order = np.argsort(time, kind="stable")
        n_ids = self.index.n_ids[block]
        ids, counts = np.zeros((len(table), self.schema.n_slots), np.int32), list[FieldCount]()
        owner, first_id, slot = self.schema.field_of_slot, self.schema.first_static_id, 0
        for field, (index, of) in zip(self.schema.fields, self.schema.lenders, strict=True):
            slots = slice(slot, slot + field.n_slots)
            columns = [table[f"slot.{number}"] for number in range(slots.start, slots.stop)]
            ids[:, slots], present, known = self._field(
                columns, field, of, int(first_id[index]), owner[slots] + 1, n_ids
            )
            unknown = int((present & ~known).any(axis=1).sum())
            counts.append(FieldCount(field=field.name, missing=int((~present.any(axis=1)).sum()), unknown=unknown))
            slot = slots.stop
        labels = [table[f"label.{task}"].to_numpy() for task in range(self.schema.n_tasks)]
        rows = Rows(
            row_id=row_id,
            time=time[order],
            user=table["user"].to_numpy()[order],
            ids=ids[order],
            labels=np.stack(labels, axis=1)[order],
        )
        return rows, counts

    def _field(
        self,
        columns: list[pa.ChunkedArray],
        field: Field,
        of: Field,
        first_id: int,
        unknown: np.ndarray,
        n_ids: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Three arrays `[N, S]` of a field's canonical columns, whose ids are those of the field `of`, from `first_id` on: ids, whether
        there is a value, and whether it has an id of its own.

        `unknown [n_slots]` are the ids of values that the vocabulary lacks, or has only from an id of `n_ids [N]` on.
        """
        values = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
        if of.kind == "hashed":
            ids = pc.fill_null(values, 0).to_numpy()
        elif of.kind == "numeric":
            ids = first_id + np.searchsorted(self.edges.edges[of.name], values.to_numpy(), side="right")
        else:
            ids = self.index.of(pc.fill_null(values, 0).to_numpy())
            ids = np.where(ids < np.tile(n_ids, len(columns)), ids, -1)
        missing = np.zeros_like(unknown)
        if field.kind != "sequence":
            missing[0] = unknown[0]
        ids, present = (a.reshape(len(columns), -1).T for a in (ids, values.is_valid().to_numpy()))
        has_id = ids >= 0
        return np.where(present, np.where(has_id, ids, unknown), missing), present, has_id
