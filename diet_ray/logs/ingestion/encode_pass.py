"""The third pass of an ingest: write the shards. Small ones are written by the same call, so that a call's own cost is shared."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.errors import BadInputError
from diet_ray.logs.blocks import FieldCount, LogShard, add_counts, write_shard
from diet_ray.logs.ingestion.batches import read_batches
from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.encode import Encoder
from diet_ray.logs.ingestion.id_index import IdIndex
from diet_ray.logs.layout import block_folder, shard_name
from diet_ray.mapper import Mapper, Progress, in_turn
from diet_ray.schema import Schema
from diet_ray.settings import Settings

AT_ONCE = 16_384
"""Rows of the shards that a call of the encode pass writes. Larger shards have a call of their own. A log of tiny blocks would otherwise
spend its time on opening files."""


class ShardPlan(Settings):
    """The work of the encode pass for one shard."""

    folder: str
    """Folder of the block."""
    name: str
    """File name of the shard."""
    block: int
    """Index of the block."""
    first_row_id: int
    """Row id of the shard's first row."""
    rows: int
    """Number of its rows."""
    batches: list[tuple[str, int]]
    """The temporary batches that hold its rows, in source order: Arrow file, position in it."""


class ShardPlans(Settings):
    """Successive shards, which one call writes."""

    shards: list[ShardPlan]


class ShardDone(Settings):
    """The report of the encode pass on one shard."""

    shard: LogShard
    """Its manifest entry."""
    time_min: int
    """Time of its first row, ms."""
    time_max: int
    """Time of its last row, ms."""


class ShardsDone(Settings):
    """The report on the shards of one call."""

    shards: list[ShardDone]
    counts: list[FieldCount]
    """Of their rows, by field."""


def encode(
    schema: Schema,
    plan: BlockPlan,
    batches: list[list[tuple[str, int]]],
    edges: Edges,
    folder: Path,
    report: Progress,
    *,
    each: Mapper = in_turn,
) -> tuple[list[ShardDone], list[FieldCount]]:
    """Write all shards; returns their manifest entries, in order, and the counts of all rows, by field.

    Args:
        schema: the log's.
        plan: its blocks and shards.
        batches: per shard the temporary batches that hold its rows.
        edges: the bucket edges.
        folder: of the log; the index of its ids is in `work` (`numbering.number`).
        report: called after each call.
        each: calls the pass for some shards.
    """
    todo: list[list[ShardPlan]] = []
    opens, rows_before = np.searchsorted(plan.block, plan.block), 0
    firsts, sizes = plan.first_row.tolist(), plan.rows.tolist()
    for shard, (block, position, rows) in enumerate(zip(plan.block.tolist(), firsts, sizes, strict=True)):
        place = block_folder(folder, plan.names[block])
        place.mkdir(parents=True, exist_ok=True)
        step = ShardPlan(
            folder=str(place),
            name=shard_name(shard - int(opens[shard])),
            block=block,
            first_row_id=(block << 32) + position,
            rows=rows,
            batches=batches[shard],
        )
        if not todo or rows_before + rows > AT_ONCE:
            todo.append([])
            rows_before = 0
        todo[-1].append(step)
        rows_before += rows
    done: list[ShardDone] = []
    counts: list[FieldCount] = []
    written = 0
    descriptions = [ShardPlans(shards=steps).model_dump_json() for steps in todo]
    for result in each(encode_shards, descriptions, schema=schema, edges=edges, work=str(folder / "work")):
        more = ShardsDone.model_validate_json(result)
        done += more.shards
        counts = add_counts([*counts, *more.counts])
        written += sum(shard.shard.rows for shard in more.shards)
        report("encode", len(done), len(sizes), written)
    return done, counts


def encode_shards(description: str, schema: Schema, edges: Edges, work: str) -> bytes:
    """A call of the mapper: gather, sort, encode and write the shards of `ShardPlans`; the index of ids is in `work`."""
    steps = ShardPlans.model_validate_json(description).shards
    sizes = [step.rows for step in steps]
    batches = [list(read_batches(step.batches)) for step in steps]
    for step, parts in zip(steps, batches, strict=True):
        _check_rows(step, sum(part.num_rows for part in parts))
    table = pa.Table.from_batches(chain.from_iterable(batches)).combine_chunks()
    row_ids = [np.arange(step.first_row_id, step.first_row_id + step.rows) for step in steps]
    encoder = _encoder(work, schema.model_dump_json(), edges.model_dump_json())
    # Shards follow one another in time, and so all of their rows are sorted at once.
    rows, counts = encoder.encode(table, np.repeat([step.block for step in steps], sizes), np.concatenate(row_ids))
    done: list[ShardDone] = []
    for step, (begin, end) in zip(steps, pairwise(np.cumsum([0, *sizes]).tolist()), strict=True):
        of_shard = rows.take(np.arange(begin, end)) if len(steps) > 1 else rows
        shard = write_shard(Path(step.folder) / step.name, of_shard)
        done.append(ShardDone(shard=shard, time_min=int(of_shard.time[0]), time_max=int(of_shard.time[-1])))
    return ShardsDone(shards=done, counts=counts).model_dump_json().encode()


def _check_rows(step: ShardPlan, n_rows: int) -> None:
    """Raise BadInputError where the sources had other rows when the shards were planned: row ids would be given twice."""
    if n_rows != step.rows:
        raise BadInputError(
            "the sources",
            f"changed while they were read: {step.rows} rows for {Path(step.folder).name}/{step.name}, then {n_rows}",
            remedy="let nobody write to them and ingest again",
        )


@lru_cache(maxsize=1)
def _encoder(work: str, schema: str, edges: str) -> Encoder:
    """A worker's encoder, cached for all shards of a log."""
    return Encoder(Schema.model_validate_json(schema), IdIndex.open(Path(work)), Edges.model_validate_json(edges))
