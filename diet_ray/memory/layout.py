"""The names of all that a run folder holds. Neither torch nor pyarrow is imported here, so that whoever only looks at a run starts at once.

    RUN/run.json                          RunManifest, written when the run begins
    RUN/events.jsonl                      what happened when (`events.py`); not part of the result
    RUN/summary.json                      the run in figures; not part of the result
    RUN/lock.json                         who works in the folder just now (`diet_ray.storage.lock`); not part of the result
    RUN/archive.json                      how far its archive is (`archive_note.py`); not part of the result
    RUN/follow/lock.json                  who waits for the log's next block (`diet_ray.distill.follow`); not part of the result
    RUN/stages/0003/manifest.json         StageManifest, written last inside a temporary folder that one rename makes visible
    RUN/stages/0003/memory-00.arrow       units of one memory shard, Arrow IPC
    RUN/stages/0003/checkpoint-0.safetensors   weights of phi_t along the pass; the last one is phi_t
    RUN/stages/0003/optimiser.safetensors      moments of its optimisers

An archive has the same names below its URI.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

RUN = "run.json"
EVENTS = "events.jsonl"
SUMMARY = "summary.json"
STAGES = "stages"
MANIFEST = "manifest.json"
OPTIMISER = "optimiser.safetensors"

RECORDS = "ray"
"""Folder in a run folder where Ray Train keeps its own record of the worker group, for as long as it lives."""

_DRAFT = re.compile(r"\.\d{4,}(\.[0-9a-f]{8})?\.tmp")


def run_manifest(run: Path) -> Path:
    """The file by which a folder is a run's."""
    return run / RUN


def holds_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return run_manifest(folder).is_file()


def events_file(run: Path) -> Path:
    """Where a run's events are."""
    return run / EVENTS


def summary_file(run: Path) -> Path:
    """Where a run's figures are."""
    return run / SUMMARY


def stage_name(index: int) -> str:
    """Name of a stage's folder."""
    return f"{index:04d}"


def stages_folder(run: Path) -> Path:
    """Where the stages are, with what attempts at them have left."""
    return run / STAGES


def stage_folder(run: Path, index: int) -> Path:
    """Where a committed stage lies."""
    return stages_folder(run) / stage_name(index)


def stage_manifest(run: Path, index: int) -> Path:
    """Its manifest; the stage is committed if and only if that is there."""
    return stage_folder(run, index) / MANIFEST


def is_stage(folder: Path) -> bool:
    """Whether a folder is that of a committed stage, wherever it was copied to."""
    return (folder / MANIFEST).is_file()


def stage_in(path: Path, index: int) -> Path:
    """The folder of a stage that is given as itself or by its run."""
    return path if is_stage(path) else stage_folder(path, index)


def draft_folder(run: Path, index: int) -> Path:
    """A folder in which to make a stage, named anew at each call."""
    return stages_folder(run) / f".{stage_name(index)}.{secrets.token_hex(4)}.tmp"


def drafts(run: Path, index: int) -> list[Path]:
    """What attempts at a stage have left."""
    return sorted(stages_folder(run).glob(f".{stage_name(index)}.*tmp"))


def is_draft(name: str) -> bool:
    """Whether a name among a run's stages is that of an attempt at one."""
    return _DRAFT.fullmatch(name) is not None


def memory_shard(folder: Path, index: int) -> Path:
    """Where a stage keeps a shard of the memory."""
    return folder / f"memory-{index:02d}.arrow"


def checkpoint(folder: Path, k: int) -> Path:
    """Where a stage keeps the k-th checkpoint of the reference along its pass."""
    return folder / f"checkpoint-{k}.safetensors"


def optimiser(folder: Path) -> Path:
    """Where a stage keeps the moments of the reference's optimisers."""
    return folder / OPTIMISER


def waiting_folder(run: Path) -> Path:
    """The folder whose lock a follower holds while it waits for the log's next block."""
    return run / "follow"


def count_committed(run: Path) -> int:
    """How many stages are committed, by the presence of their manifests alone."""
    done = 0
    while stage_manifest(run, done).is_file():
        done += 1
    return done
