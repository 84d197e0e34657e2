"""Where the time of a run goes: each step of each stage along its own clock, as a picture and a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from diet_ray.memory.events import read_events
from diet_ray.memory.layout import events_file
from diet_ray.report.page import Section, panel, write_page
from diet_ray.report.status import RunStatus
from diet_ray.report.summary import RunSummary

LATEST = 40
"""Stages that a picture has room for."""


@dataclass
class Attempt:
    """A stage from its begin to its commit, or to where it was interrupted."""

    stage: int
    """Its index."""
    block: str
    """The block that it took in."""
    steps: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, begin in seconds after the stage's and length in seconds of each step; the last may have been interrupted."""
    committed: bool = False
    """Whether it was committed."""

    @property
    def seconds(self) -> float:
        """From its begin to the end of the last step."""
        return max((begin + length for _, begin, length in self.steps), default=0.0)


def attempts(events: list[dict[str, Any]]) -> list[Attempt]:
    """The attempts at stages that a run's events tell of, in order; a stage that was interrupted and done again has several.

    A step that was interrupted lasts until the last event of its attempt; where nothing more was heard of it, it has no length.
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


def plot_timeline(tried: list[Attempt]) -> Figure:
    """One bar per attempt, the first on top, its steps in their colours; attempts that were not committed are pale."""
    tried = tried[-LATEST:]
    names = list(dict.fromkeys(name for attempt in tried for name, _, _ in attempt.steps))
    colour = {name: f"C{number % 10}" for number, name in enumerate(names)}
    figure, axis = plt.subplots(figsize=(9.5, 1.3 + 0.28 * max(len(tried), 1)), layout="constrained")
    for row, attempt in enumerate(tried):
        for name, begin, length in attempt.steps:
            axis.barh(row, length, left=begin, height=0.7, color=colour[name], alpha=1.0 if attempt.committed else 0.35)
    axis.set_yticks(
        range(len(tried)), [one.block if one.committed else f"{one.block} (not committed)" for one in tried]
    )
    axis.invert_yaxis()
    axis.set_xlabel("seconds since the stage began")
    axis.grid(axis="x", alpha=0.3)
    if names:
        handles = [Patch(color=colour[name]) for name in names]
        figure.legend(handles, names, loc="outside upper center", ncols=7, frameon=False)
    return figure


def write_timeline(path: Path, run: Path, run_status: RunStatus) -> None:
    """Write the page of a run: its status, where its time went, and a table of its stages; the picture lies beside it as PNG."""
    matplotlib.use("agg")
    tried = attempts(read_events(events_file(run))[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        [
            one.block,
            str(one.stage),
            "yes" if one.committed else "no",
            f"{one.seconds:.1f}",
            ", ".join(f"{name} {length:.1f}" for name, _, length in one.steps),
        ]
        for one in tried
    ]
    lost = sum(one.seconds for one in tried if not one.committed)
    note = f"Pale: attempts that were interrupted or are under way, {lost:.0f} s in all. " if lost else ""
    if len(tried) > LATEST:
        note += f"The picture shows the latest {LATEST} of {len(tried)}."
    alt = f"Bars of the steps of {min(len(tried), LATEST)} stages, in seconds since each began"
    timeline = panel(plot_timeline(tried), path.with_suffix(".png"), alt)
    columns = ["block", "stage", "committed", "seconds", "of which"]
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
    """Along the stream: the reference's loss on each block before it learned it, and the time that each step took.

    Stages that have something to warn of are marked; a summary's table says what it is.
    """
    names = [stage.block for stage in summary.stages]
    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
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
