"""The pictures of the fidelity report: small panels that stand side by side on a wide screen and one below the other on a phone."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from diet_ray.judge.fidelity.config import Method
from diet_ray.judge.fidelity.measures import CHANCE, Interval
from diet_ray.judge.fidelity.names import named
from diet_ray.judge.fidelity.result import CEILING, CostResult, Scores, StagePoint
from diet_ray.report.drawing import INK, PAPER, QUIET, RULE, SERIES, WIDTH, styled

FAMILIES = {
    ("memory", "drawn"): SERIES[0],
    ("refined", "drawn"): SERIES[1],
    ("random", "soft"): SERIES[2],
    ("random", "hard"): SERIES[3],
}
"""Colours that are the same in every report."""

OTHERS = (*SERIES[4:9], *FAMILIES.values())
FULL_COLOUR = INK
MARKERS = "osD^vPXph*<>"
NAMES = {"auc": "AUC", "logloss": "LogLoss (nats)"}


@dataclass(frozen=True)
class Look:
    """How a set is drawn, the same in all pictures."""

    colour: str
    marker: str


@dataclass
class Line:
    """One method along an axis."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


@dataclass
class Palette:
    """Gives every method a colour and a marker of its own: that of its family, where it is the first of it, or the next free one."""

    given: dict[str, Look] = field(default_factory=dict)

    def look(self, name: str, method: Method | None) -> Look:
        """The look of a method."""
        if name == CEILING or method is None or (method.of_full_log and method.embeddings == "own"):
            return Look(FULL_COLOUR, "o")
        if name not in self.given:
            used = [look.colour for look in self.given.values()]
            family = FAMILIES.get((method.rows, method.labels))
            free = [colour for colour in ([family] if family else []) + list(OTHERS) if colour not in used]
            number = len(self.given)
            self.given[name] = Look(free[0] if free else OTHERS[number % 5], MARKERS[(number + 1) % len(MARKERS)])
        return self.given[name]


def matrix(scores: list[Scores], candidates: list[str], task: str, metric: str) -> np.ndarray:
    """`[C, S]` float64: a metric of the candidates of one set, in the order of `candidates`; nan where there is none."""
    values_of = {score.candidate: score.values[task][metric] for score in scores}
    width = max((len(values) for values in values_of.values()), default=0)
    rows = [values_of.get(name, []) for name in candidates]
    return np.array([row + [math.nan] * (width - len(row)) for row in rows], dtype=np.float64).reshape(len(rows), width)


def mean_and_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 1) over the last axis, nan ignored; nan where nothing, or one value, is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=-1), np.nanstd(values, axis=-1, ddof=1)


