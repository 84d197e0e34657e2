"""The manifests of a log and of its blocks, and the contradictions in and between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field as Key
from pydantic import SerializerFunctionWrapHandler, model_serializer

from diet_ray.logs.id_chain import IdChecksums, chain_problems, schema_checksum
from diet_ray.logs.notes import Note
from diet_ray.schema import MAX_IDS, Schema
from diet_ray.settings import Settings
from diet_ray.storage.entries import Count

FORMAT: Final = 1
"""Version of the log's layout; a reader refuses any other."""

Time = Annotated[int, Key(ge=-(2**63), lt=2**63)]
"""ms since the epoch."""

Name = Annotated[str, Key(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""Name of a file or folder. It cannot lead out of the log, even in a damaged manifest."""


class LogShard(Settings):
    """One Parquet file of a block: the unit of scheduling, retry and quarantine."""

    path: Name
    """File name inside the block's folder."""
    rows: int = Key(ge=1, lt=2**63)
    """Number of rows."""
    bytes: int = Key(ge=1, lt=2**63)
    """Size of the file."""
    sha256: str
    """Checksum of the file, hexadecimal."""
    positives: list[Count]
    """Rows with label 1, per task."""


class BlockManifest(Settings):
    """One block of the log."""

    name: Name
    """Name of the block, such as `2022-04-25`; names sort in time order."""
    index: int = Key(ge=0)
    """Position in the log, from 0."""
    rows: int = Key(ge=1, lt=2**63)
    """Number of rows over all shards."""
    n_ids: int = Key(ge=1, le=MAX_IDS)
    """Size of the id space after this block; ids of this block are below it. It never shrinks from block to block."""
    time_min: Time
    """Time of the first row, ms since the epoch."""
    time_max: Time
    """Time of the last row, ms since the epoch."""
    positives: list[Count]
    """Rows with label 1, per task."""
    quarantined: Count = 0
    """Rows left out because they broke a rule, with a time from the block's first row up to the next block's."""
    shards: list[LogShard] = Key(min_length=1)
    """The files, in time order."""
    id_checksums: IdChecksums | None = None
    """Checksums of what has decided the ids; None in blocks of earlier releases."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where there are none: the file of a block of an earlier release is what it always was.
        return {name: value for name, value in write(self).items() if name != "id_checksums" or value is not None}


class FieldCount(Settings):
    """How many rows of a log have no value of a field, or none with an id of its own."""

    field: str
    """Name of the field."""
    missing: int = Key(ge=0)
    """Rows without a value."""
    unknown: int = Key(ge=0)
    """Rows with a value that is too rare for an id of its own (`min_count`)."""


def add_counts(counts: Iterable[FieldCount]) -> list[FieldCount]:
    """The sums by field, in the order of first occurrences."""
    sums: dict[str, FieldCount] = {}
    for count in counts:
        before = sums.get(count.field, FieldCount(field=count.field, missing=0, unknown=0))
        sums[count.field] = FieldCount(
            field=count.field, missing=before.missing + count.missing, unknown=before.unknown + count.unknown
        )
    return list(sums.values())


class LogManifest(Settings):
    """The whole log: its schema and the blocks in time order."""

    format: Literal[1] = FORMAT
    """Version of the layout."""
    log_schema: Schema
    """The schema by which the log was ingested."""
    blocks: list[Name] = Key(min_length=1)
    """Names of the blocks, in time order."""
    notes: list[Note] = Key(default_factory=list)
    """What the ingest and later appends read otherwise than it stands in the files, or passed over."""
    counts: list[FieldCount] = Key(default_factory=list)
    """Of all rows, by field; empty where the log was made otherwise than by an ingest, or by an earlier release."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where there is nothing to say: the file of a log without them is what it always was.
        return {name: value for name, value in write(self).items() if name not in ("notes", "counts") or value}


def contradictions(
    names: list[str], blocks: Sequence[BlockManifest | None], schema: Schema
) -> Iterator[tuple[str, str]]:
    """Contradictions in and between a log's manifests, such as blocks out of time order: a model must never see a block before an
    earlier one.

    Args:
        names: the blocks' names in the log's manifest.
        blocks: their manifests; None for one that cannot be read.
        schema: the log's.

    Yields:
        The name of the block at fault, and its problem.
    """
    before: BlockManifest | None = None
    checksum, fixed = schema_checksum(schema), int(schema.first_static_id[-1])
    for index, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if block is None:
            continue
        if block.name != name or block.index != index:
            yield name, f"is block {block.index} {block.name!r}, log.json puts {name!r} at position {index}"
        if before and block.time_min <= before.time_max:
            yield name, f"begins before block {before.name!r} ends: the blocks are out of time order"
        if before and block.n_ids < before.n_ids:
            yield name, f"has fewer ids than block {before.name!r} before it"
        for problem in _own_contradictions(block, schema, fixed):
            yield name, problem
        if block.id_checksums:
            for problem in chain_problems(block.id_checksums, before.id_checksums if before else None, checksum):
                yield name, problem
        elif before and before.id_checksums:
            yield name, "has no checksums of what decides its ids, though the block before it has"
        before = block


def _own_contradictions(block: BlockManifest, schema: Schema, fixed: int) -> Iterator[str]:
    """The contradictions in the manifest of one block; `fixed` is the number of ids that the schema itself has."""
    if block.time_min > block.time_max or sum(shard.rows for shard in block.shards) != block.rows:
        yield "its times or its row counts contradict each other"
    if len({shard.path for shard in block.shards}) < len(block.shards):
        yield "names a shard twice"
    if block.n_ids < fixed:
        yield f"has {block.n_ids} ids, the fixed ones of the schema alone are {fixed}"
    tasks = {len(shard.positives) for shard in block.shards}
    totals = [sum(parts) for parts in zip(*(shard.positives for shard in block.shards), strict=False)]
    if tasks != {schema.n_tasks} or totals != block.positives:
        yield "its positives are not the sum of its shards', one for each task"


def too_many_ids(block: BlockManifest, most: int) -> str:
    """The problem of a block that claims more ids than the log can have, for which a table would be allocated."""
    return f"says {block.n_ids} ids, the schema and the vocabulary have {most}"
