"""A durable copy of a run's committed stages in an object store, laid out as the run folder is.

    URI/run.json                       sent first
    URI/lock.json                      the driver that works with the archive (`diet_ray.storage.remote_lock`)
    URI/stages/0003/memory-00.arrow    the files of a stage, in any order
    URI/stages/0003/manifest.json      sent last: a stage without it does not exist
    URI/stages/0003/pruned.json        sent when files of the stage were pruned from the run folder; then they are removed here too

Run folder and archive hold the same bytes, so any tool that copies objects can restore a run.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError, CorruptArtefactError, DietError, UnreachableError, VersionError, users_error
from diet_ray.links import read_no_link
from diet_ray.memory.archive_note import ArchiveNote, write_note
from diet_ray.memory.layout import (
    MANIFEST,
    PRUNED,
    RUN,
    STAGES,
    count_committed,
    run_manifest,
    stage_folder,
    stage_manifest,
    stage_name,
    stages_folder,
)
from diet_ray.memory.manifests import RunManifest, StageManifest
from diet_ray.memory.pruning import Pruned, kept_files, pruned
from diet_ray.memory.run_folder import StageDraft, check_begun, committed_stages
from diet_ray.settings import parse_json, parse_json_bytes, write_whole
from diet_ray.storage.entries import OTHER_CONTENT, FileEntry, size_problem
from diet_ray.storage.hashes import sha256
from diet_ray.storage.lock import LockOwner, locked
from diet_ray.storage.remote import Interrupted, Remote
from diet_ray.storage.remote_lock import archive_locked, check_held

POLL_SECONDS = 2.0
"""Seconds between two checks for a newly committed stage."""

MOST_SECONDS = 60.0
"""Longest pause, in seconds, before the next attempt at an unreachable archive."""

_RESTORE = "restore it from a copy, or send it again from a run folder that has it (distill --resume)"

_COPY = "restore it from a copy"

_ANOTHER = "holds another run; choose another archive, or go on with the run folder and the config that belong to it"


class Archive:
    """The archive at a URI. A process that writes to it must hold its lock (`locked`)."""

    def __init__(self, uri: str) -> None:
        self.remote = Remote(uri)
        self._owner: LockOwner | None = None
        self._whole = 0
        """Number of stages that are known to be whole in the archive."""
        self._pruned = 0
        """Number of stages from which the archive has removed what the run folder has pruned."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the archive's lock while the body runs; see `archive_locked`."""
        with archive_locked(self.remote) as self._owner:
            yield

    def stages(self) -> list[int]:
        """Indices of the archived stages, in order."""
        names = [re.fullmatch(r"(\d{4,})/manifest\.json", name) for name in self.remote.sizes(STAGES, deep=True)]
        listed = {int(name[1]) for name in names if name and name[1] == stage_name(int(name[1]))}
        # A store may list late: a stage that is not listed, between others or behind the last, is asked for by its name.
        late = {index for index in range(max(listed, default=0)) if index not in listed and self._has(index)}
        index = max(listed, default=-1) + 1
        while self._has(index):
            late.add(index)
            index += 1
        return sorted(listed | late)

    def begun(self) -> bool:
        """Whether the archive holds a run, or parts of one."""
        return self.remote.size(RUN) is not None or bool(self.stages())

    def require_run(self) -> None:
        """Raise ConfigError where the archive holds no run."""
        if not self.begun():
            raise ConfigError(f"{self.remote.uri}: holds no run; name the place that holds run.json")

    def push(self, run: Path) -> int:
        """Send the committed stages of a run folder that the archive lacks; returns the number of stages that it then has.

        May be repeated at any time. Files that an earlier push has sent are not sent again, unless one is missing or has another size now.
        A manifest is never replaced by another one. What was pruned from the run folder is removed from the archive.

        Raises:
            ConfigError: the archive holds another run, or cannot be reached.
            CorruptArtefactError: a file of the run folder is not the one that was committed.
            LockedError: the archive's lock was taken away.
        """
        n = count_committed(run)
        if self._whole == 0:
            self._send_last(RUN, run_manifest(run))
            self._compare_last(run, n)
            listed = self.remote.sizes(STAGES, deep=True)
        else:  # a run pushes after each of its stages: what this process has sent or compared is not compared again
            listed = {
                f"{stage_name(index)}/{name}": size
                for index in range(self._whole, n)
                for name, size in self.remote.sizes(stage_place(index)).items()
            }
        for index in range(self._whole, n):
            self._send_stage(run, index, listed)
            self._whole = index + 1
        self._prune(run, n)
        return n

    def pull(self, run: Path, config: StreamConfig, *, allow_different_bytes: bool = False) -> int:
        """Fetch the stages that come after those of a run folder, which may be empty; returns their number.

        Each is fetched to a temporary folder, compared with its manifest, and made visible by one rename.

        Raises:
            ConfigError: the archive holds another run or a run of another config, or cannot be reached.
            CorruptArtefactError: a stage of the archive is damaged, or missing before others.
            VersionError: the run was begun under other package versions.
        """
        begun = self.remote.read(RUN)
        if begun is None:
            if self.stages():
                raise CorruptArtefactError(
                    f"{self.remote.at(RUN)}: missing, though the archive holds stages; {_RESTORE}"
                )
            return 0
        if run_manifest(run).exists():
            if read_no_link(run_manifest(run)) != begun:
                raise ConfigError(f"{self.remote.at(RUN)}: {_ANOTHER}")
        else:
            where = self.remote.at(RUN)
            check_begun(
                parse_json_bytes(RunManifest, begun, where=where),
                config,
                where,
                allow_different_bytes=allow_different_bytes,
            )
            stages_folder(run).mkdir(parents=True, exist_ok=True)
            write_whole(run_manifest(run), begun)
        stages = committed_stages(run)
        if stages:
            last = manifest_name(len(stages) - 1)
            manifest = self.remote.read(last)
            if manifest is not None and manifest != read_no_link(run / last):
                raise ConfigError(f"{self.remote.at(last)}: {_ANOTHER}")
        later = [index for index in self.stages() if index >= len(stages)]
        for index, there in enumerate(later, start=len(stages)):
            if index != there:
                raise CorruptArtefactError(
                    f"{self.remote.at(stage_place(index))}: missing, though {stage_name(there)} after it is there; {_RESTORE}"
                )
        for index in later:
            self._fetch_stage(run, index)
        return len(later)

    def fetch(self, folder: Path) -> None:
        """Download all files that the manifests name into a new run folder, damaged or not, so that they can be verified."""
        stages_folder(folder).mkdir()
        self.remote.fetch(RUN, run_manifest(folder))
        for index in self.stages():
            target = stage_folder(folder, index)
            target.mkdir()
            self.remote.fetch(manifest_name(index), target / MANIFEST)
            with suppress(CorruptArtefactError, VersionError):
                self.remote.fetch(stage_place(index, PRUNED), target / PRUNED)
                for entry in kept_files(target, parse_json(StageManifest, target / MANIFEST)):
                    self.remote.fetch(stage_place(index, entry.path), target / entry.path)

    def named(self, index: int) -> set[str] | None:
        """Names of the files of a stage, with its manifest's; none without a manifest; None where the manifest cannot be read.

        Files that were pruned are not among them.
        """
        content = self.remote.read(manifest_name(index))
        if content is None:
            return set()
        try:
            stage, record = StageManifest.model_validate_json(content), self.pruned(index)
        except (ValidationError, CorruptArtefactError, VersionError):
            return None
        weights = {entry.path for entry in stage.weights} - (record.names if record else set())
        return {MANIFEST, PRUNED, *(entry.path for entry in stage.memory), *weights}

    def pruned(self, index: int) -> Pruned | None:
        """The record of what was removed from a stage; None where nothing was. Raises CorruptArtefactError where it is damaged."""
        name = stage_place(index, PRUNED)
        content = self.remote.read(name)
        return None if content is None else parse_json_bytes(Pruned, content, where=self.remote.at(name))

    def fetch_file(
        self, index: int, entry: FileEntry, folder: Path, on_bytes: Callable[[int], None] = lambda n: None
    ) -> None:
        """Download a file of a stage into a folder.

        Raises:
            ConfigError: it was pruned.
            CorruptArtefactError: it is not the one that was committed.
        """
        name = stage_place(index, entry.path)
        size = self.remote.size(name)
        record = self.pruned(index) if size is None else None
        if record and entry.path in record.names:
            raise record.refusal(self.remote.at(stage_place(index)))
        problem = size_problem(size, entry.bytes)
        if not problem and self.remote.fetch(name, folder / entry.path, on_bytes) != entry.sha256:
            problem = OTHER_CONTENT
        if problem:
            raise CorruptArtefactError(f"{self.remote.at(name)}: {problem}; {_COPY}")

    @contextmanager
    def named_as_there(self, folder: Path, place: str) -> Iterator[None]:
        """Make errors about a folder name its place in the archive instead, and remove the folder after such an error."""
        try:
            yield
        except (CorruptArtefactError, VersionError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise type(error)(str(error).replace(str(folder), self.remote.at(place))) from error

    def _has(self, index: int) -> bool:
        return self.remote.size(manifest_name(index)) is not None

    def _compare_last(self, run: Path, n: int) -> None:
        """Refuse an archive whose last stage is not the run's: it holds another run. Its stages are compared one by one afterwards."""
        for index in reversed(range(n)):
            manifest = self.remote.read(manifest_name(index))
            if manifest is not None:
                self._refuse_other(manifest_name(index), manifest, read_no_link(run / manifest_name(index)))
                return

    def _send_stage(self, run: Path, index: int, sizes: dict[str, int]) -> None:
        """Send what the archive lacks of a stage; `sizes` are those of all files below `stages/`."""
        folder, place = stage_folder(run, index), stage_place(index)
        stage = _next_stage(run, index, folder)
        manifest = folder / MANIFEST
        whole = sizes.get(f"{stage_name(index)}/{MANIFEST}") == manifest.stat().st_size
        for entry in kept_files(folder, stage):
            size = sizes.get(f"{stage_name(index)}/{entry.path}")
            # Under a whole manifest, a file was compared when it was sent.
            if size == entry.bytes and (whole or self.remote.sha256(f"{place}/{entry.path}") == entry.sha256):
                continue
            self._check_held()
            try:
                sent = self.remote.send(folder / entry.path, f"{place}/{entry.path}")
            except (FileNotFoundError, IsADirectoryError) as error:
                if entry not in kept_files(folder, stage):  # pruned meanwhile
                    continue
                raise CorruptArtefactError(f"{folder / entry.path}: {size_problem(None, 0)}; {_COPY}") from error
            if sent != entry.sha256:
                raise CorruptArtefactError(f"{folder / entry.path}: {OTHER_CONTENT}; {_COPY}")
        if not whole:
            self._send_last(f"{place}/{MANIFEST}", manifest)

    def _prune(self, run: Path, n: int) -> None:
        """Do in the archive what was pruned from the run folder, in the same order (`pruning.py`): the record, then the removal."""
        records: list[Pruned] = []
        while self._pruned + len(records) < n and (record := pruned(stage_folder(run, self._pruned + len(records)))):
            records.append(record)
        for index, record in reversed(list(enumerate(records, start=self._pruned))):
            place = stage_place(index)
            there = self.remote.sizes(place)
            self._check_held()
            if PRUNED not in there:
                self.remote.put(f"{place}/{PRUNED}", read_no_link(stage_folder(run, index) / PRUNED))
            for name in sorted(record.names & there.keys()):
                self.remote.delete(f"{place}/{name}")
        self._pruned += len(records)

    def _send_last(self, name: str, path: Path) -> None:
        """Send a manifest if the archive lacks it or has only its beginning, and only while we hold the lock."""
        manifest, archived_manifest = read_no_link(path), self.remote.read(name)
        if archived_manifest is None:
            self._check_held()
            if self.remote.create(name, manifest):
                return
            archived_manifest = self.remote.read(name) or b""
        self._refuse_other(name, archived_manifest, manifest)
        if archived_manifest != manifest:
            self._check_held()
            self.remote.put(name, manifest)

    def _refuse_other(self, name: str, archived_manifest: bytes, manifest: bytes) -> None:
        """Raise ConfigError where an archived manifest is not ours or a part of it, as a copy that was broken off leaves."""
        if not manifest.startswith(archived_manifest):
            raise ConfigError(f"{self.remote.at(name)}: {_ANOTHER}")

    def _check_held(self) -> None:
        if self._owner is not None:
            check_held(self.remote, self._owner)

    def _fetch_stage(self, run: Path, index: int) -> None:
        place, draft = stage_place(index), StageDraft(run, index)
        manifest = self.remote.read(manifest_name(index))
        if manifest is None:
            raise CorruptArtefactError(f"{self.remote.at(manifest_name(index))}: has just been removed; try again")
        draft.begin()
        (draft.folder / MANIFEST).write_bytes(manifest)
        record = self.remote.read(f"{place}/{PRUNED}")
        if record is not None:
            (draft.folder / PRUNED).write_bytes(record)
        with self.named_as_there(draft.folder, place):
            for entry in kept_files(draft.folder, _next_stage(run, index, draft.folder)):
                self.fetch_file(index, entry, draft.folder)
        draft.reveal()


@contextmanager
def archived(
    archive: Archive,
    run: Path,
    config: StreamConfig,
    *,
    resume: bool,
    on_trouble: Callable[[str], None],
    allow_different_bytes: bool = False,
) -> Iterator[None]:
    """Keep the archive up to date while the body works in a run folder.

    Stages that the folder lacks are fetched first. A thread sends each stage when it is committed, while the next one is made. A failure to
    send is an error only if it still occurs at the end of the body. After an exception nothing more is sent; a resumed run sends the rest.

    Args:
        archive: the archive; its lock is held while the body runs.
        run: the run folder.
        config: the run's config.
        resume: whether an earlier run may be continued.
        on_trouble: called with the reason why a stage cannot be sent at the moment.
        allow_different_bytes: as in `open_run`.

    Raises:
        ConfigError: the archive holds a run and `resume` is off; or as in `Archive.pull` and `Archive.push`.
        CorruptArtefactError: a stage of the archive or of the run folder is damaged.
        LockedError: another driver works with the archive or in the run folder.
        VersionError: the run was begun under other package versions.
    """
    with archive.locked():
        if resume:
            with locked(run):
                archive.pull(run, config, allow_different_bytes=allow_different_bytes)
        elif archive.begun():
            raise ConfigError(
                f"{archive.remote.uri}: already holds a run; continue it with --resume or choose another archive"
            )
        with _sending(archive, run, on_trouble):
            yield
        if run_manifest(run).exists():
            write_note(run, ArchiveNote(uri=archive.remote.uri, stages=archive.push(run)))


@contextmanager
def _sending(archive: Archive, run: Path, on_trouble: Callable[[str], None]) -> Iterator[None]:
    """Push the stages of a run as they are committed, while the body runs, and note the progress in the run folder."""
    end = threading.Event()

    def work() -> None:
        pause, reported, noted = POLL_SECONDS, "", None
        note = ArchiveNote(uri=archive.remote.uri, stages=0)
        with suppress(Interrupted):
            while not end.wait(pause):
                mended_by_waiting = True
                if stage_manifest(run, note.stages).is_file():
                    try:
                        note, pause = ArchiveNote(uri=note.uri, stages=archive.push(run)), POLL_SECONDS
                    except (DietError, OSError) as error:  # a file of the run folder that cannot be read is an OSError
                        trouble = str(users_error(error) or error)
                        note, pause = note.model_copy(update={"trouble": trouble}), min(2 * pause, MOST_SECONDS)
                        mended_by_waiting = isinstance(error, UnreachableError | OSError)
                if note != noted and write_note(run, note):
                    noted = note
                if note.trouble and note.trouble != reported:
                    reported = note.trouble
                    on_trouble(reported)
                if not mended_by_waiting:
                    return

    thread = threading.Thread(target=work, name="archive", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        archive.remote.stop.set()
        raise
    finally:
        end.set()
        thread.join()


def _next_stage(run: Path, index: int, folder: Path) -> StageManifest:
    """The manifest in `folder`, of the run's stage `index`. Raises CorruptArtefactError where it does not follow from the stage before."""
    path = folder / MANIFEST
    stage = parse_json(StageManifest, path)
    parent = sha256(stage_manifest(run, index - 1)) if index else None
    if stage.index != index or stage.parent_sha256 != parent:
        raise CorruptArtefactError(f"{path}: does not follow from the stage before it; {_COPY}")
    return stage


def manifest_name(index: int) -> str:
    """The name of a stage's manifest in an archive."""
    return stage_place(index, MANIFEST)


def stage_place(index: int, *file: str) -> str:
    """The name of a stage in an archive, or of one of its files."""
    return "/".join((STAGES, stage_name(index), *file))
