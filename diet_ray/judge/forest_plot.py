"""A forest plot: every candidate's difference to the best, with its interval."""

from __future__ import annotations

from matplotlib.figure import Figure

from diet_ray.figures import number
from diet_ray.judge.decision import Decided
from diet_ray.report.drawing import QUIET, SERIES, WIDTH, styled

BEST, OTHER = SERIES[0], QUIET
"""Colours of those that may be the best, and of the others."""


@styled
def plot_forest(parts: list[Decided], undecided: set[str], intervals: str) -> Figure:
    """A mark per candidate, the best at the top, with the interval of its difference to the best.

    Args:
        parts: the candidates, the best first.
        undecided: those that cannot be told from the best, which stand on shaded ground, as the best does.
        intervals: what they hold, such as `95 % intervals`.
    """
    figure = Figure(figsize=(WIDTH, 1.2 + 0.27 * len(parts)), layout="constrained")
    axis = figure.subplots()
    for place, part in enumerate(parts):
        of_group = place == 0 or part.candidate in undecided
        if of_group:
            axis.axhspan(place - 0.5, place + 0.5, color=BEST, alpha=0.12, linewidth=0)
        colour = BEST if of_group else OTHER
        axis.plot([part.low, part.high], [place, place], color=colour, linewidth=1.4)
        axis.plot([part.difference], [place], "o", color=colour, markersize=5)
    axis.axvline(0, color=QUIET, linewidth=0.9, linestyle="--", zorder=0)
    axis.set_yticks(range(len(parts)), [f"{part.candidate}  {part.group}".rstrip() for part in parts])
    axis.set_ylim(len(parts) - 0.5, -0.5)
    axis.set_xlabel(f"nats above the best,\n{intervals}")
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x")
    return figure


def percent(confidence: float) -> str:
    """The intervals of a confidence, in words."""
    return f"{100 * confidence:g} % intervals"


def forest_alt(parts: list[Decided]) -> str:
    """The text of the figure for those who cannot see it."""
    shown = (f"{part.candidate} {number(part.difference, 4, signed=True)}" for part in parts[1:])
    return f"Nats above {parts[0].candidate}: {', '.join(shown)}."
