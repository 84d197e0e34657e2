"""A memory in an archive, brought into a cache folder that is laid out as a run folder is.

Of a run only what is asked for comes, each file under another name until its checksum is the one in the stage's manifest. What lies in
the cache already is believed by its checksum too, so that it may be removed, or damaged, at any time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.figures import size
from diet_ray.memory.archive import Archive, manifest_name, stage_place
from diet_ray.memory.layout import MANIFEST, stage_folder, stage_manifest
from diet_ray.memory.manifests import StageManifest
from diet_ray.settings import parse_json
from diet_ray.storage.entries import FileEntry, check_file
from diet_ray.storage.hashes import sha256
from diet_ray.storage.places import is_uri
from diet_ray.storage.remote import Remote

OnFetch = Callable[[str], None]
"""Told what is being fetched and how far that is."""


def cache_folder() -> Path:
    """Where what was fetched is kept: $DIET_RAY_CACHE, or `diet_ray` below the user's folder for such things."""
    named = os.environ.get("DIET_RAY_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diet_ray"


def name_of(place: str | Path) -> str:
    """A place as results and messages name it: a path as it stands, a URI without its query."""
    return Remote(str(place)).uri if is_uri(str(place)) else str(place)


def fetch(
    place: str | Path, *, lineage: bool = False, table_before: bool = False, on_fetch: OnFetch | None = None
) -> Path:
    """A folder that `load_memory` takes, for a place that is one or that lies in an archive.

    Args:
        place: a path, which is given back as it stands; or the URI of an archive, whose last stage is meant, or of one of its stages
            (`s3://BUCKET/PREFIX/stages/0003`).
        lineage: whether the manifests of the stages before come too.
        table_before: whether the last checkpoint of the stage before comes with them.
        on_fetch: see `OnFetch`.

    Raises:
        ConfigError: the archive holds no run or no such stage, it cannot be reached, or the cache cannot be written to.
        CorruptArtefactError: no stage is complete, or a file is not the one that was committed.
        VersionError: it was written in another format version.
    """
    if not is_uri(str(place)):
        return Path(place)
    root, index = _split(str(place))
    archive = Archive(root)
    if on_fetch:
        on_fetch(f"looking at {archive.remote.uri}")
    index = _existing(archive, index)
    with _copy(archive, root, on_fetch) as copy:
        stage = copy.manifest(index)
        if stage is None:
            raise CorruptArtefactError(f"{archive.remote.at(manifest_name(index))}: has just gone; try again")
        copy.files(index, [*stage.memory, stage.checkpoints[-1]])
        older = stage
        while (lineage or table_before) and older.parent_sha256 is not None:
            before = copy.manifest(older.index - 1, older.parent_sha256)
            if before is None:  # as far back as they lie there
                break
            if table_before and older is stage:
                copy.files(before.index, before.checkpoints[-1:])
            older = before
        return stage_folder(copy.folder, index)


def _split(uri: str) -> tuple[str, int | None]:
    """The archive of a URI, and the stage that it names."""
    found = re.fullmatch(r"([^?]*?)/stages/(\d{4,})/?(\?.*)?", uri)
    return (found[1] + (found[3] or ""), int(found[2])) if found else (uri, None)


def _existing(archive: Archive, index: int | None) -> int:
    stages = archive.stages()
    if not stages:
        archive.require_run()
        raise CorruptArtefactError(
            f"{archive.remote.uri}: holds no complete stage yet; wait until the run has committed one"
        )
    if index is not None and index not in stages:
        raise ConfigError(
            f"{archive.remote.uri}/{stage_place(index)}: no complete stage; there are {stages[0]:04d} to {stages[-1]:04d}"
        )
    return stages[-1] if index is None else index


@contextmanager
def _copy(archive: Archive, root: str, on_fetch: OnFetch | None) -> Iterator[_Copy]:
    """The cached part of an archive, and beside it a folder for what is on its way, which does not stay."""
    name = archive.remote.uri.rpartition("/")[2][:64]
    folder = cache_folder() / f"{name}-{hashlib.sha256(root.encode()).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".") as draft:
            yield _Copy(archive, folder, Path(draft), on_fetch)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written to ({error.strerror}); name another folder for what is fetched by DIET_RAY_CACHE"
        ) from error


class _Copy:
    def __init__(self, archive: Archive, folder: Path, draft: Path, on_fetch: OnFetch | None) -> None:
        self.archive, self.folder, self.draft, self.on_fetch = archive, folder, draft, on_fetch

    def manifest(self, index: int, checksum: str | None = None) -> StageManifest | None:
        """Bring a manifest here, unless it is here already; None where there is none, or none with that checksum."""
        path = stage_manifest(self.folder, index)
        if checksum and path.is_file() and sha256(path) == checksum:
            return parse_json(StageManifest, path)
        content = self.archive.remote.read(manifest_name(index))
        if content is None or (checksum and hashlib.sha256(content).hexdigest() != checksum):
            return None
        draft = self.draft / MANIFEST
        draft.write_bytes(content)
        with self.archive.named_as_there(self.draft, path.parent.relative_to(self.folder).as_posix()):
            stage = parse_json(StageManifest, draft)
            if stage.index != index:
                raise CorruptArtefactError(f"{draft}: is that of stage {stage.index}; restore it from a copy")
        self._reveal(draft, path)
        return stage

    def files(self, index: int, entries: list[FileEntry]) -> None:
        """Bring those files of a stage here that are not here yet."""
        folder = stage_folder(self.folder, index)
        missing = [entry for entry in entries if not _sound(folder, entry)]
        done, total = 0, sum(entry.bytes for entry in missing)

        def count(n: int) -> None:
            nonlocal done
            done += n
            if self.on_fetch:
                place = self.archive.remote.at(stage_place(index))
                self.on_fetch(f"fetching {place}: {size(done)} of {size(total)}")

        for entry in missing:
            self.archive.fetch_file(index, entry, self.draft, count)
            self._reveal(self.draft / entry.path, folder / entry.path)

    def _reveal(self, draft: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(path)


def _sound(folder: Path, entry: FileEntry) -> bool:
    try:
        check_file(folder, entry)
    except CorruptArtefactError:
        return False
    return True
