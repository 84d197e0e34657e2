"""A folder that appears complete or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diet_ray.errors import ConfigError
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import is_forsaken, sign

SIGNATURE = "lock.json"
"""The file in a draft that names its process."""

ENDINGS = ("partial", "prepared")
"""How the names of drafts end: of what is to appear, and of files that are prepared for it."""


@contextmanager
def appearing(out: Path, content: str) -> Iterator[Path]:
    """A folder next to `out` that becomes `out` when the body ends without an error, and is removed otherwise.

    Args:
        out: path at which the folder appears.
        content: what the folder holds, such as `log`, for error messages.

    Raises:
        ConfigError: `out` exists already, or no folder can be made there.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out}: exists already; remove it or choose another place for the {content}")
    with draft(out, "partial", content) as folder:
        yield folder
        (folder / SIGNATURE).unlink()
        try:
            os.rename(folder, out.absolute())
        except OSError as error:
            raise ConfigError(f"{out}: appeared meanwhile; choose another place for the {content}") from error


@contextmanager
def draft(out: Path, ending: str, content: str) -> Iterator[Path]:
    """A folder `.NAME.*.ENDING` next to `out`, which is removed when the body ends. What a killed process leaves is known by its signature.

    Raises ConfigError where none can be made; `content` is for its message.
    """
    out = out.absolute()
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.{ending}")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be made ({error.strerror}); choose another place for the {content}"
        ) from error
    try:
        sign(folder)
        yield folder
    finally:
        _remove(folder)


def remove_forsaken(out: Path) -> list[str]:
    """Remove the drafts of `out` that processes of this machine have left when they were killed; returns one line about each.

    Drafts of living processes and of other machines stay, and folders that are not signed. Links are never followed.
    """
    out = out.absolute()
    name = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{8}}\.(?:{'|'.join(ENDINGS)})")
    found = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    removed = []
    for path in found:
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and is_forsaken(path):
            FolderStore(out.parent).delete(path.name)
            removed.append(f"{path}: left by a process that was killed; removed")
    return removed


def _remove(folder: Path) -> None:
    # After an error, a task that is still running may write a file into the folder while it is removed.
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
