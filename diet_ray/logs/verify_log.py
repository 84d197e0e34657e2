"""Checks of a log: its manifests, their order, its shards and the rows in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.logs.layout import (
    MANIFEST,
    block_folder,
    block_manifest_file,
    blocks_folder,
    log_manifest_file,
)
from diet_ray.logs.manifests import BlockManifest, LogManifest, LogShard, contradictions
from diet_ray.logs.row_checks import Last, Slots, last_of, row_problems
from diet_ray.logs.rows import Rows, row_bytes, shard_columns
from diet_ray.logs.verify_ids import check_ids
from diet_ray.logs.verify_quarantine import check_quarantine
from diet_ray.schema import Schema
from diet_ray.storage.entries import OtherFileError, read_content
from diet_ray.storage.faults import Faults
from diet_ray.storage.parquet import check_whole

REMEDY = "restore it from a copy or ingest the log again"
STRAY = "remove it by hand"


def check_log(path: Path, faults: Faults) -> None:
    """Note all faults of the log in the folder `path`. Memory holds one shard, and the row ids of the log."""
    manifest = faults.manifest(LogManifest, log_manifest_file(path))
    if manifest is None:
        return
    schema = manifest.log_schema
    blocks = read_blocks(path, manifest, faults)
    with faults.going_on(blocks_folder(path)):
        if blocks_folder(path).is_symlink():
            faults.add(blocks_folder(path), "is a link")
        if blocks_folder(path).is_dir():
            faults.strays(blocks_folder(path), set(manifest.blocks), remedy=STRAY)
    for name, problem in contradictions(manifest.blocks, blocks, schema):
        faults.add(block_manifest_file(path, name), problem)
    row_ids: list[np.ndarray] = []
    slots = Slots.of(schema)
    for name, block in zip(manifest.blocks, blocks, strict=True):
        if block is not None:
            with faults.going_on(block_folder(path, name)):
                row_ids += _check_block(block_folder(path, name), block, schema, slots, faults)
    whole = np.sort(np.concatenate(row_ids)) if row_ids else np.empty(0, np.int64)
    twice = np.unique(whole[1:][whole[1:] == whole[:-1]])
    if len(twice):
        faults.add(
            log_manifest_file(path), f"{len(twice)} row ids occur twice in the log, the first is {int(twice[0])}"
        )
    with faults.going_on(path):
        check_quarantine(path, schema, blocks, faults)
    with faults.going_on(path):
        check_ids(path, schema, blocks, faults)


def read_blocks(path: Path, manifest: LogManifest, faults: Faults) -> list[BlockManifest | None]:
    """The manifests of a log's blocks, in order; None for each that cannot be read."""
    blocks: list[BlockManifest | None] = []
    for name in manifest.blocks:
        folder, block = block_folder(path, name), None
        with faults.going_on(folder):
            if folder.is_symlink():
                faults.add(folder, "is a link")
            else:
                block = faults.manifest(BlockManifest, folder / MANIFEST)
        blocks.append(block)
    return blocks


def read_rows(path: Path, shard: LogShard, schema: Schema, faults: Faults) -> Rows | None:
    """The rows of a shard; None where its file is not the one that the manifest names, or its columns are not the schema's."""
    wanted = shard_columns(schema)
    try:
        content = read_content(path, shard.bytes, shard.sha256)
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            n_rows = file.metadata.num_rows
            if n_rows != shard.rows:
                faults.add(path, f"has {n_rows} rows, the manifest says {shard.rows}")
            check_whole(content, file, row_bytes(schema))
            if not faults.columns(path, file.schema_arrow, wanted):
                return None
            columns = faults.arrays(path, file.read(), wanted)
    except OtherFileError as error:
        faults.add(path, str(error))
        return None
    except (OSError, MemoryError, pa.ArrowException) as error:
        faults.add(path, f"not a readable Parquet file ({error})")
        return None
    return None if columns is None else Rows(**columns)


def _check_block(folder: Path, block: BlockManifest, schema: Schema, slots: Slots, faults: Faults) -> list[np.ndarray]:
    """Check a block's shards and rows; returns the row ids that could be read."""
    path, whole, row_ids = folder / MANIFEST, True, list[np.ndarray]()
    first: int | None = None
    before: Last | None = None
    faults.strays(folder, {MANIFEST, *(shard.path for shard in block.shards)}, remedy=STRAY)
    for shard in block.shards:
        rows = read_rows(folder / shard.path, shard, schema, faults)
        if rows is None:
            whole = False
        elif len(rows):
            for problem in row_problems(rows, slots, block, shard, before):
                faults.add(folder / shard.path, problem.what, part=f"column {problem.column!r}")
            first = int(rows.time[0]) if first is None else first
            before = last_of(rows)
            row_ids.append(rows.row_id)
    last = before.time if before else None
    if whole and (first, last) != (block.time_min, block.time_max):
        claim = f"says {block.time_min} to {block.time_max}"
        faults.add(path, f"{claim}, the rows' times go from {first} to {last}")
    return row_ids
