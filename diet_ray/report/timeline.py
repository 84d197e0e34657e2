"""The timeline of a run: a plot and a page of the time of each step, counted from the begin of its stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from diet_ray.memory.events import read_events
from diet_ray.memory.layout import events_file
from diet_ray.report.page import Section, panel, write_page
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


def plot_timeline(all_attempts: list[Attempt]) -> Figure:
    """One bar per attempt, the first on top, with one colour per step; attempts that were not committed are pale."""
    latest = all_attempts[-LATEST:]
    names = list(dict.fromkeys(name for attempt in latest for name, _, _ in attempt.steps))
    colour = {name: f"C{number % 10}" for number, name in enumerate(names)}
    figure = Figure(figsize=(9.5, 1.3 + 0.28 * max(len(latest), 1)), layout="constrained")
    axis = figure.subplots()
    for row, attempt in enumerate(latest):
        for name, begin, length in attempt.steps:
            axis.barh(row, length, left=begin, height=0.7, color=colour[name], alpha=1.0 if attempt.committed else 0.35)
    axis.set_yticks(
        range(len(latest)),
        [attempt.block if attempt.committed else f"{attempt.block} (not committed)" for attempt in latest],
    )
    axis.invert_yaxis()
    axis.set_xlabel("seconds since the stage began")
    axis.grid(axis="x", alpha=0.3)
    if names:
        handles = [Patch(color=colour[name]) for name in names]
        figure.legend(handles, names, loc="outside upper center", ncols=7, frameon=False)
    return figure


def write_timeline(path: Path, run: Path, run_status: RunStatus) -> None:
    """Write the page of a run: its status, the timeline, and a table of its stages; the plot is also written beside it as PNG."""
    matplotlib.use("agg")
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
    note = f"Pale: attempts that were interrupted or still run, {lost:.0f} s in all. " if lost else ""
    if len(all_attempts) > LATEST:
        note += f"The plot shows the latest {LATEST} of {len(all_attempts)}."
    alt = f"Bars of the steps of {min(len(all_attempts), LATEST)} stages, in seconds since each began"
    timeline = panel(plot_timeline(all_attempts), path.with_suffix(".png"), alt)
    columns = ["block", "stage", "committed", "seconds", "seconds of each step"]
    write_page(
        path,
        f"diet_ray run {run.resolve().name}",
        run_status.lines(),
        [
            Section("Time of each stage", panels=[timeline], note=note),
            Section("Stages", columns=columns, rows=rows),
        ],
    )


def plot_stages(summary: RunSummary) -> Figure:
    """Per stage: the reference's loss on the block before it trained on it, and the time of each step.

    Stages with warnings are marked; the table of the summary lists the warnings.
    """
    names = [stage.block for stage in summary.stages]
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(names, [stage.reference_logloss for stage in summary.stages], marker="o")
    warned = [stage for stage in summary.stages if stage.warnings]
    if warned:
        above.plot(
            [stage.block for stage in warned],
            [stage.reference_logloss for stage in warned],
            "rx",
            markersize=10,
            label="with warnings",
        )
        above.legend(frameon=False)
    above.set_ylabel("reference LogLoss (nats)")
    above.grid(alpha=0.3)
    bottom = [0.0] * len(names)
    for step in dict.fromkeys(step for stage in summary.stages for step in stage.steps):
        seconds = [stage.steps.get(step, 0.0) for stage in summary.stages]
        below.bar(names, seconds, bottom=bottom, label=step)
        bottom = [a + b for a, b in zip(bottom, seconds, strict=True)]
    below.set_ylabel("seconds")
    below.tick_params(axis="x", rotation=45)
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    return figure
