"""`RUN/archive.json`: a run's note on the state of its archive, so that the run's status needs no network."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.layout import holds_run
from diet_ray.settings import Settings, parse_json, write_json

NAME = "archive.json"


class ArchiveNote(Settings):
    """The state of an archive when the driver checked it last. It is not part of the result."""

    uri: str
    """The archive's URI, without a query and without credentials."""
    stages: int
    """Number of stages in it."""
    trouble: str = ""
    """Why no further stage could be sent."""


def write_note(run: Path, note: ArchiveNote) -> bool:
    """Write a note into the folder of a begun run. False where that fails: a missing note must not end a run."""
    with suppress(OSError):
        if holds_run(run):
            write_json(run / NAME, note)
            return True
    return False


def read_note(run: Path) -> ArchiveNote | None:
    """The note; None where it is missing or cannot be read."""
    with suppress(CorruptArtefactError):
        return parse_json(ArchiveNote, run / NAME)
    return None
