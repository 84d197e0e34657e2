"""The page of a live sweep: the decision in words, every candidate's difference to the best as a forest plot, and the table."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from diet_ray.figures import number
from diet_ray.judge.decision import Decided
from diet_ray.judge.fidelity.order import order_lines
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.report.page import Section, panel, write_page

BEST, OTHER, SHADE = "#0072b2", "#555555", "#0072b21f"

PAGE = "leaderboard.html"
"""The page's file, beside it `decision.png`."""


def write_decision(out: Path, board: Leaderboard) -> None:
    """Write `leaderboard.html`, which needs no other file, and its plot as PNG; `board` has a decision."""
    decision = board.decision
    assert decision is not None, "only live sweeps have one"
    rows = [
        [
            part.candidate,
            number(part.mean, 4),
            part.against_best("\n"),
            part.group,
            f"{100 * part.best:.0f}\u00a0%",
            number(part.adjusted, 4),
            _rows_needed(part),
        ]
        for part in decision.candidates
    ]
    columns = [
        "candidate",
        "loss, nats",
        "minus the best",
        "group",
        "probability\nof being best",
        "p, corrected",
        "rows\nto decide",
    ]
    note = (
        f"Intervals and groups hold for all pairs together with {100 * decision.confidence:g} % confidence. Candidates that share a letter "
        "cannot be told apart. Rows to decide: as many would tell the candidate from the best, if the difference stays."
    )
    lead = [
        *(f"{sentence}." for sentence in decision.sentences()),
        f"{len(decision.candidates)} candidates were launched from {board.units:,} units and met the same {decision.rows:,} rows from "
        f"{board.block} on, each predicted just before it was learned.",
        *(f"{line}." for line in order_lines(board.fidelity)),
    ]
    if decision.diverged:
        lead.append(f"Diverged, and left out: {', '.join(decision.diverged)}.")
    figure = plot_forest(decision.candidates, {*decision.undecided}, percent(decision.confidence))
    sections = [
        Section(
            "Difference to the best",
            intro="To the right is worse. Candidates on the shaded ground cannot be told from the best.",
            panels=[panel(figure, out / "decision.png", forest_alt(decision.candidates))],
        ),
        Section("Every candidate", columns=columns, rows=rows, note=note),
    ]
    write_page(out / PAGE, f"Candidates on {board.block}", lead, sections)


def plot_forest(parts: list[Decided], undecided: set[str], intervals: str) -> Figure:
    """A mark per candidate, the best at the top, with the interval of its difference to the best.

    Args:
        parts: the candidates, the best first.
        undecided: those that cannot be told from the best, which stand on shaded ground, as the best does.
        intervals: what they hold, such as `95 % intervals`.
    """
    figure = Figure(figsize=(6.4, 1.0 + 0.26 * len(parts)), layout="constrained")
    axis = figure.subplots()
    for place, part in enumerate(parts):
        of_group = place == 0 or part.candidate in undecided
        if of_group:
            axis.axhspan(place - 0.5, place + 0.5, color=SHADE, linewidth=0)
        colour = BEST if of_group else OTHER
        axis.plot([part.low, part.high], [place, place], color=colour, linewidth=1.4)
        axis.plot([part.difference], [place], "o", color=colour, markersize=4.5)
    axis.axvline(0, color="#777777", linewidth=0.9, linestyle="--", zorder=0)
    axis.set_yticks(range(len(parts)), [f"{part.candidate}  {part.group}".rstrip() for part in parts], fontsize=8)
    axis.set_ylim(len(parts) - 0.5, -0.5)
    axis.set_xlabel(f"nats above the best, {intervals}")
    axis.grid(axis="x", alpha=0.25)
    return figure


def _rows_needed(part: Decided) -> str:
    if part.rows_needed == 0:
        return "-"
    return number(part.rows_needed, 0) if math.isfinite(part.rows_needed) else "more seeds"


def percent(confidence: float) -> str:
    """The intervals of a confidence, in words."""
    return f"{100 * confidence:g} % intervals"


def forest_alt(parts: list[Decided]) -> str:
    """The text of the figure for those who cannot see it."""
    shown = (f"{part.candidate} {number(part.difference, 4, signed=True)}" for part in parts[1:])
    return f"Nats above {parts[0].candidate}: {', '.join(shown)}."
