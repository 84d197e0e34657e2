"""Ingest: from Parquet or CSV files of any size to a log of blocks (`diet_ray.logs.blocks`), in passes over files on disk (`passes.py`,
`number_pass.py`, `encode_pass.py`).

The log depends on the files and the schema alone, not on the number of workers. A task holds one batch or one shard, and some counts of
values (`value_counts.BUFFER_BYTES`); the driver holds 16 bytes per second of the log, the names of temporary batches (one for each shard of
which a batch has rows), a part of the vocabulary (`numbering.CHUNK_BYTES`) and some numeric columns of the first block at a time
(`fit.AT_ONCE`). What an ingest holds depends neither on the number of rows nor on that of values: the vocabulary is on disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.errors import BadInputError, ConfigError
from diet_ray.logs.blocks import BlockManifest, LogManifest
from diet_ray.logs.id_chain import IdChecksums, id_checksums
from diet_ray.logs.ingestion.block_plan import BlockPlan, By, cut_blocks
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.encode_pass import ShardDone, encode
from diet_ray.logs.ingestion.fit import fit
from diet_ray.logs.ingestion.number_pass import partition_and_number
from diet_ray.logs.ingestion.passes import survey
from diet_ray.logs.ingestion.quarantine import FILE, assign
from diet_ray.logs.ingestion.sources import find_pieces
from diet_ray.logs.ingestion.time_units import check_unit
from diet_ray.logs.ingestion.vocabulary import ids_after
from diet_ray.logs.layout import block_manifest_file, edges_file, log_manifest_file, vocabulary_file
from diet_ray.logs.notes import Note, merge
from diet_ray.mapper import Mapper, Progress, in_turn, no_progress
from diet_ray.schema import Schema
from diet_ray.settings import write_json
from diet_ray.storage.arrays import runs
from diet_ray.storage.parquet_writing import write_parquet
from diet_ray.storage.whole_folder import appearing

SHARD_ROWS = 16_384
"""Default rows per shard: large enough that a task's overhead is small, small enough that a day of a modest log feeds two workers."""


def ingest(
    schema: Schema,
    sources: list[Path],
    out: Path,
    *,
    by: By,
    shard_rows: int = SHARD_ROWS,
    blocks: int | None = None,
    max_quarantined_rows: int = 0,
    on_progress: Progress = no_progress,
    each: Mapper = in_turn,
) -> LogManifest:
    """Turn files into a log at `out`.

    Args:
        schema: the meaning of the columns.
        sources: Parquet or CSV files, or folders of them; rows of equal time keep this order.
        out: folder to make. It appears complete or not at all.
        by: block length: local `day`, ISO `week` (both in the schema's time zone), or a least number of rows.
        shard_rows: target number of rows per shard.
        blocks: number of blocks to keep, from the start; of rows after them, only the time is checked.
        max_quarantined_rows: most rows that may break a rule. They are left out and listed in `quarantine.parquet` of the log; with 0 the
            first one is an error. Above 0 all rows are checked, also those after the blocks that are kept.
        on_progress: called after each piece or shard.
        each: calls the passes for each piece and shard, in this process or on a cluster (`diet_ray.engine.fan_out`) whose nodes all see
            the same paths.

    Raises:
        ConfigError: `out` exists already, or an argument is out of range.
        BadInputError: a source is missing or damaged, or holds more values that must not be learned from than are allowed.
        ResourceError: a source is a Delta table, and the extra `delta` is not installed.
        SchemaError: the schema does not fit the log.
    """
    for name, value in (("by", by), ("shard_rows", shard_rows), ("blocks", blocks)):
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"ingest: {name} must be at least 1, not {value}")
    if max_quarantined_rows < 0:
        raise ConfigError(f"ingest: max_quarantined_rows must be at least 0, not {max_quarantined_rows}")
    if isinstance(by, str) and by not in ("day", "week"):
        raise ConfigError(f"ingest: by must be 'day', 'week' or a number of rows, not {by!r}")
    if not sources:
        raise ConfigError("ingest: no source given; name Parquet or CSV files, or folders of them")
    files = ", ".join(map(str, sources))
    passed_over: list[Note] = []
    pieces = find_pieces(sources, schema.columns, passed_over)
    with appearing(out, "log") as folder:
        work = folder / "work"
        work.mkdir()
        seconds, rows, refused = survey(pieces, schema, on_progress, max_quarantined_rows, each=each)
        if not len(seconds):
            raise BadInputError(
                files,
                f"holds no rows at all, besides {len(refused)} that break a rule"
                if len(refused)
                else "holds no rows at all",
                remedy="an empty log cannot be learned from",
            )
        suspicious = check_unit(seconds, schema.time, files)
        plan = cut_blocks(seconds, rows, by=by, timezone=schema.time.timezone, shard_rows=shard_rows, blocks=blocks)
        quarantine, quarantined = assign(refused, plan)
        if len(quarantine):
            write_parquet(quarantine, folder / FILE)
        parts, vocabulary = partition_and_number(pieces, schema, plan, work, on_progress, refused, each=each)
        write_parquet(vocabulary, vocabulary_file(folder))
        edges, about_edges = fit(schema, plan, parts.batches)
        write_json(edges_file(folder), edges)
        done, counts_of_rows = encode(schema, plan, parts.batches, edges, folder, on_progress, each=each)
        write_manifests(folder, schema, plan, done, vocabulary, edges, quarantined)
        shutil.rmtree(work)
        told = merge([*passed_over, *suspicious, *parts.notes, *about_edges])
        manifest = LogManifest(log_schema=schema, blocks=plan.names, notes=told, counts=counts_of_rows)
        write_json(log_manifest_file(folder), manifest)
    return manifest


def write_manifests(
    folder: Path,
    schema: Schema,
    plan: BlockPlan,
    done: list[ShardDone],
    vocabulary: pa.Table,
    edges: Edges,
    quarantined: np.ndarray | None = None,
) -> None:
    """Write the manifest of every block that has shards in the plan.

    Args:
        folder: folder of the log.
        schema: the log's own.
        plan: its blocks and shards.
        done: the shards of the plan, in order.
        vocabulary: of all blocks, schema `VOCABULARY`.
        edges: the bucket edges.
        quarantined: `[B]`: the number of rows left out of each block.
    """
    checksums = id_checksums(schema, edges, vocabulary, len(plan.names))
    n_ids = ids_after(vocabulary, schema, len(plan.names))
    for begin, end in runs(plan.block):
        block = int(plan.block[begin])
        left_out = 0 if quarantined is None else int(quarantined[block])
        manifest = block_manifest(
            plan.names[block], block, done[begin:end], int(n_ids[block]), checksums[block], quarantined=left_out
        )
        write_json(block_manifest_file(folder, plan.names[block]), manifest)


def block_manifest(
    name: str, index: int, members: list[ShardDone], n_ids: int, checksums: IdChecksums, *, quarantined: int = 0
) -> BlockManifest:
    """The manifest of a block from its shards `members`, in time order.

    `n_ids` is the size of the id space after the block, `checksums` are those of what decides its ids, `quarantined` is the number of rows
    left out of it.
    """
    return BlockManifest(
        name=name,
        index=index,
        rows=sum(done.shard.rows for done in members),
        n_ids=n_ids,
        time_min=members[0].time_min,
        time_max=members[-1].time_max,
        positives=np.sum([done.shard.positives for done in members], axis=0).tolist(),
        quarantined=quarantined,
        shards=[done.shard for done in members],
        id_checksums=checksums,
    )
