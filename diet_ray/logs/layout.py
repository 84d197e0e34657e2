"""The names of all files of a log; `blocks.py` describes their contents. Neither torch nor pyarrow is imported here."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"


def log_manifest_file(log: Path) -> Path:
    """The file that makes a folder a log."""
    return log / "log.json"


def blocks_folder(log: Path) -> Path:
    """The folder of the blocks."""
    return log / "blocks"


def block_folder(log: Path, block: str) -> Path:
    """The folder of a block's manifest and shards."""
    return blocks_folder(log) / block


def block_manifest_file(log: Path, block: str) -> Path:
    """The manifest of a block."""
    return block_folder(log, block) / MANIFEST


def shard_name(index: int) -> str:
    """Name of the shard at position `index` of a block, from 0."""
    return f"shard-{index:05d}.parquet"


def vocabulary_file(log: Path) -> Path:
    """The file of a log's vocabulary."""
    return log / "vocabulary.parquet"


def edges_file(log: Path) -> Path:
    """The file of the bucket edges of a log's numeric fields."""
    return log / "edges.json"
