"""The names of all that a log holds; `blocks.py` says what is in each. Neither torch nor pyarrow is imported here."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"


def log_manifest_file(log: Path) -> Path:
    """The file by which a folder is a log's."""
    return log / "log.json"


def blocks_folder(log: Path) -> Path:
    """Where the blocks are."""
    return log / "blocks"


def block_folder(log: Path, block: str) -> Path:
    """Where a block's manifest and shards are."""
    return blocks_folder(log) / block


def block_manifest_file(log: Path, block: str) -> Path:
    """The manifest of a block."""
    return block_folder(log, block) / MANIFEST


def shard_name(index: int) -> str:
    """Name of a block's shard of that position, from 0."""
    return f"shard-{index:05d}.parquet"


def vocabulary_file(log: Path) -> Path:
    """Where the vocabulary is, of a log that has one."""
    return log / "vocabulary.parquet"


def edges_file(log: Path) -> Path:
    """Where the bucket edges of its numeric fields are."""
    return log / "edges.json"
