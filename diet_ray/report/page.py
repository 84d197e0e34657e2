"""A page: one HTML file that needs no other file. The verdict stands first, then the picture, and tables are folded.

It is laid out for a phone of 390 pixels, a desktop and paper, and for light and dark screens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader

from diet_ray import __version__
from diet_ray.settings import write_whole

COLOURS = {
    "ink": ("#1b1f24", "#e6e8eb"),
    "paper": ("#ffffff", "#15181c"),
    "quiet": ("#57606a", "#a3abb4"),
    "rule": ("#d8dee4", "#3a414a"),
    "link": ("#0b57a4", "#79b8ff"),
    "blue": ("#0072b2", "#5ab4e6"),
    "vermilion": ("#d55e00", "#f0884a"),
    "green": ("#009e73", "#3ecf9f"),
    "amber": ("#b07a00", "#e0aa3e"),
    "purple": ("#a8508a", "#d98cc4"),
    "sky": ("#3d94c9", "#8cc8ee"),
    "brown": ("#7a5230", "#c79f7a"),
    "violet": ("#6f6fae", "#a8a8e6"),
    "olive": ("#8a8a00", "#c6c646"),
    "slate": ("#7f8fa6", "#8d9db4"),
}
"""Every colour of the pages and their plots, on a light and on a dark screen. Colour-blind readers can tell those of a plot's series apart
(Okabe & Ito 2008)."""


def seed_names(seeds: int) -> str:
    """The seeds of `seeds` trainings of a candidate, for a footer."""
    return f"0 to {seeds - 1}" if seeds > 1 else "0"


@dataclass
class Panel:
    """A plot; several stand side by side where there is room, and one below the other on a phone."""

    svg: str
    """The `<svg>` element; its text says what the plot shows to those who cannot see it."""


@dataclass
class Section:
    """A heading with an introduction, plots, a table that is folded, and a note on it."""

    heading: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """Cells; text after a line break in a cell is set small on a second line. Cells of a table of two columns may wrap, as text."""
    note: str = ""
    """What a reader of the table has to know; it is folded with the table, where there is one."""
    intro: str = ""
    panels: list[Panel] = field(default_factory=list)
    level: int = 2
    """Level of the heading, 2 or 3."""
    link: str = ""
    """Name of another page in the same folder, the target of `link_text`."""
    link_text: str = ""


@dataclass(frozen=True)
class Source:
    """What a page was made from, for its footer."""

    log: str
    """Name of the log."""
    seed: str
    """The seed or seeds, as text."""
    more: str = ""
    """Anything else, such as the memory's folder."""


def write_page(
    path: Path,
    title: str,
    verdict: str | list[str],
    sections: list[Section],
    source: Source,
    *,
    remarks: list[str] | None = None,
    contents: bool = False,
) -> None:
    """Write the page; every text is escaped.

    Args:
        path: the file to write.
        title: of the page: what it is about.
        verdict: the answer to the reader's question, one or two sentences, or a paragraph each for several.
        sections: in their order; the first has the picture that shows the verdict.
        source: for the footer.
        remarks: paragraphs after the first section: what else there is to say.
        contents: whether a list of the sections of level 2 follows them.
    """
    environment = Environment(loader=PackageLoader("diet_ray"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.get_template("report.html").render(
        title=title,
        verdict=[verdict] if isinstance(verdict, str) else verdict,
        sections=sections,
        source=source,
        remarks=remarks or [],
        contents=contents,
        colours=COLOURS,
        version=__version__,
    )
    write_whole(path, html.encode())
