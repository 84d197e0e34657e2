"""The passes of an ingest. Each calls the mapper once per piece, range of values or shard; none of them is a global shuffle of rows.

    survey      per piece: check the times, count rows per second         -> where blocks and shards begin
    partition   per piece: check all columns, split the rows by shard     -> temporary files, counts of vocabulary values
    number      give the values ids (`numbering.py`)                      -> the vocabulary
    encode      per shard: gather its rows, sort by time, encode, write   -> Parquet shards (`encode_pass.py`)

With an allowance for rows that break a rule (`quarantine.py`) the survey checks all columns: those rows must be known before the
blocks are cut.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.canonical import canonical, pick
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.quarantine import REFUSED, check_allowance, sift
from diet_ray.logs.ingestion.sources import Piece, read_piece
from diet_ray.logs.ingestion.times import read_time
from diet_ray.logs.ingestion.value_counts import CountFile, keyed, one_batch
from diet_ray.logs.notes import Note, merge
from diet_ray.mapper import Mapper, Progress, in_turn
from diet_ray.schema import Schema
from diet_ray.settings import Settings
from diet_ray.storage.arrays import from_ipc, runs, to_ipc


def survey(
    pieces: list[Piece], schema: Schema, report: Progress, allowed: int = 0, *, each: Mapper = in_turn
) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Count the rows of each second.

    Returns:
        The seconds of the rows that break no rule, `[M]` int64 ascending; the number of rows in each; and the rows that break a rule
        (schema `REFUSED`), at most `allowed`.
    """
    counts, waiting, refused, total = _per_second(), list[pa.Table](), REFUSED.empty_table(), 0
    results = each(survey_piece, [piece.model_dump_json() for piece in pieces], schema=schema, allowed=allowed)
    for done, result in enumerate(results, start=1):
        table, bad = (from_ipc(part) for part in from_ipc(result)["part"].to_pylist())
        refused = pa.concat_tables([refused, bad])
        check_allowance(refused, allowed)
        waiting.append(table)
        if sum(map(len, waiting)) > max(len(counts), 1_000_000):  # so that merging has a constant cost per count
            counts, waiting = _per_second(counts, *waiting), []
        total += int(table["rows"].to_numpy().sum())
        report("survey", done, len(pieces), total)
    counts = _per_second(counts, *waiting)
    return counts["second"].to_numpy(), counts["rows"].to_numpy(), refused


