"""Fitting the numeric fields of a log on its first block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from diet_ray.logs.ingestion.batches import read_batches
from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.edges import Edges, enough, fit_edges, least_values, notes_on, too_few
from diet_ray.logs.ingestion.vocabulary import first_slots
from diet_ray.logs.notes import Note
from diet_ray.schema import NumericField, Schema

AT_ONCE = 64 << 20
"""Bytes of the first block's columns that are in memory at a time; at least one column is. Each further time, all files are opened again,
which takes as long as they have columns."""

Batches = list[list[tuple[str, int]]]
"""Per shard the temporary batches that hold its rows: Arrow file, position in it."""


def fit(schema: Schema, plan: BlockPlan, batches: Batches) -> tuple[Edges, list[Note]]:
    """Fit the numeric fields on the first block, some columns in memory at a time; and what is to be told about their edges.

    Args:
        schema: the log's.
        plan: its blocks and shards.
        batches: the canonical rows.

    Raises:
        SchemaError: the first block has no value of a field, or so few that a longer block would have enough.
    """
    edges: dict[str, list[float]] = {}
    notes: list[Note] = []
    few: dict[str, tuple[NumericField, int]] = {}
    of_first = int(np.searchsorted(plan.block, 0, side="right"))
    at_once = max(1, AT_ONCE // (8 * int(plan.rows[:of_first].sum())))
    numeric = list(_numeric(schema))
    for part in (numeric[begin : begin + at_once] for begin in range(0, len(numeric), at_once)):
        values: dict[str, list[np.ndarray]] = {column: [np.zeros(0)] for column, _ in part}
        for shard in batches[:of_first]:
            for batch in read_batches(shard, list(values)):
                for column, present in values.items():
                    present.append(_present(batch.column(column)))
        for column, field in part:
            whole = np.concatenate(values.pop(column))
            edges[field.name] = fit_edges(whole, field)
            if not enough(whole, field):
                few[column] = field, len(whole)
            notes += notes_on(whole, field, edges[field.name])
    if few:
        _check_longer(few, plan, batches)
    return Edges(edges=edges), notes


def _numeric(schema: Schema) -> Iterator[tuple[str, NumericField]]:
    """The canonical column of each numeric field, and the field."""
    for field, slot in zip(schema.declared, first_slots(schema), strict=True):
        if isinstance(field, NumericField):
            yield f"slot.{slot}", field


def _check_longer(few: dict[str, tuple[NumericField, int]], plan: BlockPlan, batches: Batches) -> None:
    """Raise SchemaError for the first column of `few` of whose field the log has enough values for the edges, though its first block has
    only the given number."""
    seen, enough_at = dict.fromkeys(few, 0), dict[str, int]()
    for rows, shard in zip(np.cumsum(plan.rows).tolist(), batches, strict=True):
        for batch in read_batches(shard, list(few)):
            for column in few:
                seen[column] += batch.num_rows - batch.column(column).null_count
        for column, (field, _) in few.items():
            if seen[column] >= least_values(field):
                enough_at.setdefault(column, rows)
        if len(enough_at) == len(few):
            break
    for column, (field, n_first) in few.items():
        if column in enough_at:
            raise too_few(n_first, field, enough_at[column])


def _present(column: pa.Array) -> np.ndarray:
    """The non-null values of a column of numbers."""
    return np.asarray(column.drop_null().to_numpy(zero_copy_only=False))
