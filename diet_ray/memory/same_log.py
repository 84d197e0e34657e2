"""Whether a log is the one from which a memory was made. Names of blocks do not tell: another log may have the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diet_ray.errors import ConfigError
from diet_ray.logs.blocks import Log, block_sha256
from diet_ray.memory.layout import MANIFEST, is_stage
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.run_folder import committed_stages
from diet_ray.settings import parse_json


def check_same_log(log: Log, stages: Iterable[StageManifest], *, remedy: str) -> None:
    """Compare a log's schema and blocks with those that committed stages were made from. Blocks after them may have been appended.

    Raises:
        ConfigError: they differ; the message names the first difference and ends with `remedy`.
    """
    for stage in stages:
        key = stage.log_schema.differing_key(log.schema)
        if key:
            raise ConfigError(
                f"log {log.path}: its schema is not the one that was distilled, key {key!r} differs; {remedy}"
            )
        block = log.blocks[stage.index] if stage.index < len(log.blocks) else None
        if block is None or block.name != stage.block or block_sha256(log, block) != stage.block_sha256:
            raise ConfigError(
                f"log {log.path}: its block {stage.index} is not the {stage.block!r} that was distilled; {remedy}"
            )


def check_log_of(folder: Path, log: Log) -> None:
    """Compare a log with a memory: with all stages of a run folder, or with the one of a stage's folder.

    Raises:
        ConfigError: the memory was not made from this log.
        CorruptArtefactError: the manifest of a stage is missing or damaged.
    """
    stages = [parse_json(StageManifest, folder / MANIFEST)] if is_stage(folder) else committed_stages(folder)
    check_same_log(log, stages, remedy="name the log that was distilled")
