"""The three passes of an ingest. Each calls the mapper once per piece or shard; none of them is a global shuffle.

    survey      per piece: check the times, count rows per second         -> where blocks and shards begin
    partition   per piece: check all columns, split the rows by shard     -> temporary files, vocabulary counts
    encode      per shard: gather its rows, sort by time, encode, write   -> Parquet shards

With an allowance for rows that break a rule (`quarantine.py`) the survey checks all columns: those rows must be known before the
blocks are cut.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.logs.blocks import LogShard, write_shard
from diet_ray.logs.ingestion.batches import read_batches
from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.canonical import canonical, pick
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.encode import Encoder
from diet_ray.logs.ingestion.quarantine import REFUSED, check_allowance, sift
from diet_ray.logs.ingestion.sources import Piece, read_piece
from diet_ray.logs.ingestion.times import read_time
from diet_ray.logs.ingestion.vocabulary import COUNTS, count_values, merge_counts
from diet_ray.logs.layout import block_folder, edges_file, shard_name, vocabulary_file
from diet_ray.logs.notes import Note, Notes, merge
from diet_ray.mapper import Mapper, Progress, in_turn
from diet_ray.schema import Schema
from diet_ray.settings import Settings, parse_json
from diet_ray.storage.arrays import from_ipc, runs, to_ipc


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
    batches: list[tuple[str, int]]
    """The temporary batches that hold its rows, in source order: Arrow file, position in it."""


class ShardDone(Settings):
    """The report of the encode pass on one shard."""

    shard: LogShard
    """Its manifest entry."""
    time_min: int
    """Time of its first row, ms."""
    time_max: int
    """Time of its last row, ms."""


def survey(
    pieces: list[Piece], schema: Schema, report: Progress, allowed: int = 0, *, each: Mapper = in_turn
) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Count the rows of each second.

    Returns:
        The seconds of the rows that break no rule, `[M]` int64 ascending; the number of rows in each; and the rows that break a rule
        (schema `REFUSED`), at most `allowed`.
    """
    seconds, rows, refused = np.zeros(0, np.int64), np.zeros(0, np.int64), REFUSED.empty_table()
    results = each(survey_piece, [piece.model_dump_json() for piece in pieces], schema=schema, allowed=allowed)
    for done, result in enumerate(results, start=1):
        table, bad = (from_ipc(part) for part in from_ipc(result)["part"].to_pylist())
        refused = pa.concat_tables([refused, bad])
        check_allowance(refused, allowed)
        seconds, rows = _add(seconds, rows, table["second"].to_numpy(), table["rows"].to_numpy())
        report("survey", done, len(pieces), int(rows.sum()))
    return seconds, rows, refused


