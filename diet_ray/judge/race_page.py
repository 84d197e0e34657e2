"""The page of a race: the answer first, then the differences to the winner, the places rung by rung, and the cost."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diet_ray.figures import times
from diet_ray.judge.decision import Decided
from diet_ray.judge.forest_plot import BEST, OTHER, forest_alt, percent, plot_forest
from diet_ray.judge.race_rules import LINE_TITLES, Race
from diet_ray.report.drawing import WIDTH, panel, styled
from diet_ray.report.page import Section, Source, write_page

PAGE = "race.html"


def write_race(out: Path, race: Race, source: Source) -> None:
    """Write the page and its plots, as SVG, to `out`."""
    sections = []
    parts = compared(race)
    if parts:
        figure = plot_forest(parts, {*race.standing}, f"{percent(race.confidence)} over all looks")
        sections.append(
            Section(
                "Difference to the leader",
                intro="To the right is worse. Candidates on the shaded ground are left in the race: they cannot be told from the leader. "
                "Each of the others is shown after the rung at which it left, compared with the leader of that rung.",
                panels=[panel(figure, out / "race-forest.svg", forest_alt(parts))],
            )
        )
    if len(race.rungs) > 1:
        sections.append(
            Section(
                "Places, rung by rung",
                intro="A line per candidate; the best is at the top. A cross marks the rung after which it left.",
                panels=[panel(plot_places(race), out / "race-places.svg", _alt(race))],
            )
        )
    sections.append(
        Section(
            "Rungs",
            columns=["blocks met", "rows met", "began", "left after it", "examples learned", "CPU seconds"],
            rows=[
                [
                    f"{rung.share:g}",
                    f"{rung.rows:,}",
                    str(rung.entered),
                    str(len(rung.left)),
                    f"{rung.examples:,}",
                    f"{rung.cpu_seconds:,.1f}",
                ]
                for rung in race.rungs
            ],
            note=f"A full training of one candidate with one seed learns {race.rows_of_log:,} rows.",
        )
    )
    confirmed = race.confirmation.decision if race.confirmation else None
    if race.confirmation and confirmed:
        figure = plot_forest(confirmed.candidates, {*confirmed.undecided}, percent(race.confidence))
        sections.append(
            Section(
                "Full backfills of the last candidates",
                intro=" ".join(f"{line}." for line in confirmed.sentences()),
                panels=[panel(figure, out / "race-confirmed.svg", forest_alt(confirmed.candidates))],
                note=f"{race.confirmation.cpu_seconds:,.1f} CPU seconds.",
            )
        )
    rows = [line.cells() for line in race.lines()]
    sections.append(Section("Every candidate", columns=LINE_TITLES, rows=rows))
    title = f"Race of {times(len(race.candidates), 'candidate')} on {source.log}, {race.block}"
    remarks = [f"{line}." for line in race.remarks()]
    write_page(out / PAGE, title, f"{race.sentence}.", sections, source, remarks=remarks)


def compared(race: Race) -> list[Decided]:
    """The last comparison of each candidate that has one: those that are left, then those that left; the group tells after which rung."""
    return [
        line.decided.model_copy(update={"group": f"left at rung {line.rungs}" if line.why else ""})
        for line in race.lines()
        if line.decided
    ]


@styled
def plot_places(race: Race) -> Figure:
    """A bump chart: the place of each candidate after each rung that it finished."""
    places: dict[str, list[tuple[int, int]]] = {}
    for number, rung in enumerate(race.rungs, start=1):
        if rung.decision:
            for place, part in enumerate(rung.decision.candidates, start=1):
                places.setdefault(part.candidate, []).append((number, place))
    figure = Figure(figsize=(WIDTH, 1.2 + 0.26 * len(places)), layout="constrained")
    axis = figure.subplots()
    for name, points in places.items():
        stays = name in race.standing
        colour = BEST if stays else OTHER
        numbers, of_name = zip(*points, strict=True)
        axis.plot(numbers, of_name, color=colour, marker="o", markersize=3.5, linewidth=1.6 if stays else 1.0)
        if not stays:
            axis.plot(numbers[-1:], of_name[-1:], "x", color=colour, markersize=8)
        axis.annotate(name, points[0], (-8, 0), textcoords="offset points", ha="right", va="center")
        if stays and len(points) > 1:
            axis.annotate(name, points[-1], (8, 0), textcoords="offset points", ha="left", va="center")
    axis.set_xlim(0.2, len(race.rungs) + 0.6)
    axis.set_ylim(len(places) + 0.6, 0.4)
    axis.set_xticks(range(1, len(race.rungs) + 1), [f"{rung.share:g}" for rung in race.rungs])
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("blocks met")
    axis.set_ylabel("place")
    return figure


def _alt(race: Race) -> str:
    """The places in words."""
    return " ".join(
        f"After {rung.rows:,} rows: {', '.join(part.candidate for part in rung.decision.candidates)}."
        for rung in race.rungs
        if rung.decision
    )
