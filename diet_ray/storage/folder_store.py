"""A folder as a file system for an archive, out of which no link leads.

The folder is shared, and who can write into it can lay a link in the place of a stage or of a file. Every name is therefore opened folder
by folder, each relative to the one before and never through a link, so that a link laid between a check and its use is not followed either.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinkError(OSError):
    """A name in the folder is a link, or a folder on the way to it is."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is a link")
        self.name = name


class FolderStore(FileSystemHandler):  # type: ignore[misc]
    """The files below `root`, for `pyarrow.fs.PyFileSystem`. Names are relative, with slashes; a link among them raises LinkError.

    Attributes:
        root: the folder; it need not exist. Links on the way to it are the operator's own and are followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FolderStore) and other.root == self.root

    def __hash__(self) -> int:
        return hash(self.root)

    def get_type_name(self) -> str:
        """Name of this file system."""
        return "folder"

    def normalize_path(self, path: str) -> str:
        """The path itself."""
        return path

    # --- reading

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """Type, size and time of each path; a missing one is of the type NotFound."""
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """The same of all that is in a folder."""
        try:
            with self._folder(selector.base_dir) as at:
                return list(self._inside(at, selector.base_dir, selector.recursive))
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """A file to read from the beginning."""
        return pa.PythonFile(self._open(path, os.O_RDONLY, "rb"), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        """A file to read anywhere."""
        return self.open_input_stream(path)

    # --- writing

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        """A file to write anew."""
        return pa.PythonFile(self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "wb"), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        """Not needed for an archive."""
        raise NotImplementedError

    def create_dir(self, path: str, recursive: bool) -> None:
        """Make a folder, and those above it."""
        self.root.mkdir(parents=True, exist_ok=True)
        made = ""
        for part in _parts(path):
            with self._folder(made) as at:
                try:
                    os.mkdir(part, dir_fd=at)
                except FileExistsError:
                    _refuse_link(at, part, path)
            made = f"{made}/{part}"

    def delete_file(self, path: str) -> None:
        """Remove a file."""
        with self._above(path) as (at, name):
            _refuse_link(at, name, path)
            os.unlink(name, dir_fd=at)

    def delete_dir(self, path: str) -> None:
        """Remove a folder with its content. Links in it are removed, not what they lead to."""
        with self._above(path) as (at, name):
            _refuse_link(at, name, path)
            _remove(at, name, path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Not needed for an archive."""
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        """Not needed for an archive."""
        raise NotImplementedError

    def copy_file(self, src: str, dest: str) -> None:
        """Not needed for an archive."""
        raise NotImplementedError

    def move(self, src: str, dest: str) -> None:
        """Give a file another name, in the place of the file that has it."""
        with self._above(src) as (at, name), self._above(dest) as (to, new):
            _refuse_link(at, name, src)
            _refuse_link(to, new, dest)
            os.replace(name, new, src_dir_fd=at, dst_dir_fd=to)

    # --- names

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """A descriptor of a folder below the root."""
        if self.root.is_file():
            raise FileNotFoundError(f"{self.root} is no folder")
        at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in _parts(path):
                below = _down(at, part, path)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    @contextmanager
    def _above(self, path: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds `path`, and its name in that folder."""
        *above, name = _parts(path)
        with self._folder("/".join(above)) as at:
            yield at, name

    def _open(self, path: str, flags: int, mode: str) -> IO[bytes]:
        with self._above(path) as (at, name):
            _refuse_link(at, name, path)
            # Without O_NONBLOCK, opening a pipe would wait for its other end.
            file = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=at)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(f"{path} is no file")
        return os.fdopen(file, mode)

    def _info(self, path: str) -> FileInfo:
        if not _parts(path):
            return FileInfo(path, FileType.Directory if self.root.is_dir() else FileType.NotFound)
        try:
            with self._above(path) as (at, name):
                return _about(path, os.stat(name, dir_fd=at, follow_symlinks=False))
        except FileNotFoundError:
            return FileInfo(path, FileType.NotFound)

    def _inside(self, at: int, folder: str, deep: bool) -> Iterator[FileInfo]:
        for name in sorted(os.listdir(at)):
            path = f"{folder}/{name}" if folder else name
            info = _about(path, os.stat(name, dir_fd=at, follow_symlinks=False))
            yield info
            if deep and info.type == FileType.Directory:
                below = _down(at, name, path)
                try:
                    yield from self._inside(below, path, deep)
                finally:
                    os.close(below)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(f"{path} leads upwards")
    return parts


def _about(path: str, status: os.stat_result) -> FileInfo:
    if stat.S_ISLNK(status.st_mode):
        raise LinkError(path)
    when = datetime.fromtimestamp(status.st_mtime, UTC)
    if stat.S_ISDIR(status.st_mode):
        return FileInfo(path, FileType.Directory, mtime=when)
    kind = FileType.File if stat.S_ISREG(status.st_mode) else FileType.Unknown
    return FileInfo(path, kind, size=status.st_size, mtime=when)


def _refuse_link(at: int, name: str, path: str) -> None:
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise LinkError(path)
    except FileNotFoundError:
        return


def _down(at: int, name: str, path: str) -> int:
    """A descriptor of a folder in the folder `at`."""
    _refuse_link(at, name, path)
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except NotADirectoryError as error:
        _refuse_link(at, name, path)  # laid since
        raise FileNotFoundError(f"{path}: {name} is no folder") from error


def _remove(at: int, name: str, path: str) -> None:
    below = _down(at, name, path)
    try:
        for inner in os.listdir(below):
            if stat.S_ISDIR(os.stat(inner, dir_fd=below, follow_symlinks=False).st_mode):
                _remove(below, inner, f"{path}/{inner}")
            else:
                os.unlink(inner, dir_fd=below)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=at)
