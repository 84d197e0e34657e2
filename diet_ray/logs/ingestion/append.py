"""Append: add new blocks after a log's last one, from files that continue the log.

Cut by day or week, the result is byte for byte the log that `ingest` would have made of all files at once: vocabularies grow block by
block, a value's id depends on no later block, and numeric buckets stay as fitted on the first block. Existing blocks never change. A block
that is not over yet is left for the next append: a day or week is over by the clock, a block of rows by its number of rows.

A reader sees the old log until `log.json`, which alone lists the blocks, is replaced at the end. Files of an interrupted append are not
listed there, and the next append removes or replaces them.
"""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field as Key

from diet_ray.errors import NO_ROOM, ConfigError, CorruptArtefactError, SchemaError
from diet_ray.logs.blocks import Log, LogManifest, add_counts, open_log
from diet_ray.logs.id_chain import edges_checksum, vocabulary_checksums
from diet_ray.logs.ingestion.block_plan import BlockPlan, By, cut_blocks
from diet_ray.logs.ingestion.edges import Edges, edge_problems
from diet_ray.logs.ingestion.encode_pass import encode
from diet_ray.logs.ingestion.ingest import SHARD_ROWS, write_manifests
from diet_ray.logs.ingestion.number_pass import partition_and_number
from diet_ray.logs.ingestion.numbering import BATCH_ROWS
from diet_ray.logs.ingestion.older_logs import check_readings, reads_as_before
from diet_ray.logs.ingestion.passes import survey
from diet_ray.logs.ingestion.sources import find_pieces
from diet_ray.logs.ingestion.vocabulary import VOCABULARY, ids_after, unpacked_vocabulary
from diet_ray.logs.layout import block_folder, edges_file, log_manifest_file, vocabulary_file
from diet_ray.logs.notes import Note, merge, told
from diet_ray.mapper import Mapper, Progress, in_turn, no_progress
from diet_ray.schema import Schema
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import locked
from diet_ray.storage.parquet_writing import write_parquet

_DRAFT = ".append."
"""How the folders begin in which appends make their files."""

_NAMES = {"day": r"\d{4}-\d\d-\d\d", "week": r"\d{4}-W\d\d"}
"""Patterns for the names of days and weeks."""


class Appended(Settings):
    """The result of an append."""

    log: str
    """The log's folder."""
    blocks: list[str]
    """Names of the new blocks, in time order; empty where no new block was over."""
    rows: int
    """Rows in the new blocks."""
    rows_before: int
    """Rows of the files that belong to blocks which the log has already, or to times before them; left out."""
    rows_open: int
    """Rows of the files in blocks that are not over, or beyond the requested number of blocks; left for the next append."""
    n_ids: int
    """Size of the log's id space now."""
    notes: list[Note] = Key(default_factory=list)
    """What was read otherwise than it stands in the files, or passed over."""
    removed: list[str] = Key(default_factory=list)
    """Folders in the log that earlier appends had left when they were killed."""

    def __str__(self) -> str:
        new = f"{self.rows:,} rows in {len(self.blocks)} new blocks" if self.blocks else "no new block"
        names = f" ({self.blocks[0]} to {self.blocks[-1]})" if self.blocks else ""
        left = (
            f"{self.rows_before:,} rows belong to earlier blocks or times, {self.rows_open:,} to blocks left for later"
        )
        gone = [f"{self.log}/{name}: left by an append that was killed; removed" for name in self.removed]
        return "\n".join([*gone, f"{self.log}: {new}{names}; {left}", *told(self.notes)])


