"""Checks of a log: its manifests, their order, its shards and the rows in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.logs.blocks import BlockManifest, LogManifest, LogShard, Rows, contradictions, row_bytes, shard_columns
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.vocabulary import VOCABULARY, read_vocabulary
from diet_ray.logs.layout import (
    MANIFEST,
    block_folder,
    block_manifest_file,
    blocks_folder,
    edges_file,
    log_manifest_file,
    vocabulary_file,
)
from diet_ray.logs.verify_quarantine import check_quarantine
from diet_ray.schema import Schema
from diet_ray.storage.entries import OtherFileError, read_content
from diet_ray.storage.faults import Faults, few
from diet_ray.storage.parquet import check_whole

REMEDY = "restore it from a copy or ingest the log again"
STRAY = "remove it by hand"


@dataclass
class _Seen:
    """Values of the rows of a block that were read so far."""

    last_id: int = -1
    last_time: int | None = None
    first_time: int | None = None
    ids: list[np.ndarray] = field(default_factory=list)
    whole: bool = True


def check_log(path: Path, faults: Faults) -> None:
    """Note all faults of the log in the folder `path`. Memory holds one shard, and the row ids of the log."""
    manifest = faults.manifest(LogManifest, log_manifest_file(path))
    if manifest is None:
        return
    schema = manifest.log_schema
    blocks = read_blocks(path, manifest, faults)
    with faults.going_on(blocks_folder(path)):
        if blocks_folder(path).is_dir():
            faults.strays(blocks_folder(path), set(manifest.blocks), remedy=STRAY)
    for name, problem in contradictions(manifest.blocks, blocks):
        faults.add(block_manifest_file(path, name), problem)
    row_ids: list[np.ndarray] = []
    for name, block in zip(manifest.blocks, blocks, strict=True):
        if block is not None:
            with faults.going_on(block_folder(path, name)):
                row_ids += _check_block(block_folder(path, name), block, schema, faults)
    whole = np.sort(np.concatenate(row_ids)) if row_ids else np.empty(0, np.int64)
    twice = np.unique(whole[1:][whole[1:] == whole[:-1]])
    if len(twice):
        faults.add(
            log_manifest_file(path), f"{len(twice)} row ids occur twice in the log, the first is {int(twice[0])}"
        )
    with faults.going_on(path):
        check_quarantine(path, schema, blocks, faults)
    n_ids = max((block.n_ids for block in blocks if block is not None), default=None)
    if n_ids is not None:
        with faults.going_on(path):
            check_encoding(path, schema, n_ids, faults)


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


def _check_block(folder: Path, block: BlockManifest, schema: Schema, faults: Faults) -> list[np.ndarray]:
    """Check a block's shards and rows; returns the row ids that could be read."""
    path, seen = folder / MANIFEST, _Seen()
    names = [shard.path for shard in block.shards]
    if len(set(names)) < len(names):
        faults.add(path, "names a shard twice")
    if block.n_ids < int(schema.first_static_id[-1]):
        faults.add(path, f"has {block.n_ids} ids, the fixed ones of the schema alone are {schema.first_static_id[-1]}")
    faults.strays(folder, {MANIFEST, *names}, remedy=STRAY)
    for shard in block.shards:
        rows = read_rows(folder / shard.path, shard, schema, faults)
        if rows is None:
            seen.whole = False
        elif len(rows):
            _check_rows(folder / shard.path, rows, shard, block, seen, faults)
    if seen.whole and (seen.first_time, seen.last_time) != (block.time_min, block.time_max):
        claim = f"says {block.time_min} to {block.time_max}"
        faults.add(path, f"{claim}, the rows' times go from {seen.first_time} to {seen.last_time}")
    totals = [sum(parts) for parts in zip(*(shard.positives for shard in block.shards), strict=False)]
    if totals != block.positives or len(totals) != schema.n_tasks:
        faults.add(path, "its positives are not the sum of its shards', one for each task")
    return seen.ids


def _check_rows(path: Path, rows: Rows, shard: LogShard, block: BlockManifest, seen: _Seen, faults: Faults) -> None:
    bad = np.asarray(((rows.ids < 0) | (rows.ids >= block.n_ids)).any(axis=1))
    if bad.any():
        faults.add(path, f"{few(rows.row_id, bad, 'rows')}: outside [0, {block.n_ids})", part="column 'ids'")
    bad = np.asarray((rows.labels > 1).any(axis=1))
    if bad.any():
        faults.add(path, f"{few(rows.row_id, bad, 'rows')}: neither 0 nor 1", part="column 'labels'")
    elif rows.labels.sum(axis=0, dtype=np.int64).tolist() != shard.positives:
        faults.add(path, "other positives than the manifest says", part="column 'labels'")
    before = np.concatenate([[seen.last_id], rows.row_id[:-1]])
    bad = rows.row_id <= before
    if bad.any():
        faults.add(path, f"{few(rows.row_id, bad, 'rows')}: not above the one before", part="column 'row_id'")
    began = rows.time[0] if seen.last_time is None else seen.last_time
    bad = rows.time < np.concatenate([[began], rows.time[:-1]])
    if bad.any():
        faults.add(path, f"{few(rows.row_id, bad, 'rows')}: earlier than the one before", part="column 'time'")
    bad = (rows.time < block.time_min) | (rows.time > block.time_max)
    if bad.any():
        faults.add(path, f"{few(rows.row_id, bad, 'rows')}: outside the block's times", part="column 'time'")
    if seen.first_time is None:
        seen.first_time = int(rows.time[0])
    seen.last_id, seen.last_time = int(rows.row_id[-1]), int(rows.time[-1])
    seen.ids.append(rows.row_id)


def check_encoding(path: Path, schema: Schema, n_ids: int, faults: Faults) -> None:
    """Note the faults of the vocabulary and of the bucket edges, where the schema has fields that need them."""
    kinds = {schema_field.kind for schema_field in schema.fields}
    if "numeric" in kinds:
        edges = faults.manifest(Edges, edges_file(path))
        for schema_field in schema.fields:
            if edges and schema_field.kind == "numeric" and schema_field.name not in edges.edges:
                faults.add(edges_file(path), f"has no edges of field {schema_field.name!r}")
    if "vocabulary" not in kinds:
        return
    file = vocabulary_file(path)
    if not file.is_file():
        faults.add(file, "missing, though the schema has vocabulary fields")
        return
    try:
        with pq.ParquetFile(file) as opened:
            if not opened.schema_arrow.equals(VOCABULARY):
                faults.add(
                    file, f"its columns are {opened.schema_arrow.names}, must be {VOCABULARY.names} in their types"
                )
                return
        ids = read_vocabulary(file)["id"].to_numpy()
    except (OSError, MemoryError, pa.ArrowException) as error:
        faults.add(file, f"not a readable Parquet file ({error})")
        return
    first = int(schema.first_static_id[-1])
    if len(ids) != n_ids - first or not np.array_equal(ids, np.arange(first, first + len(ids))):
        faults.add(file, f"must give out the ids {first} to {n_ids - 1}, each once and in order", part="column 'id'")
