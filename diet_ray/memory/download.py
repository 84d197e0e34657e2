"""A memory from an archive, downloaded to a cache folder with the layout of a run folder.

Only the needed files of a run are downloaded. Each file has a temporary name until its checksum matches the stage's manifest. A file in the
cache is used only if its checksum matches too, so the cache may be removed or damaged at any time.
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
from diet_ray.memory.layout import MANIFEST, PRUNED, stage_folder, stage_manifest
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.table_chain import broken
from diet_ray.settings import parse_json, write_json
from diet_ray.storage.entries import FileEntry, check_file
from diet_ray.storage.hashes import sha256
from diet_ray.storage.places import is_uri
from diet_ray.storage.remote import Remote

OnFetch = Callable[[str], None]
"""Called with a text that names the current download and its progress."""


def cache_folder() -> Path:
    """The folder for downloaded files: $DIET_RAY_CACHE, or `diet_ray` in the user's cache folder."""
    named = os.environ.get("DIET_RAY_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diet_ray"


def name_of(place: str | Path) -> str:
    """The name of a place in results and messages: a path unchanged, a URI without its query."""
    return Remote(str(place)).uri if is_uri(str(place)) else str(place)


def fetch(
    place: str | Path,
    *,
    lineage: bool = False,
    table_before: bool = False,
    moments: bool = False,
    on_fetch: OnFetch | None = None,
) -> Path:
    """A local folder for `load_memory`: `place` itself where it is a path, a downloaded copy where it is a URI.

    Args:
        place: a path, which is returned unchanged; or the URI of an archive, for its last stage, or of one of its stages
            (`s3://BUCKET/PREFIX/stages/0003`).
        lineage: whether to fetch the manifests of the earlier stages too.
        table_before: whether to fetch the last checkpoint of the stage before too.
        moments: whether to fetch the moments of the reference's optimisers too.
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
            raise CorruptArtefactError(f"{archive.remote.at(manifest_name(index))}: has just been removed; try again")
        copy.files(index, stage.memory)
        copy.table(stage, moments=moments)
        older = stage
        while (lineage or table_before) and older.parent_sha256 is not None:
            before = copy.manifest(older.index - 1, older.parent_sha256)
            if before is None:  # the archive lacks the earlier stages
                break
            if table_before and older is stage and not copy.pruned(before.index):
                copy.table(before, moments=False)
            older = before
        return stage_folder(copy.folder, index)


def _split(uri: str) -> tuple[str, int | None]:
    """The archive's URI in a URI, and the stage that it names."""
    match = re.fullmatch(r"([^?]*?)/stages/(\d{4,})/?(\?.*)?", uri)
    return (match[1] + (match[3] or ""), int(match[2])) if match else (uri, None)


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
    """The cached part of an archive, with a temporary folder for files that are being downloaded."""
    name = archive.remote.uri.rpartition("/")[2][:64]
    folder = cache_folder() / f"{name}-{hashlib.sha256(root.encode()).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".") as draft:
            yield _Copy(archive, folder, Path(draft), on_fetch)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written to ({error.strerror}); set DIET_RAY_CACHE to another folder"
        ) from error


class _Copy:
    def __init__(self, archive: Archive, folder: Path, draft: Path, on_fetch: OnFetch | None) -> None:
        self.archive, self.folder, self.draft, self.on_fetch = archive, folder, draft, on_fetch

    def manifest(self, index: int, checksum: str | None = None) -> StageManifest | None:
        """Fetch a manifest, unless the cache has it; None where the archive has none, or none with that checksum."""
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
                raise CorruptArtefactError(f"{draft}: is the manifest of stage {stage.index}; restore it from a copy")
        self._reveal(draft, path)
        return stage

    def pruned(self, index: int) -> bool:
        """Whether files of a stage were pruned; the record that says so is then in the cache, too."""
        record = self.archive.pruned(index)
        if record is not None:
            write_json(stage_folder(self.folder, index) / PRUNED, record)
        return record is not None

    def files(self, index: int, entries: list[FileEntry]) -> None:
        """Fetch those files of a stage that the cache lacks."""
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

    def table(self, stage: StageManifest, *, moments: bool) -> None:
        """Fetch the last checkpoint of a stage, and those on which it builds; with the moments where wanted."""
        self.files(stage.index, [stage.checkpoints[-1], *([stage.optimiser] if moments else [])])
        link = stage
        while stage.whole is not None and link.index > stage.whole:
            before = self.manifest(link.index - 1, link.parent_sha256)
            if before is None:
                place = self.archive.remote.at(stage_place(stage.index))
                raise broken(place, stage, link.index - 1, "is not in the archive")
            self.files(before.index, [before.checkpoints[-1], *([before.optimiser] if moments else [])])
            link = before

    def _reveal(self, draft: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(path)


def _sound(folder: Path, entry: FileEntry) -> bool:
    try:
        check_file(folder, entry)
    except CorruptArtefactError:
        return False
    return True
