"""An archive as a run folder that can be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from diet_ray.memory.archive import Archive
from diet_ray.memory.garbage import NO_STAGE, UNNAMED, unnamed


@contextmanager
def downloaded(uri: str) -> Iterator[tuple[Path, list[str]]]:
    """What the manifests of an archive name, in a temporary folder, and the names of what lies between it without a reason.

    What an interrupted run leaves is no fault and stays out of both. Raises ConfigError where the archive holds no run or cannot be
    reached.
    """
    archive = Archive(uri)
    archive.require_run()
    with TemporaryDirectory(prefix="diet-ray-verify-") as folder:
        archive.fetch(Path(folder))
        yield Path(folder), [one.path.as_posix() for one in unnamed(archive) if one.what in (NO_STAGE, UNNAMED)]
