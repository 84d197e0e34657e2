"""The pictures of one fidelity report, each with a sentence for readers who cannot see it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from diet_ray.figures import number, times
from diet_ray.judge.fidelity.config import Method
from diet_ray.judge.fidelity.names import AGAIN, named, set_name
from diet_ray.judge.fidelity.plots import (
    Line,
    Look,
    Palette,
    matrix,
    mean_and_sd,
    plot_agreement,
    plot_cost,
    plot_curves,
    plot_fidelity,
    plot_stages,
    pool_mean,
)
from diet_ray.judge.fidelity.result import CostResult, FidelityResult, SetResult
from diet_ray.judge.fidelity.words import cell, compared
from diet_ray.report.drawing import panel
from diet_ray.report.page import Panel, Section


class Pictures:
    """Draws the pictures of a report; `written` are the SVG files made so far."""

    def __init__(self, out: Path, result: FidelityResult, cost: CostResult) -> None:
        self.out, self.result, self.cost = out, result, cost
        self.names = [spec.name for spec in result.candidates]
        self.written: list[Path] = []
        self.chosen = compared(result, cost)
        self.full = {
            (task, metric): matrix(result.full, self.names, task, metric)
            for task in result.tasks
            for metric in ("auc", "logloss")
        }
        self.known = {task: np.isfinite(self.full[task, "auc"]).all(axis=1) for task in result.tasks}
        palette = Palette()
        methods: list[tuple[str, Method | None]] = [(chosen.name, chosen.method) for chosen in self.chosen]
        methods += [(str(sized.method), sized.method) for sized in self._sized()]
        methods += [(name, Method.model_validate(name)) for name in dict.fromkeys(p.set for p in result.stages)]
        methods.append((cost.memory_set, Method.model_validate(cost.memory_set)))
        self.looks: dict[str, Look] = {name: palette.look(name, method) for name, method in methods}

    def agreement(self) -> list[Panel]:
        """Spearman of each chosen set with the full log, a panel per task."""
        panels = []
        for task in self.result.tasks:
            intervals = {chosen.name: chosen.fidelity[task]["all"]["spearman"] for chosen in self.chosen}
            shown = "; ".join(f"{name} {cell('spearman', interval, ' ')}" for name, interval in intervals.items())
            figure = plot_agreement(intervals, self.looks, task)
            panels.append(self._panel(figure, f"agreement-{task}", f"{task}: Spearman with the full log. {shown}"))
        return panels

    def scatters(self) -> list[Section]:
        """A panel per chosen set, task and metric."""
        sections = [
            Section(
                "Every candidate, full log against reduced set",
                intro="One mark per candidate; bars are one standard deviation over seeds. On the dashed line both agree. For a choice it "
                "matters that marks rise together, not that they lie on the line. Names mark the best and the worst on the full log, the "
                "best on the set, and the candidate whose offset differs most from the others'.",
            )
        ]
        for task in self.result.tasks:
            for metric, title in (("auc", "AUC"), ("logloss", "LogLoss")):
                panels = [self._scatter(chosen, task, metric) for chosen in self.chosen]
                sections.append(Section(f"{task}: {title}", panels=panels, level=3))
        return sections

    def curves(self) -> list[Section]:
        """AUC and Spearman against the size of the set."""
        methods = list(dict.fromkeys(str(sized.method) for sized in self._sized()))
        if not methods:
            return []
        sections = [
            Section(
                "Against the size of the set",
                intro="First the mean AUC over the candidates, with one standard deviation over seeds; then Spearman, with its 95 % "
                "interval. Sizes are on a logarithmic axis. A training that diverged counts as AUC 0.5.",
            )
        ]
        for task in self.result.tasks:
            means, ranks = [], []
            for name in methods:
                own = sorted((sized for sized in self._sized() if str(sized.method) == name), key=_size)
                sizes = [_size(sized) for sized in own]
                aucs = [pool_mean(self.scores(sized, task, "auc"), self.known[task]) for sized in own]
                means.append(Line(name, sizes, *(list(part) for part in zip(*aucs, strict=True))))
                spearman = [sized.fidelity[task]["all"]["spearman"] for sized in own]
                shown = [[i.value for i in spearman], [i.low for i in spearman], [i.high for i in spearman]]
                ranks.append(Line(name, sizes, *shown))
            full = pool_mean(self.full[task, "auc"], self.known[task])[0]
            ceiling = self.result.sets[0].fidelity[task]["all"]["spearman"].value
            panels = [
                self._panel(
                    plot_curves(lines, self.looks, level, axis, self.result.ratio), f"curve-{task}-{short}", alt
                )
                for lines, level, axis, short, alt in (
                    (means, (full, "full log"), f"{task}: mean AUC", "auc", _alt_curve(means, "mean AUC", full)),
                    (
                        ranks,
                        (ceiling, AGAIN),
                        f"{task}: Spearman",
                        "spearman",
                        _alt_curve(ranks, "Spearman", ceiling),
                    ),
                )
            ]
            sections.append(Section(f"{task}: size", panels=panels, level=3))
        return sections

    def stages(self) -> list[Section]:
        """AUC along the stream, a panel per task and candidate."""
        points = self.result.stages
        panels = []
        for task in self.result.tasks:
            for candidate in dict.fromkeys(point.candidate for point in points):
                own = [point for point in points if point.candidate == candidate]
                last = max(point.stage for point in own)
                ends = ", ".join(
                    f"{named(point.set)} {number(float(mean_and_sd(np.array(point.values[task]['auc']))[0]), 4)}"
                    for point in own
                    if point.stage == last
                )
                alt = (
                    f"{task}: AUC of {candidate} on the next block after each of {last} stages; after the last: {ends}"
                )
                figure = plot_stages(own, self.looks, task, candidate)
                panels.append(self._panel(figure, f"stages-{task}-{candidate}", alt))
        intro = (
            "Candidates are trained on the set after each block and judged on the next block, which neither has seen. The line is the "
            "mean, the band one standard deviation over seeds."
        )
        return [Section("Along the stream", intro=intro, panels=panels)] if panels else []

    def cost_bars(self) -> Panel:
        """Seconds of one training, per candidate."""
        cost = self.cost
        ratios = [
            candidate.full_cpu / candidate.memory_cpu for candidate in cost.candidates if candidate.memory_cpu > 0
        ]
        alt = (
            f"CPU seconds of one training of {len(cost.candidates)} candidates: the full log takes "
            f"{min(ratios, default=math.nan):.1f} to {max(ratios, default=math.nan):.1f} times those of the {named(cost.memory_set)}"
        )
        return self._panel(plot_cost(cost, self.looks[cost.memory_set]), "cost", alt)

    def _sized(self) -> list[SetResult]:
        """The sets of the methods that were run at several ratios."""
        sized = [
            result_set
            for result_set in self.result.sets
            if result_set.ratio is not None and result_set.method is not None
        ]
        names = [str(result_set.method) for result_set in sized]
        return [result_set for result_set in sized if names.count(str(result_set.method)) > 1]

    def scores(self, set_result: SetResult, task: str, metric: str) -> np.ndarray:
        """`[C, S]` float64: a metric of the candidates on a set."""
        return matrix([s for s in self.result.scores if s.set == set_result.name], self.names, task, metric)

    def _scatter(self, set_result: SetResult, task: str, metric: str) -> Panel:
        full, other = self.full[task, metric], self.scores(set_result, task, metric)
        spearman = set_result.fidelity[task]["all"]["spearman"]
        note = f"Spearman {cell('spearman', spearman, ' ')}" if metric == "auc" else ""
        if diverged := int(np.isnan(other).sum()):
            note = f"{note}\n{times(diverged, 'training')} diverged".strip()
        figure = plot_fidelity(full, other, self.names, set_name(set_result), self.looks[set_result.name], metric, note)
        gap = number(set_result.fidelity[task]["all"][f"{metric}_gap_mean"].value, 4)
        title = "AUC" if metric == "auc" else "LogLoss"
        alt = f"{task}, {set_name(set_result)}: {title} of {len(self.names)} candidates there and on the full log, mean gap {gap}. {note}"
        return self._panel(figure, f"fidelity-{task}-{metric}-{set_result.name}", alt.strip())

    def _panel(self, figure: Figure, name: str, alt: str) -> Panel:
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
        path = self.out / f"{safe}.svg"
        self.written.append(path)
        return panel(figure, path, alt)


def _size(set_result: SetResult) -> float:
    assert set_result.ratio is not None, "only sets with a ratio lie on a curve"
    return set_result.ratio


def _alt_curve(lines: list[Line], quantity: str, level: float) -> str:
    ends = "; ".join(
        f"{named(line.name)} from {number(line.y[0], 3)} at {line.x[0]:.2%} to {number(line.y[-1], 3)} at {line.x[-1]:.2%}"
        for line in lines
    )
    return f"{quantity} against the size of the set: {ends}; the full log {number(level, 3)}"
