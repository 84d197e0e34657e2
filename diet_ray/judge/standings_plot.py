"""Plots of standings: a mark per candidate and way of training, as a whole and, where the best crowd, magnified."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diet_ray.figures import number
from diet_ray.judge.standings import Standing
from diet_ray.report.drawing import WIDTH, panel, styled
from diet_ray.report.page import Panel

NAMES = {"auc": "AUC", "logloss": "LogLoss (nats)"}
MAGNIFIED = ", magnified"
CROWDED = 2.5
"""Marks are magnified where all marks together span this multiple of their width."""


def standing_panels(
    lines: list[Standing], task: str, out: Path, name: str, *, ways: tuple[str, ...] = ()
) -> list[Panel]:
    """AUC and LogLoss of standings; a magnified panel stands before one whose marks of interest are crowded.

    Args:
        lines: the standings.
        task: the task.
        out: folder of the SVG files.
        name: begin of their names.
        ways: the ways of training of interest; by default the better half of the marks is.
    """
    panels = []
    for metric in NAMES:
        window = crowded(lines, task, metric, ways)
        for limits in [window, None] if window else [None]:
            file = out / f"{name}-{metric}{'-zoom' if limits else ''}.svg"
            panels.append(
                panel(plot_standings(lines, task, metric, limits), file, _alt(lines, task, metric, zoom=bool(limits)))
            )
    return panels


def crowded(lines: list[Standing], task: str, metric: str, ways: tuple[str, ...] = ()) -> tuple[float, float] | None:
    """Limits around the marks of interest with their bars (see `standing_panels`); None where they take much of the whole anyway."""

    def marks(of: list[Standing]) -> list[tuple[float, float]]:
        both = [(line.mean[task][metric], _reach(line, task, metric)) for line in of]
        return sorted((mark for mark in both if math.isfinite(mark[0])), reverse=metric == "auc")

    every = marks(lines)
    interest = marks([line for line in lines if line.trained_on in ways]) if ways else every[: (len(every) + 1) // 2]
    if len(interest) < 2:
        return None

    def span(of: list[tuple[float, float]]) -> tuple[float, float]:
        return min(value - reach for value, reach in of), max(value + reach for value, reach in of)

    low, high = span(interest)
    whole_low, whole_high = span(every)
    if high == low or whole_high - whole_low < CROWDED * (high - low):
        return None
    room = 0.08 * (high - low)
    return low - room, high + room


@styled
def plot_standings(lines: list[Standing], task: str, metric: str, limits: tuple[float, float] | None = None) -> Figure:
    """A metric of each candidate, the best on top: one mark per way of training, with a bar of one standard deviation over seeds.

    Args:
        lines: the standings.
        task: the task.
        metric: `auc` or `logloss`.
        limits: of the axis; an arrow at its end stands for a mark beyond it.
    """
    candidates = list(dict.fromkeys(line.candidate for line in lines))
    methods = list(dict.fromkeys(line.trained_on for line in lines))
    height = 0.9 + len(candidates) * max(0.28, 0.14 * len(methods)) + (0.24 * len(methods) if len(methods) > 1 else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    for place, method in enumerate(methods):
        of_method = [line for line in lines if line.trained_on == method]
        offset = 0.7 * ((place + 0.5) / len(methods) - 0.5)
        values = [line.mean[task][metric] for line in of_method]
        heights = [candidates.index(line.candidate) + offset for line in of_method]
        bars = axis.errorbar(
            values,
            heights,
            xerr=[_reach(line, task, metric) for line in of_method],
            fmt="osD^vPX"[place % 7],
            markersize=5.5,
            capsize=2,
            label=method,
        )
        for value, up in zip(values, heights, strict=True):
            if limits and not limits[0] <= value <= limits[1]:
                at, arrow = (0.01, "<") if value < limits[0] else (0.99, ">")
                colour = bars.lines[0].get_color()
                axis.plot([at], [up], arrow, color=colour, alpha=0.5, transform=axis.get_yaxis_transform())
    if limits:
        axis.set_xlim(*limits)
    axis.set_xlabel(f"{task}: {NAMES[metric]}{MAGNIFIED if limits else ''}")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.grid(axis="x")
    axis.set_yticks(range(len(candidates)), candidates)
    axis.set_ylim(len(candidates) - 0.4, -0.6)
    if len(methods) > 1:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return figure


def _reach(line: Standing, task: str, metric: str) -> float:
    sd = line.sd[task][metric]
    return sd if math.isfinite(sd) else 0.0


def _alt(lines: list[Standing], task: str, metric: str, *, zoom: bool) -> str:
    shown = "; ".join(f"{line.candidate}, {line.trained_on}: {number(line.mean[task][metric], 4)}" for line in lines)
    return f"{task}, {NAMES[metric]}{MAGNIFIED if zoom else ''}. {shown}."