def pool_mean(values: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Mean AUC over the candidates, with one standard deviation over seeds below and above it.

    Args:
        values: `[C, S]` on a set; a diverged training counts as AUC 0.5.
        measured: `[C]` bool, the candidates with a result on the full log.
    """
    if not measured.any() or not values.shape[1]:
        return math.nan, math.nan, math.nan
    mean, sd = mean_and_sd(np.where(np.isnan(values), CHANCE, values)[measured].mean(axis=0))
    reach = 0.0 if np.isnan(sd) else float(sd)
    return float(mean), float(mean) - reach, float(mean) + reach


@styled
def plot_fidelity(
    full: np.ndarray, other: np.ndarray, names: list[str], title: str, look: Look, metric: str, note: str
) -> Figure:
    """Figure 1 of the paper for one set: a point per candidate, the full log on x and the reduced set on y, bars of one sd over seeds.

    Args:
        full: `[C, S]` metric on the full log.
        other: `[C, R]` metric on the set.
        names: the C candidates.
        title: name of the set.
        look: of the set.
        metric: `auc` or `logloss`.
        note: a line within the axes.
    """
    figure, axis = _panel(5.1)
    (x, x_sd), (y, y_sd) = mean_and_sd(full), mean_and_sd(other)
    shown = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    axis.set_title(_broken(title))
    axis.set_xlabel(f"full log: {NAMES[metric]}")
    axis.set_ylabel(f"this set: {NAMES[metric]}")
    axis.grid()
    if not len(shown):
        axis.text(0.5, 0.5, "no candidate has a result", transform=axis.transAxes, ha="center")
        return figure
    axis.errorbar(
        x[shown],
        y[shown],
        xerr=np.nan_to_num(x_sd[shown]),
        yerr=np.nan_to_num(y_sd[shown]),
        fmt=look.marker,
        color=look.colour,
        ecolor=to_rgba(look.colour, 0.4),
        elinewidth=0.9,
        markersize=6,
        markeredgecolor=PAPER,
        markeredgewidth=0.5,
    )
    _limits(axis, x[shown], y[shown])
    axis.axline((x[shown][0], x[shown][0]), slope=1, color=QUIET, linewidth=0.9, linestyle="--", zorder=0)
    sign = 1 if metric == "auc" else -1
    _label(
        axis, x[shown], y[shown], {place: names[shown[place]] for place in _extremes(sign * x[shown], sign * y[shown])}
    )
    axis.text(0.03, 0.97, note, transform=axis.transAxes, va="top", color=INK)
    return figure


@styled
def plot_agreement(intervals: dict[str, Interval], looks: dict[str, Look], title: str) -> Figure:
    """A mark and its interval per set, the first on top."""
    figure, axis = _panel(1.2 + 0.42 * len(intervals))
    for place, (name, interval) in enumerate(intervals.items()):
        look = looks[name]
        axis.plot([interval.low, interval.high], [place, place], color=look.colour, linewidth=1.6)
        axis.plot([interval.value], [place], look.marker, color=look.colour, markersize=6)
    axis.axvline(0, color=QUIET, linewidth=0.9, linestyle="--", zorder=0)
    axis.set_xlim(right=1.02)
    axis.set_ylim(len(intervals) - 0.5, -0.5)
    axis.set_yticks(range(len(intervals)), [name.replace("/", "/\n", 1) for name in intervals])
    axis.set_xlabel("Spearman with the full log")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_title(title)
    axis.grid(axis="x")
    return figure


@styled
def plot_curves(
    lines: list[Line], looks: dict[str, Look], level: tuple[float, str] | None, metric: str, own: float
) -> Figure:
    """Figure 3 of the paper: a figure against the size of the set, one line per method, with bars from `low` to `high`.

    Args:
        lines: the methods; x is the ratio.
        looks: per method.
        level: the value of the full log, and its label.
        metric: name of the vertical axis.
        own: the stream's own ratio, marked.
    """
    figure, axis = _panel(4.6)
    for number, line in enumerate(lines):
        look = looks[line.name]
        aside = 1.025 ** (number - (len(lines) - 1) / 2)  # bars of methods at one ratio stand beside one another
        below = np.nan_to_num(np.subtract(line.y, line.low)).clip(min=0)
        above = np.nan_to_num(np.subtract(line.high, line.y)).clip(min=0)
        axis.errorbar(
            [x * aside for x in line.x],
            line.y,
            yerr=[below, above],
            color=look.colour,
            marker=look.marker,
            markersize=5,
            linewidth=1.6,
            elinewidth=0.9,
            capsize=2,
            label=named(line.name),
        )
    if level is not None and math.isfinite(level[0]):
        axis.axhline(level[0], color=FULL_COLOUR, linewidth=1, linestyle="--", label=level[1])
    ratios = sorted({x for line in lines for x in line.x})
    axis.set_xscale("log")
    axis.set_xticks(ratios, [f"{ratio:.3g}" for ratio in np.multiply(ratios, 100)])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.axvline(own, color=QUIET, linewidth=4, alpha=0.4, zorder=0)
    axis.set_xlabel("size, % of the log's rows (grey: the stream's own)")
    axis.set_ylabel(metric)
    axis.grid(axis="y")
    _legend(figure, axis)
    return figure


@styled
def plot_stages(points: list[StagePoint], looks: dict[str, Look], task: str, title: str) -> Figure:
    """AUC on the next block after each stage: one line per set, with a band of one sd over seeds."""
    figure, axis = _panel(4.5)
    stages = sorted({point.stage for point in points})
    blocks = {point.stage: point.block for point in points}
    for name in dict.fromkeys(point.set for point in points):
        own = sorted((point for point in points if point.set == name), key=lambda point: point.stage)
        width = max(len(point.values[task]["auc"]) for point in own)
        values = np.array([(point.values[task]["auc"] + [math.nan] * width)[:width] for point in own])
        mean, sd = mean_and_sd(values)
        x = [point.stage for point in own]
        look = looks[name]
        axis.plot(x, mean, color=look.colour, marker=look.marker, markersize=4, linewidth=1.6, label=named(name))
        axis.fill_between(
            x, mean - np.nan_to_num(sd), mean + np.nan_to_num(sd), color=look.colour, alpha=0.18, linewidth=0
        )
    step = max(1, math.ceil(len(stages) / 7))
    axis.set_xticks(stages[::step], [blocks[stage] for stage in stages[::step]], rotation=35, ha="right")
    axis.set_xlabel("block judged on, the next one after the blocks learned from")
    axis.set_ylabel(f"{task}: AUC")
    axis.set_title(title)
    axis.grid()
    _legend(figure, axis)
    return figure


@styled
def plot_cost(cost: CostResult, memory: Look) -> Figure:
    """CPU seconds of one training per candidate, on the full log and on the memory, with their ratio."""
    lines = sorted(cost.candidates, key=lambda line: line.full_cpu)
    figure, axis = _panel(1.5 + 0.29 * len(lines))
    places = np.arange(len(lines))
    full, small = [line.full_cpu for line in lines], [line.memory_cpu for line in lines]
    axis.hlines(places, small, full, color=RULE, linewidth=2, zorder=0)
    axis.plot(small, places, memory.marker, color=memory.colour, markersize=6, label=named(cost.memory_set))
    axis.plot(full, places, "o", color=FULL_COLOUR, markersize=6, label="full log")
    for place, line in enumerate(lines):
        text = f"{line.full_cpu / line.memory_cpu:.1f}x" if line.memory_cpu > 0 else ""
        where = (max(line.full_cpu, line.memory_cpu), place)
        axis.annotate(text, where, xytext=(7, 0), textcoords="offset points", va="center")
    axis.set_xscale("log")
    axis.margins(x=0.16)
    axis.set_ylim(-0.7, len(lines) - 0.3)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(places, [line.candidate for line in lines])
    axis.set_xlabel("CPU seconds of one training (log scale)")
    axis.grid(axis="x")
    _legend(figure, axis)
    return figure


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = 1 if max((len(label) for label in labels), default=0) > 24 else 2
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def _limits(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """On x the full log's range; on y the set's range, and the part of the diagonal above the points."""
    low, high = float(x.min()), float(x.max())
    room = 0.08 * (high - low) or 0.01
    axis.set_xlim(low - room, high + room)
    bottom, top = min(low, float(y.min())), max(high, float(y.max()))
    room = 0.08 * (top - bottom) or 0.01
    axis.set_ylim(bottom - room, top + 2 * room)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_locator(MaxNLocator(6))


def _extremes(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Candidates to name: the best and worst on the full log, the best on the set, and the one farthest from the others' offset."""
    offset = np.abs((y - x) - np.median(y - x))
    return list(dict.fromkeys(int(place) for place in (x.argmax(), x.argmin(), y.argmax(), offset.argmax())))


def _label(axis: Axes, x: np.ndarray, y: np.ndarray, names: dict[int, str]) -> None:
    """Write names beside their marks, each in the place around its mark where it covers the fewest marks and other names."""
    marks = axis.transAxes.inverted().transform(axis.transData.transform(np.stack([x, y], axis=1)))
    line = np.linspace(0, 1, 60)
    diagonal = axis.transAxes.inverted().transform(axis.transData.transform(np.stack([_along(axis, line)] * 2, axis=1)))
    taken = [(0.0, 0.88, 0.75, 1.0)]  # the note
    for place, name in names.items():
        width, height = 0.026 * len(name), 0.05
        best, best_score = (0.0, 0.0, 0.0, 0.0), math.inf
        for radius in (0.05, 0.13, 0.22, 0.32):
            for angle in np.arange(0, 2 * math.pi, math.pi / 8):
                aside, up = radius * math.cos(angle), radius * math.sin(angle)
                left = marks[place, 0] + aside - (width if aside < -1e-9 else 0)
                low = marks[place, 1] + up - height / 2
                box = (left, low, left + width, low + height)
                outside = box[0] < 0.01 or box[1] < 0.01 or box[2] > 1 or box[3] > 1
                score = 100 * outside + 10 * sum(_overlap(box, other) for other in taken)
                score += 3 * _inside(box, marks) + 0.3 * _inside(box, diagonal) + 4 * radius
                if score < best_score:
                    best, best_score = box, score
        taken.append(best)
        near = (min(max(marks[place, 0], best[0]), best[2]), min(max(marks[place, 1], best[1]), best[3]))
        axis.annotate(
            "",
            marks[place],
            near,
            xycoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": QUIET, "lw": 0.6},
        )
        axis.text(best[0], best[1] + height / 2, name, transform=axis.transAxes, va="center")


def _along(axis: Axes, share: np.ndarray) -> np.ndarray:
    low, high = axis.get_xlim()
    return np.asarray(low + share * (high - low))


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _inside(box: tuple[float, ...], points: np.ndarray) -> int:
    room = 0.015
    within = (points >= np.array(box[:2]) - room) & (points <= np.array(box[2:]) + room)
    return int(within.all(axis=1).sum())


def _broken(title: str) -> str:
    """A long name of a set on two lines."""
    return title if len(title) <= 30 else ",\n".join(title.rsplit(", ", 1))
