"""What can be mistaken in the arguments of a sweep or a race, told from small files alone: nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from diet_ray.errors import ConfigError, DietError
from diet_ray.logs.blocks import BlockManifest, Log, open_log
from diet_ray.memory.facts import StageFacts
from diet_ray.memory.layout import MANIFEST, count_committed, stage_in
from diet_ray.settings import parse_json
from diet_ray.storage.places import is_uri

TRIALS = "trials"
"""The folder of the trials, in that of a sweep or of a rung."""


def rung_folder(out: Path, rung: int) -> Path:
    """The folder of a rung in that of a race, from 1 on."""
    return out / f"rung-{rung}"


def check_out(out: Path, command: str, *, restore: bool) -> None:
    """Raise ConfigError where the folder of a result is a file, or holds the work of such a command that is not to be continued."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, and a {command} needs a folder; choose another --out")
    first = {"sweep": out / TRIALS, "race": rung_folder(out, 1)}[command]
    if first.is_dir() and not restore:
        raise ConfigError(f"{out}: holds a {command}; continue it with --restore, or choose another folder")


def check_block(memory: str, log: Path | None, name: str | None) -> None:
    """Check the block to judge on, as `block_to_judge_on` does. What is damaged is left to those who read the whole memory.

    Args:
        memory: a run folder or the folder of a stage; a URI passes, as its files are not here yet.
        log: the ingested log; by default the one that was distilled.
        name: of the block; by default the one after the memory's last.

    Raises:
        ConfigError: there is no such block, or it is not later than the memory.
    """
    if is_uri(memory):
        return
    last = stage_in(Path(memory), count_committed(Path(memory)) - 1)
    try:
        stage = parse_json(StageFacts, last / MANIFEST)
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
