"""The timeline of a run: a plot and a page of the time of each step, counted from the begin of its stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from diet_ray.memory.events import read_events
from diet_ray.memory.layout import events_file
from diet_ray.report.drawing import SERIES, WIDTH, by_block, panel, styled
from diet_ray.report.page import Section, Source, write_page
from diet_ray.report.status import RunStatus
from diet_ray.report.summary import RunSummary

LATEST = 40
"""The plot shows at most this many attempts."""


@dataclass
class Attempt:
    """A stage from its begin to its commit, or to its interruption."""

    stage: int
    """Its index."""
    block: str
    """The block that it distils."""
    steps: list[tuple[str, float, float]] = field(default_factory=list)
    """Per step: name, begin (seconds since the begin of the stage) and length (seconds); the last step may be incomplete."""
    committed: bool = False
    """Whether it was committed."""

    @property
    def seconds(self) -> float:
        """From its begin to the end of the last step."""
        return max((begin + length for _, begin, length in self.steps), default=0.0)


def attempts(events: list[dict[str, Any]]) -> list[Attempt]:
    """The attempts at stages in the events of a run, in order; a stage that was interrupted and repeated has several.

    An interrupted step lasts until its last event; it has length 0 where its start is its only event.
    """
    attempts: list[Attempt] = []
    began, open_step = 0.0, ""
    for event in events:
        at = event["time"] - began
        if event["kind"] == "stage":
            began, open_step = event["time"], ""
            attempts.append(Attempt(event["stage"], event["block"]))
        elif not attempts:
            continue
        elif event["kind"] == "start":
            open_step = event["step"]
            attempts[-1].steps.append((open_step, at, 0.0))
        elif event["kind"] in ("progress", "step") and event["step"] == open_step:
            name, begin, _ = attempts[-1].steps[-1]
            length = event["seconds"] if event["kind"] == "step" else at - begin
            attempts[-1].steps[-1] = (name, begin, length)
        elif event["kind"] == "committed":
            attempts[-1].committed = True
    return attempts


@styled
def plot_timeline(all_attempts: list[Attempt]) -> Figure:
    """One bar per attempt, the first on top, with one colour per step; attempts that were not committed are pale."""
    latest = all_attempts[-LATEST:]
    names = _steps(attempt.steps for attempt in latest)
    figure = Figure(figsize=(WIDTH, 1.6 + 0.26 * max(len(latest), 1)), layout="constrained")
    axis = figure.subplots()
    for row, attempt in enumerate(latest):
        for name, begin, length in attempt.steps:
            alpha = 1.0 if attempt.committed else 0.35
            axis.barh(row, length, left=begin, height=0.7, color=names[name], alpha=alpha)
    labels = [attempt.block if attempt.committed else f"{attempt.block} (not done)" for attempt in latest]
    axis.set_yticks(range(len(latest)), labels)
    axis.invert_yaxis()
    axis.set_xlabel("seconds since the stage began")
    axis.grid(axis="x")
    if names:
        handles = [Patch(color=colour) for colour in names.values()]
        figure.legend(handles, names, loc="outside upper center", ncols=3)
    return figure


def _steps(attempts: Iterable[list[tuple[str, float, float]]]) -> dict[str, str]:
    """The colour of each step."""
    names = dict.fromkeys(name for steps in attempts for name, _, _ in steps)
    return {name: SERIES[number % len(SERIES)] for number, name in enumerate(names)}


def write_timeline(path: Path, run: Path, run_status: RunStatus) -> None:
    """Write the page of a run: its status, the timeline, and a table of its stages; the plot is also written beside it as SVG."""
    all_attempts = attempts(read_events(events_file(run))[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        [
            attempt.block,
            str(attempt.stage),
            "yes" if attempt.committed else "no",
            f"{attempt.seconds:.1f}",
            ", ".join(f"{name} {length:.1f}" for name, _, length in attempt.steps),
        ]
        for attempt in all_attempts
    ]
    lost = sum(attempt.seconds for attempt in all_attempts if not attempt.committed)
    remarks = [f"Pale: attempts that were interrupted or still run, {lost:.0f} s in all."] if lost else []
    if len(all_attempts) > LATEST:
        remarks.append(f"The plot shows the latest {LATEST} of {len(all_attempts)}.")
    alt = f"Bars of the steps of {min(len(all_attempts), LATEST)} stages, in seconds since each began"
    timeline = panel(plot_timeline(all_attempts), path.with_suffix(".svg"), alt)
    columns = ["block", "stage", "committed", "seconds", "seconds of each step"]
    stages = Section("Time of each stage", columns=columns, rows=rows, panels=[timeline])
    first, *others = run_status.lines()
    write_page(
        path,
        f"Distillation of {run_status.log}, stage by stage",
        f"{first}.",
        [stages],
        Source(run_status.log, str(run_status.seed), f"run {run_status.run}"),
        remarks=[*remarks, *(f"{line}." for line in others)],
    )


@styled
def plot_losses(summary: RunSummary) -> Figure:
    """The reference's loss on each block before it trained on it; stages with warnings are marked."""
    names = [stage.block for stage in summary.stages]
    figure, axis = by_block(names)
    axis.plot([stage.reference_logloss for stage in summary.stages], marker="o")
    warned = [place for place, stage in enumerate(summary.stages) if stage.warnings]
    if warned:
        losses = [summary.stages[place].reference_logloss for place in warned]
        axis.plot(warned, losses, "x", color=SERIES[1], markersize=10, label="with warnings")
        axis.legend()
    axis.set_ylabel("reference LogLoss (nats)")
    return figure


@styled
def plot_steps(summary: RunSummary) -> Figure:
    """The time of each step, one bar per stage."""
    names = [stage.block for stage in summary.stages]
    figure, axis = by_block(names)
    bottom = [0.0] * len(names)
    for number, step in enumerate(dict.fromkeys(step for stage in summary.stages for step in stage.steps)):
        seconds = [stage.steps.get(step, 0.0) for stage in summary.stages]
        axis.bar(range(len(names)), seconds, bottom=bottom, color=SERIES[number % len(SERIES)], label=step)
        bottom = [a + b for a, b in zip(bottom, seconds, strict=True)]
    axis.set_ylabel("seconds")
    figure.legend(loc="outside upper center", ncols=3)
    return figure
