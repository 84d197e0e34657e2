"""A folder that is there whole or not at all."""

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
def appearing(out: Path, what: str) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the body ends well, and vanishes otherwise.

    Args:
        out: where it is to appear.
        what: what it holds, for the message of an error.

    Raises:
        ConfigError: there is something at `out` already, or no folder can be made there.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out}: exists already; remove it or choose another place for the {what}")
    out = out.absolute()
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made ({error.strerror}); choose another place for the {what}") from error
    try:
        yield folder
        try:
            os.rename(folder, out)
        except OSError as error:
            raise ConfigError(f"{out}: appeared meanwhile; choose another place for the {what}") from error
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    # After an error, a task that was under way may still drop a file into the folder while it is being emptied.
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
