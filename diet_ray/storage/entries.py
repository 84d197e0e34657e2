"""Manifest entries of files: size and checksum, and the check that a file still matches them.

`read_content` hashes the same bytes that it returns, so the file cannot change between the check and the reading.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field as Key

from diet_ray.errors import CorruptArtefactError
from diet_ray.settings import Settings
from diet_ray.storage.hashes import sha256

Count = Annotated[int, Key(ge=0, lt=2**63)]
"""A count, with bounds because a damaged manifest may hold any number."""

_COPY = "restore it from a copy"

OTHER_CONTENT = "not the file that the manifest names: its sha256 differs"
"""The problem of a file with the right size but another checksum."""


class FileEntry(Settings):
    """One file of a stage."""

    path: str = Key(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=128)
    """Name inside the stage's folder."""
    bytes: Count
    """Size."""
    sha256: str
    """Checksum, hexadecimal."""


class OtherFileError(ValueError):
    """A file is not the one that a manifest names. The message gives the difference."""


def file_entry(path: Path) -> FileEntry:
    """The manifest entry of a finished file."""
    return FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256(path))


def size_problem(size: int | None, n_bytes: int) -> str | None:
    """The problem with a file of `size` bytes (None: it is missing) whose manifest says `n_bytes`; None where there is no problem."""
    if size is None:
        return "missing, though the manifest names it"
    if size != n_bytes:
        return f"not the file that the manifest names: it has {size} bytes, the manifest says {n_bytes}"
    return None


def check_size(path: Path, n_bytes: int) -> None:
    """Raise OtherFileError where a file is missing, is a link or has another size than its manifest says."""
    if path.is_symlink():
        raise OtherFileError("is a link, though the manifest names it")
    problem = size_problem(path.stat().st_size if path.is_file() else None, n_bytes)
    if problem:
        raise OtherFileError(problem)


def check_content(path: Path, n_bytes: int, checksum: str) -> None:
    """Raise OtherFileError where a file has another size or checksum. The size is checked first."""
    check_size(path, n_bytes)
    if sha256(path) != checksum:
        raise OtherFileError(OTHER_CONTENT)


def read_content(path: Path, n_bytes: int, checksum: str) -> bytes:
    """The bytes of a file. Raises OtherFileError where it has another size or checksum."""
    check_size(path, n_bytes)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(n_bytes + 1)
    if len(content) != n_bytes or hashlib.sha256(content).hexdigest() != checksum:
        raise OtherFileError(OTHER_CONTENT)
    return content


def check_file(folder: Path, entry: FileEntry) -> Path:
    """The path of a manifest entry's file. Raises CorruptArtefactError where it is missing or not the one that was committed."""
    path = folder / entry.path
    try:
        check_content(path, entry.bytes, entry.sha256)
    except OtherFileError as error:
        raise CorruptArtefactError(f"{path}: {error}; {_COPY}") from error
    return path
