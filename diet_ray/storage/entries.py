"""A file as a manifest names it: its size and its checksum, and the check that the file is still that one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field as Key

from diet_ray.errors import CorruptArtefactError
from diet_ray.settings import Settings
from diet_ray.storage.hashes import sha256

Count = Annotated[int, Key(ge=0, lt=2**63)]
"""A number of things; a damaged manifest may say anything."""


class FileEntry(Settings):
    """One file of a stage."""

    path: str = Key(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=128)
    """Name inside the stage's folder."""
    bytes: Count
    """Size."""
    sha256: str
    """Checksum, hexadecimal."""


def file_entry(path: Path) -> FileEntry:
    """The manifest entry of a finished file."""
    return FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256(path))


def check_file(folder: Path, entry: FileEntry) -> Path:
    """The file of a manifest entry. Raises CorruptArtefactError where it is missing or not the one that was committed."""
    path = folder / entry.path
    if path.is_symlink() or not path.is_file():
        what = "a link" if path.is_symlink() else "missing"
        raise CorruptArtefactError(f"{path}: {what}, though the stage's manifest names it; restore it from a copy")
    if path.stat().st_size != entry.bytes or sha256(path) != entry.sha256:
        raise CorruptArtefactError(
            f"{path}: not the file that was committed (size or sha256 differ); restore it from a copy"
        )
    return path
