"""The plots of the protocol `live`: agreement against the share of the block, and every candidate against its full backfill."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from diet_ray.figures import number
from diet_ray.judge.fidelity.live.plan import FULL
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS, LiveResult
from diet_ray.judge.fidelity.names import start_name
from diet_ray.judge.fidelity.plots import FULL_COLOUR, Look, plot_fidelity
from diet_ray.report.drawing import QUIET, SERIES, WIDTH, panel, styled
from diet_ray.report.page import Panel

LOOKS = {
    SAME_ROWS: Look(FULL_COLOUR, "o"),
    "memory": Look(SERIES[0], "s"),
    "refined": Look(SERIES[1], "D"),
    "unaligned": Look(SERIES[5], "v"),
    "random": Look(SERIES[2], "^"),
    "scratch": Look(SERIES[3], "P"),
    "table": Look(SERIES[4], "X"),
    "recent": Look(SERIES[6], "p"),
    "table+recent": Look(SERIES[7], "h"),
}
"""Colour and marker of each start, the same in every report."""


class LivePictures:
    """Draws the plots of a report; `written` are the SVG files made so far."""

    def __init__(self, out: Path, result: LiveResult) -> None:
        self.out, self.result = out, result
        self.written: list[Path] = []

    @styled
    def curve(self, task: str) -> Panel:
        """Spearman with the full log against the share of the block that was met, a line per start, with the interval of the memory."""
        result = self.result
        figure = Figure(figsize=(WIDTH, 4.9), layout="constrained")
        axis = figure.subplots()
        said = []
        for start in result.starts:
            if start.name in (BLIND, OTHER_SEED):
                continue
            of_shares = [figures["spearman"] for figures in start.measured[task]]
            look, values = LOOKS[start.name], [interval.value for interval in of_shares]
            axis.plot(
                result.shares,
                values,
                color=look.colour,
                marker=look.marker,
                markersize=5.5,
                linewidth=1.4,
                label=start_name(start.name),
            )
            if start.name in ("memory", SAME_ROWS):
                low, high = ([getattr(interval, end) for interval in of_shares] for end in ("low", "high"))
                axis.fill_between(result.shares, low, high, color=look.colour, alpha=0.12, linewidth=0)
            said.append(f"{start_name(start.name)} {', '.join(number(value, 2) for value in values)}")
        axis.axhline(0, color=QUIET, linewidth=0.9, linestyle="--")
        axis.set_xscale("log")
        axis.set_xticks(result.shares)
        axis.minorticks_off()
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlabel("share of the block that was met")
        axis.set_ylabel(f"{task}: Spearman with the full log")
        axis.set_title("Order of the candidates")
        axis.grid()
        figure.legend(loc="outside lower left")  # the names of starts are long
        alt = f"Spearman of {task} at {', '.join(f'{100 * share:.3g} %' for share in result.shares)} of the block: {'; '.join(said)}."
        return self._panel(figure, f"live-curve-{task}", alt)

    @styled
    def scatters(self, task: str) -> list[Panel]:
        """The loss of every candidate after the first share, from some starts, against its full backfill's over the whole block.

        Losses are differences to the median of the candidates of each block, averaged over the blocks: blocks are not equally hard.
        """
        result = self.result
        names = [spec.name for spec in result.candidates]
        whole = len(result.shares) - 1 if result.shares[-1] == 1 else -1
        panels = []
        for start in ("memory", "refined", "scratch"):
            if start not in [part.name for part in result.starts]:
                continue
            full, other = (relative(result, part, task, share) for part, share in ((FULL, whole), (start, 0)))
            spearman = next(part for part in result.starts if part.name == start).measured[task][0]["spearman"].value
            note = f"Spearman {number(spearman, 2)}" if math.isfinite(spearman) else ""
            figure = plot_fidelity(full, other, names, start_name(start), LOOKS[start], "logloss", note)
            axis = figure.axes[0]
            axis.set_xlabel("full backfill: nats above the median")
            axis.set_ylabel(f"first {100 * result.shares[0]:.3g} %: nats above the median")
            alt = f"{task}, {start_name(start)}: loss of each candidate against that of its full backfill; {note}."
            panels.append(self._panel(figure, f"live-scatter-{task}-{start}", alt))
        return panels

    def _panel(self, figure: Figure, name: str, alt: str) -> Panel:
        self.written.append(self.out / f"{name}.svg")
        return panel(figure, self.written[-1], alt)


def relative(result: LiveResult, start: str, task: str, share: int) -> np.ndarray:
    """`[C, S]`: each candidate's loss minus the median of the candidates, the mean over the judging blocks; nan where it diverged."""
    by_block: dict[str, list[list[float]]] = {}
    for score in result.scores:
        if score.start == start:
            by_block.setdefault(score.block, []).append(score.losses[task][share])
    blocks = [np.array(rows, dtype=np.float64) for rows in by_block.values()]
    return np.asarray(np.mean([losses - np.nanmedian(losses) for losses in blocks], axis=0))
