"""Checks of what decides the ids of a log: its bucket edges, its vocabulary, and their checksums in the manifests of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.logs.id_chain import edges_checksum, vocabulary_checksums
from diet_ray.logs.ingestion.edges import Edges, edge_problems
from diet_ray.logs.ingestion.vocabulary import VOCABULARY, read_vocabulary
from diet_ray.logs.layout import block_manifest_file, edges_file, vocabulary_file
from diet_ray.logs.manifests import BlockManifest, too_many_ids
from diet_ray.schema import Schema
from diet_ray.storage.faults import Faults


def check_ids(path: Path, schema: Schema, blocks: Sequence[BlockManifest | None], faults: Faults) -> None:
    """Note the faults of the bucket edges and of the vocabulary, and where they are not those by which a block was encoded.

    A log whose schema has no field that needs one of the files may lack it. `blocks` are the manifests, None for one that cannot be read.
    """
    kinds = {field.kind for field in schema.fields}
    edges = _edges(path, schema, faults) if "numeric" in kinds or edges_file(path).exists() else Edges(edges={})
    if edges is not None:
        _check_edges(path, edges, blocks, faults)
    needed = "vocabulary" in kinds
    values = _values(path, faults, needed) if needed or vocabulary_file(path).exists() else VOCABULARY.empty_table()
    if values is not None:
        _check_vocabulary(path, schema, values, blocks, faults)


def _edges(path: Path, schema: Schema, faults: Faults) -> Edges | None:
    edges = faults.manifest(Edges, edges_file(path))
    for problem in edge_problems(edges, schema) if edges else ():
        faults.add(edges_file(path), problem)
    return edges


def _check_edges(path: Path, edges: Edges, blocks: Sequence[BlockManifest | None], faults: Faults) -> None:
    checksum = edges_checksum(edges)
    for block in blocks:
        if block and block.id_checksums and block.id_checksums.edges_sha256 != checksum:
            faults.add(edges_file(path), f"has other edges than those by which block {block.name!r} was encoded")
            return


def _values(path: Path, faults: Faults, needed: bool) -> pa.Table | None:
    """The vocabulary (schema `VOCABULARY`); None, and a fault, where it cannot be read."""
    file = vocabulary_file(path)
    if file.is_symlink() or not file.is_file():
        why = ", though the schema has vocabulary fields" if needed else ""
        faults.add(file, "is a link" if file.is_symlink() else f"missing{why}")
        return None
    try:
        with pq.ParquetFile(file) as opened:
            if not opened.schema_arrow.equals(VOCABULARY):
                faults.add(
                    file, f"its columns are {opened.schema_arrow.names}, must be {VOCABULARY.names} in their types"
                )
                return None
        return read_vocabulary(file)
    except (OSError, MemoryError, pa.ArrowException) as error:
        faults.add(file, f"not a readable Parquet file ({error})")
        return None


def _check_vocabulary(
    path: Path, schema: Schema, values: pa.Table, blocks: Sequence[BlockManifest | None], faults: Faults
) -> None:
    file, first = vocabulary_file(path), int(schema.first_static_id[-1])
    try:
        chain = vocabulary_checksums(values, schema, len(blocks))
    except ValueError as error:
        faults.add(file, str(error))
        return
    ids = values["id"].to_numpy()
    counts = first + np.searchsorted(values["block"].to_numpy(), np.arange(len(blocks)), side="right")
    n_ids = max((block.n_ids for block in blocks if block), default=int(counts[-1]))
    # An interrupted append may have left values of blocks that the log does not list.
    if counts[-1] != n_ids or not np.array_equal(ids, np.arange(first, first + len(ids))):
        faults.add(file, f"must give out the ids {first} to {n_ids - 1}, each once and in order", part="column 'id'")
    for block, most, checksum in zip(blocks, counts.tolist(), chain[1:], strict=True):
        if block is None:
            continue
        if block.n_ids > most:
            faults.add(block_manifest_file(path, block.name), too_many_ids(block, most))
        if block.id_checksums and block.id_checksums.vocabulary_sha256 != checksum:
            faults.add(file, f"has other values than those by which block {block.name!r} was encoded")
            return
