"""What decides the ids of a log: its schema, the bucket edges and the vocabulary. The manifest of each block has their checksums.

A stage records the checksum of its block's manifest, and so of all that has decided its ids. The vocabulary grows with each block and
never changes otherwise, so its checksums are a chain: that of a block covers the values of this block and of all before it. An append, also
one that was interrupted, leaves the checksums of the older blocks valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.vocabulary import values_per_block
from diet_ray.logs.layout import vocabulary_file
from diet_ray.schema import Schema
from diet_ray.settings import Settings
from diet_ray.storage.hashes import content_hash
from diet_ray.storage.parquet import check_rows, footer

AT_ONCE = 1 << 18
"""Values whose checksum is taken at a time: a block may add more than fit in memory."""


class IdChecksums(Settings):
    """SHA-256, hexadecimal, of all that has decided the ids of a block."""

    schema_sha256: str
    """Of the log's schema."""
    edges_sha256: str
    """Of the bucket edges."""
    vocabulary_sha256: str
    """Of the vocabulary's values of this block and of all before it."""
    vocabulary_before_sha256: str
    """The same of the block before; for the first block that of no values."""


def schema_checksum(schema: Schema) -> str:
    """Checksum of a schema; the order of its fields counts, that of keys does not."""
    return content_hash(schema.model_dump(mode="json"))


def edges_checksum(edges: Edges) -> str:
    """Checksum of bucket edges, however their file is laid out."""
    return content_hash(edges.model_dump(mode="json"))


def vocabulary_checksums(vocabulary: pa.Table, schema: Schema, n_blocks: int) -> list[str]:
    """Checksums of the chain.

    Args:
        vocabulary: of the schema `VOCABULARY`; values of later blocks, which an interrupted append may have left, do not count.
        schema: the log's.
        n_blocks: B, number of blocks.

    Returns:
        B + 1 checksums: of no values, and of the values up to each block.

    Raises:
        ValueError: a value is missing, its field is not in the schema, or the values are not in the order of their blocks.
    """
    names = pa.array(schema.field_names, pa.string())
    for batch in vocabulary.to_batches(max_chunksize=AT_ONCE):
        if any(column.null_count for column in (pc.index_in(batch["field"], names), *batch.columns)):
            raise ValueError("has missing values, or values of fields that the schema does not have")
    chain, begin = hashlib.sha256(), 0
    checksums = [chain.hexdigest()]
    for added in values_per_block(vocabulary, n_blocks).tolist():
        chain.update(np.array([added], "<i8").tobytes())
        parts = [part for part in vocabulary.slice(begin, added).to_batches(max_chunksize=AT_ONCE) if len(part)]
        for column in ("field", "id", "length", "value"):
            for part in parts:
                chain.update(_bytes_of(part, column, names))
        checksums.append(chain.copy().hexdigest())
        begin += added
    return checksums


def _bytes_of(part: pa.RecordBatch, column: str, names: pa.Array) -> bytes | memoryview:
    """What the chain covers of a column of some values: the number of the field, the id, the length of the text, and the text itself."""
    text = part["value"]
    if column != "value":
        numbers = {"field": pc.index_in(part["field"], names), "id": part["id"], "length": pc.binary_length(text)}
        return bytes(numbers[column].to_numpy().astype("<i8" if column == "length" else "<i4").tobytes())
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1]
    return memoryview(text.buffers()[2] or b"")[offsets[0] : offsets[-1]]


def id_checksums(schema: Schema, edges: Edges, vocabulary: pa.Table, n_blocks: int) -> list[IdChecksums]:
    """The checksums for the manifests of the first `n_blocks` blocks. Raises what `vocabulary_checksums` raises."""
    own, of_edges = schema_checksum(schema), edges_checksum(edges)
    chain = vocabulary_checksums(vocabulary, schema, n_blocks)
    return [
        IdChecksums(schema_sha256=own, edges_sha256=of_edges, vocabulary_sha256=after, vocabulary_before_sha256=before)
        for before, after in pairwise(chain)
    ]


def chain_problems(checksums: IdChecksums, before: IdChecksums | None, schema_sha256: str) -> Iterator[str]:
    """Why the block with these checksums cannot follow the block with the checksums `before`, in a log whose schema has that checksum."""
    if checksums.schema_sha256 != schema_sha256:
        yield "was encoded by another schema than log.json has: its fields, their order or another key differ"
    if before is None:
        return
    if checksums.edges_sha256 != before.edges_sha256:
        yield "was encoded by other bucket edges than the block before it"
    if checksums.vocabulary_before_sha256 != before.vocabulary_sha256:
        yield "was encoded by a vocabulary that does not go on from that of the block before it"


def most_ids(path: Path, schema: Schema) -> int:
    """The largest id space that a log can have: its fixed ids, and one for each value of its vocabulary's file, of which only the footer is
    read.

    Raises:
        CorruptArtefactError: the schema has vocabulary fields, and the file is missing or cannot be read.
    """
    fixed = int(schema.first_static_id[-1])
    if not any(field.kind == "vocabulary" for field in schema.fields):
        return fixed
    file = vocabulary_file(path)
    try:
        n_values = int(footer(file).num_rows)
        check_rows(file, n_values)
    except (OSError, pa.ArrowException) as error:
        problem = "missing" if isinstance(error, FileNotFoundError) else f"not a readable Parquet file ({error})"
        raise CorruptArtefactError(
            f"{file}: {problem}, though the schema has vocabulary fields; restore it from a copy"
        ) from error
    return fixed + n_values
