"""The names of all files of a run folder. Neither torch nor pyarrow is imported here, so that commands that only read a run start fast.

    RUN/run.json                          RunManifest, written when the run begins
    RUN/events.jsonl                      events and their times (`events.py`); not part of the result
    RUN/summary.json                      the run in figures; not part of the result
    RUN/lock.json                         the process that works in the folder (`diet_ray.storage.lock`); not part of the result
    RUN/archive.json                      the state of the run's archive (`archive_note.py`); not part of the result
    RUN/follow/lock.json                  the process that waits for the next block (`diet_ray.distill.follow`); not part of the result
    RUN/stages/0003/manifest.json         StageManifest, written last inside a temporary folder that one rename makes visible
    RUN/stages/0003/memory-00.arrow       units of one memory shard, Arrow IPC
    RUN/stages/0003/checkpoint-0.safetensors   weights of phi_t along the pass; the last one is phi_t
    RUN/stages/0003/optimiser.safetensors      moments of its optimisers
    RUN/stages/0003/pruned.json                which of these files were removed since (`pruning.py`); absent where none was

An archive has the same names below its URI.
"""

from __future__ import annotations

import re
from pathlib import Path

from diet_ray.errors import ConfigError

RUN = "run.json"
EVENTS = "events.jsonl"
SUMMARY = "summary.json"
STAGES = "stages"
MANIFEST = "manifest.json"
OPTIMISER = "optimiser.safetensors"
PRUNED = "pruned.json"

RECORDS = "ray"
"""Folder in a run folder where Ray Train keeps its own record of the worker group, as long as the group exists."""

_DRAFT = re.compile(r"\.\d{4,}(\.[0-9a-f]{8})?\.tmp")


def run_manifest(run: Path) -> Path:
    """The file that makes a folder a run folder."""
    return run / RUN


def holds_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return run_manifest(folder).is_file()


def check_vacant(run: Path) -> None:
    """Raise ConfigError where a new run cannot begin, because the folder holds one or is a file."""
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run}: is a file, and a run needs a folder; choose another --out")
    if run_manifest(run).exists():
        raise ConfigError(f"{run}: already holds a run; continue it with --resume or choose another folder")


def events_file(run: Path) -> Path:
    """The file of a run's events."""
    return run / EVENTS


def summary_file(run: Path) -> Path:
    """The file of a run's figures."""
    return run / SUMMARY


def stage_name(index: int) -> str:
    """Name of a stage's folder."""
    return f"{index:04d}"


def stages_folder(run: Path) -> Path:
    """The folder of the stages, and of drafts that failed attempts have left."""
    return run / STAGES


def stage_folder(run: Path, index: int) -> Path:
    """The folder of a committed stage."""
    return stages_folder(run) / stage_name(index)


def stage_manifest(run: Path, index: int) -> Path:
    """The manifest of a stage; the stage is committed if and only if this file exists."""
    return stage_folder(run, index) / MANIFEST


def is_stage(folder: Path) -> bool:
    """Whether a folder is that of a committed stage, wherever it was copied to."""
    return (folder / MANIFEST).is_file()


def stage_in(path: Path, index: int) -> Path:
    """The folder of a stage; `path` is that folder itself or the run's folder."""
    return path if is_stage(path) else stage_folder(path, index)


def draft_folder(run: Path, index: int) -> Path:
    """A folder in which to make a stage, with a new name at each call."""
    import secrets  # 40 ms, which `diet-ray --help` need not wait for

    return stages_folder(run) / f".{stage_name(index)}.{secrets.token_hex(4)}.tmp"


def drafts(run: Path, index: int) -> list[Path]:
    """The draft folders of a stage that earlier attempts have left."""
    return sorted(stages_folder(run).glob(f".{stage_name(index)}.*tmp"))


def is_draft(name: str) -> bool:
    """Whether a name in the stages' folder is that of a draft."""
    return _DRAFT.fullmatch(name) is not None


def memory_shard(folder: Path, index: int) -> Path:
    """The file of a memory shard in a stage's folder."""
    return folder / f"memory-{index:02d}.arrow"


def checkpoint(folder: Path, k: int) -> Path:
    """The file of the k-th checkpoint of the reference along its pass, in a stage's folder."""
    return folder / f"checkpoint-{k}.safetensors"


def optimiser(folder: Path) -> Path:
    """The file of the moments of the reference's optimisers, in a stage's folder."""
    return folder / OPTIMISER


def waiting_folder(run: Path) -> Path:
    """The folder whose lock a follower holds while it waits for the log's next block."""
    return run / "follow"


def count_committed(run: Path) -> int:
    """The number of committed stages, by the presence of their manifests alone."""
    done = 0
    while stage_manifest(run, done).is_file():
        done += 1
    return done
