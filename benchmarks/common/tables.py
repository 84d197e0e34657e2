"""How benchmarks show their tables: on the screen, and between marks in a page."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from diet_ray.settings import Settings, parse_json

S = TypeVar("S", bound=Settings)

NOT_YET = "Not measured yet."
"""What a page says in the place of figures that there are none of."""


def show(columns: list[str], rows: list[list[str]], title: str) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=170).print(table)


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def parsed(kind: type[S], path: Path) -> S | None:
    """The figures in a file, or None where it has not been made. Raises CorruptArtefactError where it is damaged."""
    return parse_json(kind, path) if path.exists() else None


def filled(text: str, name: str, command: str, part: str, *, gap: str = "\n\n") -> str:
    """A page with a part between its two marks, of which the first names the command that writes it; `gap` is between mark and part.

    Raises:
        SystemExit: a mark is missing.
    """
    begin, end = f"<!-- {name}: {command} -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"the marks of part {name!r} are missing: {begin} and {end}")
    return f"{before}{begin}{gap}{part}{gap}{end}{after}"
