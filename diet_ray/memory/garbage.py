"""Leftovers: files that an interrupted run has left in its folder or its archive, and that nothing will ever read.

Of a committed stage, only files are removed whose pruning was broken off (`pruning.py`). A file that diet_ray does not make is not touched
either: people keep notes in run folders. In an archive, everything below `stages/` that no manifest names can be removed.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diet_ray.errors import ConfigError, CorruptArtefactError, VersionError
from diet_ray.memory.archive import Archive
from diet_ray.memory.facts import stage_facts
from diet_ray.memory.layout import (
    RECORDS,
    STAGES,
    count_committed,
    holds_run,
    is_draft,
    stage_folder,
    stage_name,
    stages_folder,
    waiting_folder,
)
from diet_ray.memory.pruning import bytes_of_stages, left_behind, prunable, prune
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import live_lock, locked, refusal
from diet_ray.storage.remote_lock import live_archive_lock

_IN_RUN: list[tuple[str, str]] = [
    (RECORDS, "records of Ray Train"),
    (r"\.[a-z]+\.json\.tmp", "half-written manifest"),
    (r"\.lock\.[0-9a-f]{16}\.(claim|tmp|probe)", "left by a process that was taking the lock"),
]
"""Names in a run folder that only an interrupted process leaves, each with a description."""

OLD = "reference of an old stage"
PRUNING = "pruned, removal broken off"
DRAFT, NO_STAGE, UNNAMED = "stage that was never committed", "no stage of the run", "no manifest names it"
WAITED = "lock of a follower that was killed"


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can be removed."""

    path: Path
    """Its path; in an archive, relative to the archive's URI."""
    what: str
    """Its description."""
    bytes: int
    """Its size, without the targets of links in it."""


def garbage(run: Path, *, keep: int | None = None) -> list[Leftover]:
    """The leftovers in a run folder, sorted by path.

    Args:
        run: the run folder.
        keep: also list the files of the reference of all stages but the last `keep`, which nothing needs that goes on from the last.

    Raises:
        ConfigError: `run` holds no run.
        LockedError: a process works in it: what looks left over may be in use.
    """
    _check(run)
    held = live_lock(run)
    if held is not None:
        raise refusal(held)
    return [*_list(run), *_old(run, keep)]


def collect(
    run: Path, on_removed: Callable[[Leftover], None] = lambda leftover: None, *, keep: int | None = None
) -> list[Leftover]:
    """Remove what `garbage` lists, under the run's lock, and return it. A link is removed, not what it leads to.

    Raises:
        ConfigError: `run` holds no run, or something cannot be removed.
        CorruptArtefactError: `stages` has become a link meanwhile.
        LockedError: a process works in it.
    """
    _check(run)
    with locked(run):
        leftovers = _list(run)
        for leftover in leftovers:
            try:
                FolderStore(run).delete(leftover.path.relative_to(run).as_posix())
            except OSError as error:
                raise ConfigError(
                    f"{error.filename or leftover.path}: cannot be removed ({error.strerror}); change its permissions"
                ) from error
            on_removed(leftover)
        old = _old(run, keep)
        if keep is not None:
            prune(run, keep=keep, committed=count_committed(run))
    return [*leftovers, *old]


def stages_bytes(run: Path) -> tuple[int, int] | None:
    """Bytes that the committed stages keep, and bytes that were pruned from them; None where a manifest is damaged."""
    try:
        return bytes_of_stages(
            (stage_folder(run, index), stage_facts(run, index)) for index in range(count_committed(run))
        )
    except (CorruptArtefactError, VersionError):
        return None


def archive_garbage(archive: Archive) -> list[Leftover]:
    """The leftovers in an archive, sorted by name: stages without a manifest, and files that no manifest names.

    Raises:
        ConfigError: the archive holds no run, or cannot be reached.
        LockedError: a process works with it: what looks left over may be in transfer.
    """
    archive.require_run()
    held = live_archive_lock(archive.remote)
    if held is not None:
        raise refusal(held)
    return unnamed(archive)


def collect_archive(archive: Archive) -> list[Leftover]:
    """Remove the leftovers that `archive_garbage` lists, under the archive's lock, and return them. Raises the same errors."""
    archive.require_run()
    with archive.locked():
        leftovers = unnamed(archive)
        for leftover in leftovers:
            archive.remote.delete(leftover.path.as_posix())
    return leftovers


def unnamed(archive: Archive) -> list[Leftover]:
    """The leftovers in an archive, whether or not a process works with it."""
    leftovers = [
        Leftover(Path(name), description, size)
        for name, size in archive.remote.sizes().items()
        if (description := _in_run(name))
    ]
    parts = defaultdict[str, dict[str, int]](dict)
    for name, size in archive.remote.sizes(STAGES, deep=True).items():
        parts[name.partition("/")[0]][name] = size
    for part, inside in sorted(parts.items()):
        number = int(part) if re.fullmatch(r"[0-9]{4,}", part) else -1
        # The manifest is asked for by its name, because a store may list it late. A damaged stage is left for a person to decide.
        named = archive.named(number) if part == stage_name(max(number, 0)) else set()
        if named == set():
            leftovers.append(Leftover(Path(STAGES, part), DRAFT if number >= 0 else NO_STAGE, sum(inside.values())))
        elif named is not None:
            strays = {name: size for name, size in inside.items() if name.removeprefix(f"{part}/") not in named}
            leftovers += [Leftover(Path(STAGES, name), UNNAMED, size) for name, size in strays.items()]
    return leftovers


def _check(run: Path) -> None:
    if not holds_run(run):
        raise ConfigError(f"{run}: holds no run; name the folder that holds run.json")


def _list(run: Path) -> list[Leftover]:
    leftovers = []
    for path in sorted(run.iterdir()):
        description = WAITED if path == waiting_folder(run) and _forsaken(path) else _in_run(path.name)
        if description:
            leftovers.append(Leftover(path, description, _size(path)))
    stages = stages_folder(run)
    if stages.is_dir() and not stages.is_symlink():
        leftovers += [
            Leftover(path, _what(path), _size(path)) for path in sorted(stages.iterdir()) if not _committed(path)
        ]
        leftovers += [
            Leftover(file, PRUNING, file.lstat().st_size)
            for path in sorted(stages.iterdir())
            if _committed(path)
            for file in left_behind(path)
        ]
    return leftovers


def _old(run: Path, keep: int | None) -> list[Leftover]:
    if keep is None:
        return []
    files = prunable(run, keep=keep, committed=count_committed(run))
    return [Leftover(file, OLD, file.lstat().st_size) for file in files]


def _in_run(name: str) -> str | None:
    return next((description for pattern, description in _IN_RUN if re.fullmatch(pattern, name)), None)


def _forsaken(path: Path) -> bool:
    """Whether a follower's folder holds only the lock of a process that is gone."""
    if path.is_symlink() or not path.is_dir() or live_lock(path):
        return False
    return all(re.fullmatch(r"lock\.json|\.lock\..*", inside.name) for inside in path.iterdir())


def _committed(path: Path) -> bool:
    """Whether an entry of the stages' folder is a stage. A damaged stage counts too: it is left for a person to decide."""
    number = int(path.name) if path.name.isascii() and path.name.isdecimal() else -1
    named = number >= 0 and path == stage_folder(path.parents[1], number)
    return named and path.is_dir() and not path.is_symlink()


def _what(path: Path) -> str:
    return DRAFT if is_draft(path.name) else NO_STAGE


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