def append(
    schema: Schema,
    sources: list[Path],
    path: Path,
    *,
    by: By,
    now: float,
    shard_rows: int = SHARD_ROWS,
    blocks: int | None = None,
    on_progress: Progress = no_progress,
    each: Mapper = in_turn,
) -> Appended:
    """Add the blocks that follow a log's last one.

    Args:
        schema: the log's own; with `nulls: []` for a log from before that key (`older_logs.py`).
        sources: Parquet or CSV files, or folders of them; they may hold rows that the log has already.
        path: the log's folder.
        by: block length, as the log was ingested.
        now: current time in seconds since the epoch; the day or week that contains it is not over.
        shard_rows: target number of rows per shard.
        blocks: most blocks to add.
        on_progress: called after each piece or shard.
        each: calls the passes for each piece and shard, in this process or on a cluster (`diet_ray.engine.fan_out`) whose nodes all see
            the same paths.

    Raises:
        CorruptArtefactError: there is no log at `path`, or its vocabulary or bucket edges are not those that `ingest` made.
        SchemaError: the log was ingested with another schema, or some of its values are read otherwise by this release.
        ConfigError: `by` does not go on from the log's last block.
        BadInputError: a source is missing or damaged, or holds a value that must not be learned from.
        LockedError: another process appends to the log.
    """
    open_log(path)  # before the lock, which makes the folder that it locks
    with locked(path):
        log = open_log(path)
        _check(log, schema, by)
        removed = _remove_drafts(path)
        passed_over: list[Note] = []
        pieces = find_pieces(sources, schema.columns, passed_over)
        seconds, rows, _ = survey(pieces, schema, on_progress, each=each)
        plan, before = plan_blocks(seconds, rows, log, by=by, now=now, shard_rows=shard_rows, blocks=blocks)
        if plan is None:
            left = int(rows.sum()) - before
            n_ids = log.blocks[-1].n_ids
            return Appended(
                log=str(path),
                blocks=[],
                rows=0,
                rows_before=before,
                rows_open=left,
                n_ids=n_ids,
                notes=passed_over,
                removed=removed,
            )
        edges = _edges(path, log)
        folder = path / f"{_DRAFT}{secrets.token_hex(4)}.partial"
        try:
            work = folder / "work"
            work.mkdir(parents=True)
            old = known_vocabulary(path, log, folder)
            check_readings(old, schema, log)
            parts, vocabulary = partition_and_number(pieces, schema, plan, work, on_progress, known=old, each=each)
            notes = [*passed_over, *parts.notes]
            _check_grown(path, old, vocabulary)
            write_parquet(vocabulary, vocabulary_file(folder))
            done, new_counts = encode(schema, plan, parts.batches, edges, folder, on_progress, each=each)
            new = plan.names[len(log.blocks) :]
            write_manifests(folder, log.schema, plan, done, vocabulary, edges)
            store = FolderStore(path)
            for name in new:
                place, made = (block_folder(base, name).relative_to(path).as_posix() for base in (path, folder))
                store.delete(place)  # an interrupted append may have left a folder that `log.json` does not list
                store.move(made, place)
            vocabulary_file(folder).replace(vocabulary_file(path))
            counted = add_counts([*log.counts, *new_counts])
            manifest = LogManifest(
                log_schema=log.schema,
                blocks=plan.names,
                notes=merge([*log.notes, *notes]),
                counts=counted if log.counts else [],  # a sum over some of the blocks would be taken for one over all
            )
            write_json(log_manifest_file(path), manifest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    added = int(plan.rows.sum())
    left = int(rows.sum()) - before - added
    n_ids = int(ids_after(vocabulary, schema, len(plan.names))[-1])
    return Appended(
        log=str(path),
        blocks=new,
        rows=added,
        rows_before=before,
        rows_open=left,
        n_ids=n_ids,
        notes=notes,
        removed=removed,
    )


def _remove_drafts(path: Path) -> list[str]:
    """Remove what appends that were killed have left; returns the names. The log is locked, so that none of them is in use."""
    store, left = FolderStore(path), sorted(path.glob(f"{_DRAFT}*.partial"))
    for folder in left:
        store.delete(folder.name)
    return [folder.name for folder in left]


def plan_blocks(
    seconds: np.ndarray, rows: np.ndarray, log: Log, *, by: By, now: float, shard_rows: int, blocks: int | None
) -> tuple[BlockPlan | None, int]:
    """The new blocks as a plan of the whole log: its names are those of all blocks, its shards only those of the new blocks.

    Args:
        seconds: `[M]` int64, ascending: the seconds in which the files have rows.
        rows: `[M]` int64: number of rows in each second.

    Returns:
        The plan, None where no new block is over; and the number of rows that come too late for the log.
    """
    zone, last = log.schema.time.timezone, log.blocks[-1]

    def cut_from(first: int, at_most: int | None = None) -> BlockPlan:
        later = seconds >= first
        return cut_blocks(seconds[later], rows[later], by=by, timezone=zone, shard_rows=shard_rows, blocks=at_most)

    first = last.time_max // 1000 + 1
    if not (seconds >= first).any():
        return None, int(rows.sum())
    plan = cut_from(first)
    if isinstance(by, str):
        n_late = sum(name <= last.name for name in plan.names)  # rows of the last block's own day or week
        if n_late == len(plan.names):
            return None, int(rows.sum())
        first = int(plan.start[np.searchsorted(plan.block, n_late)])
        plan = cut_from(first)
        (today,) = cut_blocks(np.array([int(now)]), np.ones(1, np.int64), by=by, timezone=zone, shard_rows=1).names
        over = sum(name < today for name in plan.names)
    else:
        over = len(plan.names) - int(np.bincount(plan.block, plan.rows)[-1] < by)
    before = int(rows[seconds < first].sum())
    n = over if blocks is None else min(over, blocks)
    if not n:
        return None, before
    plan, n_old = cut_from(first, n), len(log.blocks)
    names = plan.names if isinstance(by, str) else [f"rows-{n_old + index:05d}" for index in range(n)]
    return replace(plan, names=[*(block.name for block in log.blocks), *names], block=plan.block + n_old), before


def _check_grown(path: Path, old: pa.Table, grown: pa.Table) -> None:
    """Raise CorruptArtefactError where the vocabulary `old` is not the beginning of the `grown` one: `ingest` did not make it."""
    for begin in range(0, len(old), BATCH_ROWS):
        part = old.slice(begin, BATCH_ROWS)
        if not grown.slice(begin, len(part)).equals(part):
            raise CorruptArtefactError(
                f"{vocabulary_file(path)}: its ids are not in the order in which blocks add them; {_REMEDY}"
            )


def _edges(path: Path, log: Log) -> Edges:
    """The bucket edges of the log. Raises CorruptArtefactError where they are not those by which its last block was encoded."""
    file, own = edges_file(path), log.blocks[-1].id_checksums
    edges = parse_json(Edges, file)
    for problem in edge_problems(edges, log.schema):
        raise CorruptArtefactError(f"{file}: {problem}; {_REMEDY}")
    if own and edges_checksum(edges) != own.edges_sha256:
        raise CorruptArtefactError(f"{file}: has other edges than those by which the log was encoded; {_REMEDY}")
    return edges


def known_vocabulary(path: Path, log: Log, work: Path) -> pa.Table:
    """The vocabulary of the log's blocks (schema `VOCABULARY`), mapped from a file that is made in the folder `work`.

    Raises:
        CorruptArtefactError: it cannot be read, or is not the one by which the log's last block was encoded.
    """
    file, own = vocabulary_file(path), log.blocks[-1].id_checksums
    try:
        columns = pq.read_schema(file)
        if not columns.equals(VOCABULARY):
            raise CorruptArtefactError(
                f"{file}: has the columns {columns.names}, must be {VOCABULARY.names}; {_REMEDY}"
            )
        old = unpacked_vocabulary(file, work / "known.arrow")
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # there was no room to unpack it, which is no damage
        raise CorruptArtefactError(f"{file}: cannot be read ({error}); {_REMEDY}") from error
    try:
        checksum = vocabulary_checksums(old, log.schema, len(log.blocks))[-1]
    except ValueError as error:
        raise CorruptArtefactError(f"{file}: {error}; {_REMEDY}") from error
    n_ids = int(ids_after(old, log.schema, len(log.blocks))[-1])
    if n_ids != log.blocks[-1].n_ids or (own and checksum != own.vocabulary_sha256):
        raise CorruptArtefactError(f"{file}: has other values than those by which the log was encoded; {_REMEDY}")
    return old.slice(0, n_ids - int(log.schema.first_static_id[-1]))  # an interrupted append may have written more


_REMEDY = "restore it from a copy; only a log that diet-ray ingest made can be appended to"


def _check(log: Log, schema: Schema, by: By) -> None:
    key = schema.differing_key(log.schema)
    if key and not reads_as_before(schema, log):
        raise SchemaError(
            f"{log.path}: was ingested with another schema, key {key!r} differs; append with the log's own schema"
        )
    if not edges_file(log.path).is_file():
        raise CorruptArtefactError(f"{edges_file(log.path)}: missing; {_REMEDY}")
    last = log.blocks[-1].name
    if not re.fullmatch(_NAMES[by] if isinstance(by, str) else r"rows-\d{5,}", last):
        raise ConfigError(
            f"--by: {by} does not go on from block {last!r} of {log.path}; give --by as at the log's ingest"
        )