def survey_piece(description: str, schema: Schema, allowed: int) -> bytes:
    """A call of the mapper: count the rows of a `Piece` per second; where rows may be left out, find those too."""
    piece = Piece.model_validate_json(description)
    seconds, rows, refused = np.zeros(0, np.int64), np.zeros(0, np.int64), REFUSED.empty_table()
    for first, table in read_piece(piece, schema.columns if allowed else [schema.time.column]):
        origin = _origin(piece, first, len(table), schema)
        if allowed:
            stamp, bad = sift(table, schema, origin)
            refused = pa.concat_tables([refused, bad])
        else:
            stamp = read_time(table, schema.time, origin)
        seconds, rows = _add(seconds, rows, stamp // 1000, np.ones(len(stamp), np.int64))
        if len(refused) > allowed:
            break
    counts = pa.table({"second": seconds, "rows": rows})
    return to_ipc(pa.table({"part": pa.array([to_ipc(counts), to_ipc(refused)], pa.binary())}))


def partition(
    pieces: list[Piece],
    schema: Schema,
    plan: BlockPlan,
    work: Path,
    report: Progress,
    refused: pa.Table = REFUSED.empty_table(),
    *,
    each: Mapper = in_turn,
) -> tuple[list[list[tuple[str, int]]], pa.Table, list[Note]]:
    """Per shard the temporary batches that hold its rows, in source order; the vocabulary counts of the whole log; and the notes."""
    batches: list[list[tuple[str, int]]] = [[] for _ in plan.rows]
    counts, waiting, total = COUNTS.empty_table(), [], 0
    notes: list[Note] = []
    left_out: dict[str, list[int]] = {}
    for file, row in zip(refused["file"].to_pylist(), refused["row"].to_pylist(), strict=True):
        left_out.setdefault(file, []).append(row)
    todo = [piece.model_dump_json() for piece in pieces]
    results = each(partition_piece, todo, schema=schema, plan=plan, left_out=left_out, work=str(work))
    for done, result in enumerate(results, start=1):
        table = from_ipc(result)
        meta = table.schema.metadata
        for position, shard in enumerate(np.frombuffer(meta[b"shards"], np.int64)):
            batches[shard].append((meta[b"file"].decode(), position))
        notes = merge([*notes, *Notes.model_validate_json(meta[b"notes"]).notes])
        waiting.append(table.replace_schema_metadata(None))
        if sum(map(len, waiting)) > max(len(counts), 1_000_000):  # so that merging has a constant cost per count
            counts, waiting = merge_counts([counts, *waiting]), []
        total += int(meta[b"rows"])
        report("partition", done, len(pieces), total)
    return batches, merge_counts([counts, *waiting]), notes


def partition_piece(
    description: str, schema: Schema, plan: BlockPlan, left_out: dict[str, list[int]], work: str
) -> bytes:
    """A call of the mapper: bring a `Piece` to canonical form and split it by shard into one Arrow file.

    `left_out` has, per file, the rows that are left out of the log.
    """
    piece = Piece.model_validate_json(description)
    name = Path(piece.path).name if piece.row_group is None else f"{Path(piece.path).name}.{piece.row_group}"
    # A random name: a task that runs again must not write into the file of its first attempt.
    file = Path(work) / f"{secrets.token_hex(8)}.{name}.arrow"
    shards: list[int] = []
    counts: list[pa.Table] = [COUNTS.empty_table()]
    kept, notes = 0, list[Note]()
    writer: pa.RecordBatchFileWriter | None = None
    for first, table in read_piece(piece, schema.columns):
        origin = _origin(piece, first, len(table), schema)
        if piece.path in left_out:
            good = np.flatnonzero(~np.isin(origin.rows, left_out[piece.path]))
            table, origin = pick(table, good, origin)
        # `canonical` notes what is to be told about the times, and only of rows that are kept.
        shard = plan.shard_of(read_time(table, schema.time, replace(origin, notes=[])))
        inside = np.flatnonzero(shard >= 0)
        order = inside[np.argsort(shard[inside], kind="stable")]
        if not len(order):
            continue
        shard = shard[order]
        table, origin = pick(table, order, origin)
        rows = canonical(table, schema, origin).combine_chunks()
        notes = merge([*notes, *origin.notes])
        counts.append(count_values(rows, schema, plan.block[shard]))
        if writer is None:
            writer = pa.ipc.new_file(str(file), rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        for begin, end in runs(shard):
            writer.write_batch(rows.slice(begin, end - begin).combine_chunks().to_batches()[0])
            shards.append(int(shard[begin]))
        kept += len(order)
    if writer is not None:
        writer.close()
    meta = {
        b"file": str(file).encode(),
        b"shards": np.array(shards, np.int64).tobytes(),
        b"rows": str(kept).encode(),
        b"notes": Notes(notes=notes).model_dump_json().encode(),
    }
    return to_ipc(merge_counts(counts).replace_schema_metadata(meta))


def encode(
    schema: Schema,
    plan: BlockPlan,
    batches: list[list[tuple[str, int]]],
    folder: Path,
    report: Progress,
    *,
    each: Mapper = in_turn,
) -> list[ShardDone]:
    """Write all shards; returns their manifest entries, in order."""
    todo = []
    opens = np.searchsorted(plan.block, plan.block)
    for shard, (block, position) in enumerate(zip(plan.block.tolist(), plan.first_row.tolist(), strict=True)):
        place = block_folder(folder, plan.names[block])
        place.mkdir(parents=True, exist_ok=True)
        step = ShardPlan(
            folder=str(place),
            name=shard_name(shard - opens[shard]),
            block=block,
            first_row_id=(block << 32) + position,
            batches=batches[shard],
        )
        todo.append(step.model_dump_json())
    done: list[ShardDone] = []
    rows = 0
    for result in each(encode_shard, todo, schema=schema, folder=str(folder)):
        done.append(ShardDone.model_validate_json(result))
        rows += done[-1].shard.rows
        report("encode", len(done), len(todo), rows)
    return done


def encode_shard(description: str, schema: Schema, folder: str) -> bytes:
    """A call of the mapper: gather, sort, encode and write the shard of a `ShardPlan`."""
    step = ShardPlan.model_validate_json(description)
    encoder = _encoder(folder, step.block, schema.model_dump_json())
    rows = encoder.encode(pa.Table.from_batches(read_batches(step.batches)), step.first_row_id)
    shard = write_shard(Path(step.folder) / step.name, rows)
    done = ShardDone(shard=shard, time_min=int(rows.time[0]), time_max=int(rows.time[-1]))
    return done.model_dump_json().encode()


@lru_cache(maxsize=1)
def _encoder(folder: str, block: int, schema: str) -> Encoder:
    """A worker's encoder, cached for all shards of a block: a big vocabulary takes longer to load than a shard takes to encode."""
    vocabulary = pq.read_table(vocabulary_file(Path(folder)))
    edges = parse_json(Edges, edges_file(Path(folder)))
    return Encoder.at(block, Schema.model_validate_json(schema), vocabulary, edges)


def _origin(piece: Piece, first: int, rows: int, schema: Schema) -> Origin:
    instants, nulls = frozenset(piece.int96), tuple(schema.nulls)
    return Origin(piece.path, np.arange(first, first + rows), nulls=nulls, instants=instants)


def _add(
    seconds: np.ndarray, rows: np.ndarray, more_seconds: np.ndarray, more_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    merged, at = np.unique(np.concatenate([seconds, more_seconds]), return_inverse=True)
    return merged, np.bincount(at, np.concatenate([rows, more_rows]), len(merged)).astype(np.int64)
