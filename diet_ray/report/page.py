"""A page of plots: one HTML file that needs no other file, and its plots as PNG beside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader
from matplotlib import rc_context
from matplotlib.figure import Figure

from diet_ray.settings import whole_file, write_whole


@dataclass
class Panel:
    """A small plot; several panels stand side by side where there is room."""

    source: str
    """Data URI."""
    alt: str
    """Alternative text that describes the plot."""
    width: int
    """CSS pixels."""
    height: int


@dataclass
class Section:
    """A heading with an introduction, plots, a table and a note under it; the introduction comes first, the note last."""

    heading: str
    image: str = ""
    """PNG, base64."""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """Cells; text after a line break in a cell is set small on a second line. Cells of a table of two columns may wrap, as text."""
    note: str = ""
    intro: str = ""
    panels: list[Panel] = field(default_factory=list)
    level: int = 2
    """Level of the heading, 2 or 3."""
    link: str = ""
    """Name of another page in the same folder, the target of `link_text`."""
    link_text: str = ""


def write_page(
    path: Path, title: str, lead: str | list[str], sections: list[Section], *, contents: bool = False
) -> None:
    """Write the page; every text is escaped.

    Args:
        path: the file to write.
        title: of the page.
        lead: its first paragraph or paragraphs.
        sections: in their order.
        contents: whether a list of the sections of level 2 follows the lead.
    """
    environment = Environment(loader=PackageLoader("diet_ray"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.get_template("report.html").render(
        title=title, lead=[lead] if isinstance(lead, str) else lead, sections=sections, contents=contents
    )
    write_whole(path, html.encode())


def picture(figure: Figure, path: Path) -> str:
    """Save a figure as PNG and return it in base64."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    write_whole(path, buffer.getvalue())
    return base64.b64encode(buffer.getvalue()).decode()


def panel(figure: Figure, path: Path, alt: str) -> Panel:
    """Save a figure as PNG and return it as SVG, which stays sharp on a phone and in print."""
    with whole_file(path) as draft:
        figure.savefig(draft, format="png", dpi=150)
    figure.set_layout_engine("none")  # the layout is done; computing it again takes longer than drawing
    buffer = BytesIO()
    # With a fixed salt and no date, the same figure gives the same bytes. Text is stored as text: half the size, and searchable.
    with rc_context({"svg.hashsalt": "diet_ray", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    source = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Panel(source, alt, width, height)