def survey_piece(description: str, schema: Schema, allowed: int) -> bytes:
    """A call of the mapper: count the rows of a `Piece` per second; where rows may be left out, find those too."""
    piece = Piece.model_validate_json(description)
    counts, refused = _per_second(), REFUSED.empty_table()
    for first, table in read_piece(piece, schema.columns if allowed else [schema.time.column]):
        origin = _origin(piece, first, len(table), schema)
        if allowed:
            stamp, bad = sift(table, schema, origin)
            refused = pa.concat_tables([refused, bad])
        else:
            stamp = read_time(table, schema.time, origin)
        counts = _per_second(counts, pa.table({"second": stamp // 1000, "rows": np.ones(len(stamp), np.int64)}))
        if len(refused) > allowed:
            break
    return to_ipc(pa.table({"part": pa.array([to_ipc(counts), to_ipc(refused)], pa.binary())}))


@dataclass(frozen=True)
class Parts:
    """The rows of a log, divided among its shards, and what was counted on the way."""

    batches: list[list[tuple[str, int]]]
    """Per shard the temporary batches that hold its rows, in source order."""
    counts: list[str]
    """Files of counts (`value_counts.py`)."""
    n_bytes: int
    """Bytes of the counts in them."""
    notes: list[Note]


class Part(Settings):
    """The report on one piece."""

    file: str
    """Arrow file of its rows."""
    shards: list[int]
    """The shard of each batch in it."""
    rows: int
    counts: str | None
    """File of its counts, if it has any."""
    n_bytes: int
    """Bytes of the counts."""
    notes: list[Note]


def partition(
    pieces: list[Piece],
    schema: Schema,
    plan: BlockPlan,
    work: Path,
    report: Progress,
    refused: pa.Table = REFUSED.empty_table(),
    *,
    salt: int = 0,
    each: Mapper = in_turn,
) -> Parts:
    """Check all rows, divide them among the shards and count their vocabulary values, whose keys have that `salt`.

    Raises:
        SameKeyError: two values have the same key.
    """
    batches: list[list[tuple[str, int]]] = [[] for _ in plan.rows]
    counts, n_bytes, total, notes = list[str](), 0, 0, list[Note]()
    left_out: dict[str, list[int]] = {}
    for file, row in zip(refused["file"].to_pylist(), refused["row"].to_pylist(), strict=True):
        left_out.setdefault(file, []).append(row)
    todo = [piece.model_dump_json() for piece in pieces]
    results = each(partition_piece, todo, schema=schema, plan=plan, left_out=left_out, work=str(work), salt=salt)
    for done, result in enumerate(results, start=1):
        part = Part.model_validate_json(result)
        for position, shard in enumerate(part.shards):
            batches[shard].append((part.file, position))
        if part.counts:
            counts.append(part.counts)
        n_bytes += part.n_bytes
        notes = merge([*notes, *part.notes])
        total += part.rows
        report("partition", done, len(pieces), total)
    return Parts(batches, counts, n_bytes, notes)


def partition_piece(
    description: str, schema: Schema, plan: BlockPlan, left_out: dict[str, list[int]], work: str, salt: int
) -> bytes:
    """A call of the mapper: bring a `Piece` to canonical form and split it by shard into one Arrow file.

    `left_out` has, per file, the rows that are left out of the log.
    """
    piece = Piece.model_validate_json(description)
    name = Path(piece.path).name if piece.row_group is None else f"{Path(piece.path).name}.{piece.row_group}"
    # A random name: a task that runs again must not write into the file of its first attempt.
    file = Path(work) / f"{secrets.token_hex(8)}.{name}.arrow"
    shards: list[int] = []
    kept, notes = 0, list[Note]()
    with ExitStack() as stack:
        counted = stack.enter_context(CountFile(file.with_suffix(".counts")))
        writer: pa.RecordBatchFileWriter | None = None
        for first, table in read_piece(piece, schema.columns):
            origin = _origin(piece, first, len(table), schema)
            if piece.path in left_out:
                good = np.flatnonzero(~np.isin(origin.rows, left_out[piece.path]))
                table, origin = pick(table, good, origin)
            # `canonical` notes what is to be told about the times, and only of rows that are kept.
            shard = plan.shard_of(read_time(table, schema.time, replace(origin, notes=[])))
            inside = np.flatnonzero(shard >= 0)
            if not len(inside):
                continue
            if len(inside) < len(shard):
                table, origin = pick(table, inside, origin)
            rows = canonical(table, schema, origin).combine_chunks()
            notes = merge([*notes, *origin.notes])
            order = np.argsort(shard[inside], kind="stable")
            shard = shard[inside[order]]
            rows, counts = keyed(rows.take(pa.array(order)), schema, plan.block[shard], salt)
            counted.add(counts)
            if writer is None:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = stack.enter_context(pa.ipc.new_file(str(file), rows.schema, options=options))
            for begin, end in runs(shard):
                writer.write_batch(one_batch(rows.slice(begin, end - begin)))
                shards.append(int(shard[begin]))
            kept += len(order)
    part = Part(
        file=str(file),
        shards=shards,
        rows=kept,
        counts=str(counted.path) if counted.n_bytes else None,
        n_bytes=counted.n_bytes,
        notes=notes,
    )
    return part.model_dump_json().encode()


def _origin(piece: Piece, first: int, rows: int, schema: Schema) -> Origin:
    instants, nulls = frozenset(piece.int96), tuple(schema.nulls)
    return Origin(piece.path, np.arange(first, first + rows), nulls=nulls, instants=instants)


def _per_second(*counts: pa.Table) -> pa.Table:
    """The sum of tables of rows per second: columns `second` int64 ascending, each once, and `rows` int64."""
    seconds, rows = (
        np.concatenate([np.zeros(0, np.int64), *(table[name].to_numpy() for table in counts)])
        for name in ("second", "rows")
    )
    first = seconds.min(initial=2**62)
    if len(seconds) and (span := int(seconds.max() - first) + 1) <= 8 * len(seconds):
        summed = np.bincount(seconds - first, rows, span).astype(np.int64)
        merged = np.flatnonzero(summed)
        return pa.table({"second": merged + first, "rows": summed[merged]})
    merged, at = np.unique(seconds, return_inverse=True)
    return pa.table({"second": merged, "rows": np.bincount(at, rows, len(merged)).astype(np.int64)})
