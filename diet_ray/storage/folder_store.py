"""A folder that others can write into, out of which no link leads: an archive under `file://`, and the deeper folders of a run or a log.

Who can write there can lay a link in the place of a stage or of a file. Every name is therefore opened folder by folder, each relative to
the one before and never through a link, so that a link laid between a check and its use is not followed either.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from diet_ray.links import link_error

CHUNK = 8 << 20
"""Bytes of a file that a transfer holds in memory."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class About:
    """A file in a store."""

    bytes: int
    """Its size."""
    modified: float
    """When it was written, by the store's clock, in seconds since the epoch."""


class FolderStore:
    """The files below `root`. Names are relative, with slashes.

    Every method raises CorruptArtefactError where a name, or a folder on the way to it, is a link, and OSError for all else.

    Attributes:
        root: the folder; it need not exist. Links on the way to it are the operator's own and are followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> Iterator[bytes]:
        """The content of a file, in pieces. Raises FileNotFoundError where there is none."""
        with self._above(name) as (at, last):
            self._refuse_link(at, last, name)
            # Without O_NONBLOCK, opening a pipe would wait for its other end.
            descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{name} is no file")
            while chunk := file.read(CHUNK):
                yield chunk

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file that appears whole or not at all, with the folders above it, in the place of the file that has its name."""
        with self._above(name, make=True) as (at, last):
            self._refuse_link(at, last, name)
            draft = f".{last}.tmp"
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=at)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=at)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.writelines(chunks)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(draft, last, src_dir_fd=at, dst_dir_fd=at)
            except BaseException:
                os.unlink(draft, dir_fd=at)
                raise

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file that must not exist; False where it does. Only a lock excludes that two processes create it at a time."""
        if self.about(name):
            return False
        self.write(name, [data])
        return True

    def sizes(self, folder: str, deep: bool) -> dict[str, int]:
        """Bytes of each file in a folder (with `deep`, also in subfolders) by its name in `folder`; empty for a missing folder."""
        try:
            with self._folder(folder) as at:
                return dict(self._inside(at, folder, "", deep))
        except FileNotFoundError:
            return {}

    def about(self, name: str) -> About | None:
        """Size and time of a file; None where there is none."""
        try:
            with self._above(name) as (at, last):
                status = os.stat(last, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(status.st_mode):
            raise link_error(self.root / name)
        return About(status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def names(self, folder: str) -> list[str]:
        """Names of all that is in a folder, sorted; none of them is a link. Empty for a missing folder."""
        try:
            with self._folder(folder) as at:
                found = sorted(os.listdir(at))
                for name in found:
                    self._refuse_link(at, name, f"{folder}/{name}")
        except FileNotFoundError:
            return []
        return found

    def make(self, folder: str) -> None:
        """Make a folder, and those above it. It may exist."""
        with self._folder(folder, make=True):
            pass

    def move(self, name: str, new: str) -> None:
        """Give a file or folder another name, in the place of the file or empty folder that has it."""
        with self._above(name) as (at, last), self._above(new) as (to, new_last):
            self._refuse_link(at, last, name)
            self._refuse_link(to, new_last, new)
            os.replace(last, new_last, src_dir_fd=at, dst_dir_fd=to)

    def sync(self, folder: str) -> None:
        """Let the names in a folder reach the disk."""
        with self._folder(folder) as at:
            os.fsync(at)

    def sync_files(self, folder: str) -> None:
        """Let the files of a folder reach the disk, and their names."""
        with self._folder(folder) as at:
            for name in sorted(os.listdir(at)):
                self._refuse_link(at, name, f"{folder}/{name}")
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)
            os.fsync(at)

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with its content; it need not exist. A link is removed, not what it leads to."""
        with suppress(FileNotFoundError), self._above(name) as (at, last):
            self._remove(at, last, name)

    # --- names

    @contextmanager
    def _folder(self, path: str, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root."""
        if make:
            self.root.mkdir(parents=True, exist_ok=True)
        if self.root.is_file():
            raise FileNotFoundError(f"{self.root} is no folder")
        at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in _parts(path):
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=at)
                below = self._down(at, part, path)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    @contextmanager
    def _above(self, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds `path`, and its name in that folder."""
        *above, name = _parts(path)
        with self._folder("/".join(above), make) as at:
            yield at, name

    def _inside(self, at: int, folder: str, path: str, deep: bool) -> Iterator[tuple[str, int]]:
        for name in sorted(os.listdir(at)):
            here = f"{path}{name}"
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise link_error(self.root / folder / here)
            if stat.S_ISREG(status.st_mode):
                yield here, status.st_size
            elif deep and stat.S_ISDIR(status.st_mode):
                below = self._down(at, name, f"{folder}/{here}")
                try:
                    yield from self._inside(below, folder, f"{here}/", deep)
                finally:
                    os.close(below)

    def _refuse_link(self, at: int, name: str, path: str) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise link_error(self.root / path)

    def _down(self, at: int, name: str, path: str) -> int:
        """A descriptor of a folder in the folder `at`."""
        self._refuse_link(at, name, path)
        try:
            return os.open(name, _FOLDER, dir_fd=at)
        except NotADirectoryError as error:
            self._refuse_link(at, name, path)  # laid since
            raise FileNotFoundError(f"{path}: {name} is no folder") from error

    def _remove(self, at: int, name: str, path: str) -> None:
        remove = os.unlink
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            below = self._down(at, name, path)
            try:
                for inner in os.listdir(below):
                    self._remove(below, inner, f"{path}/{inner}")
            finally:
                os.close(below)
            remove = os.rmdir
        try:
            remove(name, dir_fd=at)
        except OSError as error:
            error.filename = str(self.root / path)
            raise


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(f"{path} leads upwards")
    return parts
