"""Links in folders into which others may write: what is opened there is never a link, because it may lead to any file of ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from diet_ray.errors import CorruptArtefactError


def link_error(path: str | Path) -> CorruptArtefactError:
    """The error for a path that is a link."""
    return CorruptArtefactError(
        f"{path}: is a link, or lies behind one, and may lead elsewhere; remove it by hand, and see who can write there"
    )


def read_no_link(path: Path) -> bytes:
    """The content of a file. Raises CorruptArtefactError where the file is a link."""
    with open(path, "rb", opener=no_link) as file:
        return file.read()


def no_link(path: str, flags: int) -> int:
    """An `opener` for `open`. Raises CorruptArtefactError where the file is a link; links on the way to it are followed."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link_error(path) from error
        raise
