"""What can be mistaken in the arguments of a sweep or a race, told from small files alone: nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from diet_ray.errors import ConfigError, DietError
from diet_ray.logs.blocks import BlockManifest, Log, open_log
from diet_ray.memory.facts import StageFacts
from diet_ray.memory.layout import MANIFEST, count_committed, is_stage, stage_folder
from diet_ray.settings import parse_json

FIRST = {"sweep": "trials", "race": "rung-1"}
"""Per command: the folder that its work makes first in the folder of the result."""


def check_out(out: Path, command: str, *, restore: bool) -> None:
    """Raise ConfigError where the folder of a result is a file, or holds the work of such a command that is not to be continued."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, and a {command} needs a folder; choose another --out")
    if (out / FIRST[command]).is_dir() and not restore:
        raise ConfigError(f"{out}: holds a {command}; continue it with --restore, or choose another folder")


def check_block(memory: Path, log: Path | None, name: str | None) -> None:
    """Check the block to judge on, as `block_to_judge_on` does. What is damaged is left to those who read the whole memory.

    Args:
        memory: a run folder or the folder of a stage.
        log: the ingested log; by default the one that was distilled.
        name: of the block; by default the one after the memory's last.

    Raises:
        ConfigError: there is no such block, or it is not later than the memory.
    """
    done = count_committed(memory)
    if not is_stage(memory) and not done:
        return
    try:
        stage = parse_json(StageFacts, (memory if is_stage(memory) else stage_folder(memory, done - 1)) / MANIFEST)
        opened = open_log(log or Path(stage.config["log"]))
    except (DietError, KeyError, TypeError):
        return
    block_to_judge_on(stage.block, opened, name)


def block_to_judge_on(last: str, log: Log, name: str | None) -> BlockManifest:
    """The block of that name, by default the one after the memory's `last`. Raises ConfigError where it is not later than the memory."""
    names = [block.name for block in log.blocks]
    if last not in names:
        raise ConfigError(
            f"log {log.path}: has no block {last!r}, the last one that the memory has seen; name the log that was distilled"
        )
    later = log.blocks[names.index(last) + 1 :]
    if name is None:
        if not later:
            raise ConfigError(
                f"log {log.path}: no block after {last!r} to judge on; distil fewer blocks or ingest the next one"
            )
        return later[0]
    for block in later:
        if block.name == name:
            return block
    raise ConfigError(
        f"block {name!r}: {'the memory has learned from it' if name in names else 'the log has no such block'}; "
        f"blocks to judge on: {', '.join(block.name for block in later) or 'none'}"
    )
