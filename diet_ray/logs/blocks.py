"""The canonical log on disk: blocks of Parquet shards, each listed with its checksum in a manifest.

    LOG/log.json                      LogManifest, written last: a folder without it is not a log
    LOG/quarantine.parquet            file, row, column, reason of every row that was left out, if any (`ingestion/quarantine.py`)
    LOG/vocabulary.parquet            field, value, id, block of every vocabulary value (`ingestion/vocabulary.py`)
    LOG/blocks/NAME/manifest.json     BlockManifest
    LOG/blocks/NAME/shard-00000.parquet

A shard's columns: `row_id` int64, unique in the log and increasing with time within a block; `time` int64, ms since the epoch; `user`
int64, a hash; `ids` fixed_size_list<int32>[S], ids in one space shared by all fields (`Schema.first_static_id`); `labels`
fixed_size_list<uint8>[T].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.id_chain import most_ids
from diet_ray.logs.layout import block_folder, block_manifest_file, log_manifest_file
from diet_ray.logs.manifests import BlockManifest as BlockManifest
from diet_ray.logs.manifests import FieldCount as FieldCount
from diet_ray.logs.manifests import LogManifest as LogManifest
from diet_ray.logs.manifests import LogShard as LogShard
from diet_ray.logs.manifests import add_counts as add_counts
from diet_ray.logs.manifests import contradictions, too_many_ids
from diet_ray.logs.notes import Note
from diet_ray.logs.row_checks import Last, Slots, last_of, row_problems
from diet_ray.logs.rows import AGAIN
from diet_ray.logs.rows import Rows as Rows
from diet_ray.logs.rows import read_shard as read_shard
from diet_ray.logs.rows import row_bytes as row_bytes
from diet_ray.logs.rows import write_shard as write_shard
from diet_ray.schema import Schema
from diet_ray.settings import parse_json, parse_json_with_checksum


@dataclass(frozen=True)
class Log:
    """An ingested log, opened for reading."""

    path: Path
    schema: Schema
    blocks: list[BlockManifest]
    notes: list[Note] = field(default_factory=list)
    """What its ingest and later appends read otherwise than it stands in the files, or passed over."""
    counts: list[FieldCount] = field(default_factory=list)
    """Of all rows, by field; empty where they were not counted."""
    checksums: list[str] = field(default_factory=list)
    """SHA-256 of the manifest of each block, of the bytes that were read when the log was opened."""

    def first(self, n: int) -> Log:
        """The log as it was when it had no more than its first n blocks."""
        return replace(self, blocks=self.blocks[:n], checksums=self.checksums[:n])

    def shard_path(self, block: BlockManifest, shard: LogShard) -> Path:
        """The path of a shard's file."""
        return block_folder(self.path, block.name) / shard.path

    @cached_property
    def slots(self) -> Slots:
        """The ids that rows may hold."""
        return Slots.of(self.schema)

    def read_block(self, block: BlockManifest) -> Rows:
        """All rows of a block, in time order; for blocks that fit in memory."""
        return Rows.concat(list(self.iter_block(block)))

    def iter_block(self, block: BlockManifest) -> Iterator[Rows]:
        """The rows of a block, shard by shard, in time order."""
        before: Last | None = None
        for shard in block.shards:
            rows = self.read_shard(block, shard, before)
            before = last_of(rows)
            yield rows

    def read_shard(self, block: BlockManifest, shard: LogShard, before: Last | None = None) -> Rows:
        """The rows of a shard, checked against the manifest of its block.

        Args:
            block: the block.
            shard: one of its shards.
            before: the last row of the shard before, which the first row must follow; None where it is not known.

        Raises:
            CorruptArtefactError: the file is missing or is not the one that the manifest names, or its rows contradict the manifest.
        """
        path = self.shard_path(block, shard)
        rows = read_shard(path, shard, self.schema)
        for problem in row_problems(rows, self.slots, block, shard, before):
            raise CorruptArtefactError(f"{path}, column {problem.column!r}: {problem.what}; {AGAIN}")
        return rows


def open_log(path: str | Path) -> Log:
    """Open an ingested log.

    Raises:
        CorruptArtefactError: there is no complete log, one of its manifests is damaged, its blocks contradict each other, or they claim
            more ids than the log can have.
        VersionError: it was written in another format version.
    """
    path = Path(path)
    if not path.exists():
        raise CorruptArtefactError(f"{path}: there is no log; correct the path, or make the log by diet-ray ingest")
    manifest = parse_json(LogManifest, log_manifest_file(path))
    for name in manifest.blocks:
        if block_folder(path, name).is_symlink():
            raise CorruptArtefactError(f"{block_folder(path, name)}: a link; put the block itself there")
    read = [parse_json_with_checksum(BlockManifest, block_manifest_file(path, name)) for name in manifest.blocks]
    blocks = [block for block, _ in read]
    for name, problem in contradictions(manifest.blocks, blocks, manifest.log_schema):
        raise CorruptArtefactError(f"{block_manifest_file(path, name)}: {problem}; {AGAIN}")
    most = most_ids(path, manifest.log_schema)
    for block in blocks:
        if block.n_ids > most:
            raise CorruptArtefactError(f"{block_manifest_file(path, block.name)}: {too_many_ids(block, most)}; {AGAIN}")
    return Log(path, manifest.log_schema, blocks, manifest.notes, manifest.counts, [checksum for _, checksum in read])


def block_sha256(log: Log, block: BlockManifest) -> str:
    """Checksum of a block's manifest as it was when the log was opened. It covers all rows of the block, because the manifest holds their
    checksums, and every reading of rows is checked against it.
    """
    return log.checksums[block.index]
