"""A folder that appears complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diet_ray.errors import ConfigError


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
    out = out.absolute()
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be made ({error.strerror}); choose another place for the {content}"
        ) from error
    try:
        yield folder
        try:
            os.rename(folder, out)
        except OSError as error:
            raise ConfigError(f"{out}: appeared meanwhile; choose another place for the {content}") from error
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    # After an error, a task that is still running may write a file into the folder while it is removed.
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
