"""How plots look, and plots as SVG: letters that a phone can show, and colours that follow a dark screen."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from diet_ray.report.page import COLOURS, Panel
from diet_ray.settings import write_whole

WIDTH = 5.0
"""Inches that every figure is wide. A page lets it fill the width of a phone, so that all letters of all plots have one size there."""

LETTERS = 11.5
"""Points. A figure is 360 points wide and a page leaves 358 pixels of a phone's 390 to it: letters are at least 11 pixels high."""

INK, PAPER, QUIET, RULE = (COLOURS[name][0] for name in ("ink", "paper", "quiet", "rule"))
SERIES = [
    COLOURS[name][0]
    for name in ("blue", "vermilion", "green", "amber", "purple", "sky", "brown", "violet", "olive", "slate")
]
"""Colours of the series of a plot, in the order in which they are given out."""

MOST_NAMES = 18
"""Blocks that are named below a plot; of more, every second or third one is, and so on."""

styled = rc_context(
    {
        **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), LETTERS),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), LETTERS),
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), QUIET),
        "figure.facecolor": PAPER,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it; where a reader lacks it, other letters are narrower
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "grid.color": RULE,
        "legend.frameon": False,
        # With a fixed salt, the same figure gives the same bytes. Text is stored as text: half the size, and searchable.
        "svg.hashsalt": "diet_ray",
        "svg.fonttype": "none",
    }
)
"""Decorates a function that draws: what it makes has the look of our pages."""

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}


@styled
def by_block(names: list[str]) -> tuple[Figure, Axes]:
    """A figure with the names of blocks below it, at 0, 1, ..."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axis = figure.subplots()
    every = -(-len(names) // MOST_NAMES)
    axis.set_xticks(range(0, len(names), every or 1), names[:: every or 1], rotation=90)
    axis.grid(axis="y")
    return figure, axis


@styled
def panel(figure: Figure, path: Path, alt: str) -> Panel:
    """Save a figure as SVG, and make the panel of a page from it.

    Args:
        figure: drawn by a function that is `styled`, `WIDTH` wide.
        path: the file, whose name ends with `.svg`; plots of a page have different names.
        alt: what the plot shows, for those who cannot see it.
    """
    buffer = BytesIO()
    # `savefig` would draw twice, once for a layout that drawing makes anyway.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    write_whole(path, buffer.getvalue())
    return Panel(_inline(buffer.getvalue(), path.stem, alt))


def _inline(svg: bytes, name: str, alt: str) -> str:
    """The element of an SVG file for a page: without a size of its own, with colours as variables and with ids that no other plot has."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - matplotlib has written it just now
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    for definitions in root.findall("{*}defs"):
        for style in definitions.findall("{*}style"):  # the page has it; here it would hold for the whole page
            definitions.remove(style)
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = _local(element.tag)
        values = {_local(key): value for key, value in element.attrib.items()}
        if element.tag in ("g", "svg"):
            values.pop("id", None)
        if "id" in values:
            values["id"] = f"{prefix}-{values['id']}"
        if values.get("href", "").startswith("#"):
            values["href"] = f"#{prefix}-{values['href'][1:]}"
        if "clip-path" in values:
            values["clip-path"] = values["clip-path"].replace("url(#", f"url(#{prefix}-")
        if "style" in values:
            values["style"] = re.sub(r"#[0-9a-f]{6}", lambda hit: _VARIABLES.get(hit[0], hit[0]), values["style"])
        element.attrib, element.tail = values, None
        if len(element):
            element.text = None  # line breaks between elements
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """A name without its namespace, as HTML has it."""
    return name.rpartition("}")[2]
