"""Fitting the numeric fields of a log on its first block."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from diet_ray.logs.ingestion.batches import read_batches
from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.edges import Edges, enough, fit_edges, least_values, notes_on, too_few
from diet_ray.logs.ingestion.vocabulary import first_slots
from diet_ray.logs.notes import Note
from diet_ray.schema import NumericField, Schema


def fit(schema: Schema, plan: BlockPlan, batches: list[list[tuple[str, int]]]) -> tuple[Edges, list[Note]]:
    """Fit the numeric fields on the first block, one column in memory at a time; and what is to be told about their edges.

    Args:
        schema: the log's.
        plan: its blocks and shards.
        batches: per shard the temporary batches that hold its rows: Arrow file, position in it.

    Raises:
        SchemaError: the first block has no value of a field, or so few that a longer block would have enough.
    """
    edges: dict[str, list[float]] = {}
    notes: list[Note] = []
    for field, slot in zip(schema.declared, first_slots(schema), strict=True):
        if field.kind == "numeric":
            column = f"slot.{slot}"
            first = [_present(batch) for shard in _of_first(plan, batches) for batch in read_batches(shard, column)]
            values = np.concatenate([np.zeros(0), *first])
            edges[field.name] = fit_edges(values, field)
            if not enough(values, field):
                _check_longer(field, len(values), plan, (read_batches(shard, column) for shard in batches))
            notes += notes_on(values, field, edges[field.name])
    return Edges(edges=edges), notes


def _of_first(plan: BlockPlan, batches: list[list[tuple[str, int]]]) -> list[list[tuple[str, int]]]:
    return batches[: int(np.searchsorted(plan.block, 0, side="right"))]


def _check_longer(
    field: NumericField, n_first: int, plan: BlockPlan, batches: Iterable[Iterable[pa.RecordBatch]]
) -> None:
    """Raise SchemaError if the log has enough values for a field's edges, though its first block has only `n_first`."""
    n = 0
    for rows, shard in zip(np.cumsum(plan.rows).tolist(), batches, strict=True):
        n += sum(batch.num_rows - batch.column(0).null_count for batch in shard)
        if n >= least_values(field):
            raise too_few(n_first, field, rows)


def _present(batch: pa.RecordBatch) -> np.ndarray:
    """The non-null values of a batch of one column."""
    return np.asarray(batch.column(0).drop_null().to_numpy(zero_copy_only=False))
