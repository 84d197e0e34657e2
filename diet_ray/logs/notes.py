"""What an ingest read otherwise than it stands in the files, or passed over: a sentence per column, with the number of rows.

A row that breaks a rule is an error (`checks.py`) and never a note.
"""

from __future__ import annotations

from collections.abc import Iterable

from diet_ray.settings import Settings


class Note(Settings):
    """One reinterpretation, or one omission."""

    column: str | None = None
    """The column of the source, if it concerns one."""
    what: str
    """What was done, in words."""
    rows: int = 0
    """Rows concerned; 0 where rows are not counted."""
    file: str | None = None
    """The first file in which it was seen."""

    def __str__(self) -> str:
        where = "" if self.file is None else f" (first in {self.file})"
        rows = f", {self.rows:,} rows" if self.rows else ""
        return f"{self.column + ': ' if self.column else ''}{self.what}{rows}{where}"


def merge(notes: Iterable[Note]) -> list[Note]:
    """Each note once, with the sum of its rows and the file of its first occurrence, in the order of first occurrences."""
    merged: dict[tuple[str | None, str], Note] = {}
    for note in notes:
        key = note.column, note.what
        before = merged.get(key)
        merged[key] = note if before is None else before.model_copy(update={"rows": before.rows + note.rows})
    return list(merged.values())


def told(notes: list[Note]) -> list[str]:
    """The lines with which an ingest ends where there are notes."""
    return (
        ["read otherwise than it stands in the files, or passed over:", *(f"  {note}" for note in notes)]
        if notes
        else []
    )
