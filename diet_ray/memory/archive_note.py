"""`RUN/archive.json`: what a run folder says of its archive, so that its status needs no network."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.layout import holds_run
from diet_ray.settings import Settings, parse_json, write_json

NAME = "archive.json"


class ArchiveNote(Settings):
    """How far an archive was when the driver looked last. No part of the result."""

    uri: str
    """The archive, without what may follow a `?`; never credentials."""
    stages: int
    """Stages that it had."""
    trouble: str = ""
    """Why it could not be sent more."""


def write_note(run: Path, note: ArchiveNote) -> bool:
    """Leave a note in a run folder that has been begun. False where it cannot be written: no run is to end over it."""
    with suppress(OSError):
        if holds_run(run):
            write_json(run / NAME, note)
            return True
    return False


def read_note(run: Path) -> ArchiveNote | None:
    """The note; None where there is none that can be read."""
    with suppress(CorruptArtefactError):
        return parse_json(ArchiveNote, run / NAME)
    return None
