"""An archive, downloaded as a run folder that can be verified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from diet_ray.memory.archive import Archive
from diet_ray.memory.garbage import NO_STAGE, UNNAMED, unnamed


@contextmanager
def downloaded(uri: str) -> Iterator[tuple[Path, list[str]]]:
    """Download the files that an archive's manifests name; yields the temporary folder, and the names of stray files in the archive.

    Leftovers of an interrupted run are no faults and are left out of both. Raises ConfigError where the archive holds no run or cannot be
    reached.
    """
    archive = Archive(uri)
    archive.require_run()
    with TemporaryDirectory(prefix="diet-ray-verify-") as folder:
        archive.fetch(Path(folder))
        yield (
            Path(folder),
            [leftover.path.as_posix() for leftover in unnamed(archive) if leftover.what in (NO_STAGE, UNNAMED)],
        )
