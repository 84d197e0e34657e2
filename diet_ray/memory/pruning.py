"""Pruning: the files of the reference leave old stages, and a record beside the stage's manifest says which and when.

    RUN/stages/0003/pruned.json    Pruned: the files that were removed, and the stage after whose commit

A manifest never changes, because the next stage names its checksum. The record is written first, whole; then the files are removed. So a
reader finds a file or the record that tells why it is gone, and removal that was broken off goes on at the next commit, at a resume or with
`gc --yes`. Later stages go first, because their tables may build on those before them: a stage without a record has all that it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field as Key
from pydantic import model_validator

from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.memory.facts import StageFacts, stage_facts
from diet_ray.memory.layout import PRUNED, STAGES, stage_folder, stage_name
from diet_ray.settings import Settings, parse_json
from diet_ray.storage.entries import FileEntry, check_file
from diet_ray.storage.folder_store import FolderStore


class Pruned(Settings):
    """The files that were removed from a stage."""

    format: Literal[1] = 1
    """Version of the record."""
    after: int = Key(ge=0)
    """Index of the stage after whose commit they were removed."""
    keep: int = Key(ge=1)
    """`checkpoints.keep` at that time."""
    files: list[FileEntry] = Key(min_length=1)
    """The files, as the stage's manifest names them."""

    @model_validator(mode="after")
    def _only_weights(self) -> Pruned:
        # What the record names is removed: it must never be the units or a manifest.
        for entry in self.files:
            if not re.fullmatch(r"(checkpoint-\d+|optimiser)\.safetensors", entry.path):
                raise ValueError(f"names {entry.path!r}, which is no checkpoint or moments")
        return self

    @property
    def names(self) -> set[str]:
        """Names of the files."""
        return {entry.path for entry in self.files}

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(entry.bytes for entry in self.files)

    def refusal(self, folder: Path | str) -> ConfigError:
        """Why something that needs them cannot be done with the stage in `folder`."""
        return ConfigError(
            f"{folder}: its table or moments were pruned after the commit of stage {stage_name(self.after)} (key 'checkpoints.keep': "
            f"{self.keep}); open one of the last {self.keep} stages, or distil again with keep: all"
        )


def pruned(folder: Path) -> Pruned | None:
    """The record of what was removed from a stage; None where nothing was. Raises CorruptArtefactError where it is damaged."""
    path = folder / PRUNED
    return parse_json(Pruned, path) if path.exists() or path.is_symlink() else None


def kept_files(folder: Path, stage: StageFacts) -> list[FileEntry]:
    """The files of a stage that are still to be there. Raises CorruptArtefactError where the record of the others is damaged."""
    record = pruned(folder)
    gone = {(entry.path, entry.sha256) for entry in record.files} if record else set()
    return [*stage.memory, *(entry for entry in stage.weights if (entry.path, entry.sha256) not in gone)]


def stage_file(folder: Path, entry: FileEntry) -> Path:
    """The path of a file of a stage.

    Raises:
        ConfigError: it was pruned.
        CorruptArtefactError: it is missing or not the one that was committed.
    """
    try:
        return check_file(folder, entry)
    except CorruptArtefactError:
        record = pruned(folder)  # looked at only now: a file may be pruned while it is being opened
        if record and entry.path in record.names:
            raise record.refusal(folder) from None
        raise


def prune(run: Path, *, keep: int | Literal["all"], committed: int, start: int = 0) -> int:
    """Remove the files of the reference from the stages before the last `keep` and those on which they build; they may be gone already.

    Args:
        run: the run folder, whose lock is held.
        keep: stages, counted from the last, that stay whole; with `all` nothing is removed.
        committed: number of stages.
        start: the first stage to look at.

    Returns:
        The first stage that is still whole.
    """
    if keep == "all":
        return start
    store, end = FolderStore(run), _first_kept(run, keep=keep, committed=committed, start=start)
    for index in reversed(range(start, end)):
        folder, place = stage_folder(run, index), f"{STAGES}/{stage_name(index)}"
        record = pruned(folder)
        if record is None:
            record = Pruned(after=committed - 1, keep=keep, files=stage_facts(run, index).weights)
            store.write(f"{place}/{PRUNED}", [(record.model_dump_json(indent=2) + "\n").encode()])
            store.sync(place)
        for entry in record.files:
            store.delete(f"{place}/{entry.path}")
        store.sync(place)
    return max(start, end)


def prunable(run: Path, *, keep: int, committed: int) -> list[Path]:
    """The files that `prune` would remove."""
    old = range(_first_kept(run, keep=keep, committed=committed, start=0))
    files = (stage_folder(run, index) / entry.path for index in old for entry in stage_facts(run, index).weights)
    return [file for file in files if file.exists()]


def _first_kept(run: Path, *, keep: int, committed: int, start: int) -> int:
    """The first stage that stays whole where those before `start` need not be looked at; 0 or less where all do."""
    end = committed - keep
    if end <= start:
        return end
    whole = stage_facts(run, end).whole  # the stages on which the first kept table builds stay too
    return end if whole is None else whole


def left_behind(folder: Path) -> list[Path]:
    """Files of a stage whose removal was broken off."""
    try:
        record = pruned(folder)
    except CorruptArtefactError:
        return []  # left for a person to decide
    return [folder / name for name in sorted(record.names) if (folder / name).exists()] if record else []


def bytes_of_stages(stages: Iterable[tuple[Path, StageFacts]]) -> tuple[int, int]:
    """Bytes that some stages keep, and bytes that were pruned from them, each stage given by its folder and its manifest."""
    kept = gone = 0
    for folder, stage in stages:
        all_bytes = sum(entry.bytes for entry in stage.files)
        here = sum(entry.bytes for entry in kept_files(folder, stage))
        kept, gone = kept + here, gone + all_bytes - here
    return kept, gone
