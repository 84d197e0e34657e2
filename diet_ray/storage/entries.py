"""A file as a manifest names it: its size and its checksum, and the one check that the file is still that one.

A file is checked by what is read of it: `read_entry` hashes the bytes that it returns, so nothing can change between the two.
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
"""A number of things; a damaged manifest may say anything."""

_COPY = "restore it from a copy"

OTHER_CONTENT = "not the file that the manifest names: its sha256 differs"
"""What is wrong with a file of the right size and another checksum."""


class FileEntry(Settings):
    """One file of a stage."""

    path: str = Key(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=128)
    """Name inside the stage's folder."""
    bytes: Count
    """Size."""
    sha256: str
    """Checksum, hexadecimal."""


class OtherFileError(ValueError):
    """A file is not the one that a manifest names; says in which way."""


def file_entry(path: Path) -> FileEntry:
    """The manifest entry of a finished file."""
    return FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256(path))


def size_problem(size: int | None, n_bytes: int) -> str | None:
    """What is wrong with a file of that size, None for one that is not there, where its manifest says `n_bytes`."""
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
    """Raise OtherFileError where a file is not the one of that size and checksum. Its size is looked at first."""
    check_size(path, n_bytes)
    if sha256(path) != checksum:
        raise OtherFileError(OTHER_CONTENT)


def read_content(path: Path, n_bytes: int, checksum: str) -> bytes:
    """The bytes of the file of that size and checksum. Raises OtherFileError where it is not that one."""
    check_size(path, n_bytes)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(n_bytes + 1)
    if len(content) != n_bytes or hashlib.sha256(content).hexdigest() != checksum:
        raise OtherFileError(OTHER_CONTENT)
    return content


def check_file(folder: Path, entry: FileEntry) -> Path:
    """The file of a manifest entry. Raises CorruptArtefactError where it is missing or not the one that was committed."""
    path = folder / entry.path
    try:
        check_content(path, entry.bytes, entry.sha256)
    except OtherFileError as error:
        raise CorruptArtefactError(f"{path}: {error}; {_COPY}") from error
    return path
