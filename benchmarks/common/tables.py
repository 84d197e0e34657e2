"""The tables of benchmarks: printed, or written between two marks in a page."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from diet_ray.settings import Settings, parse_json

S = TypeVar("S", bound=Settings)

NOT_YET = "Not measured yet."
"""Text of a page in place of missing figures."""


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
    """The figures in a file, or None where the file does not exist. Raises CorruptArtefactError where it is damaged."""
    return parse_json(kind, path) if path.exists() else None


def filled(text: str, name: str, command: str, part: str, *, gap: str = "\n\n") -> str:
    """A page with `part` between its two marks. The first mark names the command that writes the part; `gap` separates mark and part.

    Raises:
        SystemExit: a mark is missing.
    """
    begin, end = f"<!-- {name}: {command} -->", f"<!-- end of {name} -->"
    before, opening, rest = text.partition(begin)
    _, closing, after = rest.partition(end)
    if not (opening and closing):
        raise SystemExit(f"the marks of part {name!r} are missing: {begin} and {end}")
    return f"{before}{begin}{gap}{part}{gap}{end}{after}"
