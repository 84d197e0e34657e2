"""The result of a sweep: the leaderboard, the trials that failed, and the tables that are written to files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field as Key
from rich.table import Table

from diet_ray.config import StudentConfig
from diet_ray.errors import DietError
from diet_ray.figures import mean_sd
from diet_ray.judge.decision import Decision
from diet_ray.judge.fidelity.order import OrderVerdict, order_lines
from diet_ray.judge.leaderboard_table import leaderboard_tables
from diet_ray.judge.standings import Standing
from diet_ray.judge.verdict import Verdict
from diet_ray.report.cost import Cost
from diet_ray.settings import Metric, Settings
from diet_ray.storage.parquet_writing import write_result

METRICS = ("auc", "logloss", "gauc", "calibration")


class Stopped(Settings):
    """A candidate that ASHA stopped early."""

    candidate: str
    step: int
    """Steps that it was trained for."""
    score: float
    """Its score after these steps."""


class Failed(Settings):
    """A trial that failed."""

    candidate: str
    seeds: list[int]
    why: str
    """The error, in one line."""


class Leaderboard(Settings):
    """The result of a sweep."""

    memory: str
    """The memory's folder."""
    memories: list[str] = Key(default_factory=list)
    """The folders of all memories, where candidates were judged on several; `memory` is the first."""
    units: int
    """Number of its units."""
    stage: int
    """Its stage."""
    log: str
    """The log that holds `block`."""
    block: str
    """The block on whose rows the candidates were judged. It is later than all blocks that the memory has seen."""
    rows: int
    """Number of rows on which they were judged: all of that block, or those that they met live."""
    live: float = 0
    """How many blocks the candidates met live, from `block` on; 0 where frozen students were judged."""
    tasks: list[str]
    """The log's tasks."""
    student: StudentConfig
    """How the candidates were trained."""
    standings: list[Standing]
    """One line per candidate, the best first."""
    yardsticks: list[Standing] = Key(default_factory=list)
    """What candidates are to be compared with, on the same rows: the reference as it was committed, and a constant."""
    cost: Cost | None = None
    """What the sweep cost; None in a file of an earlier release."""
    decision: Decision | None = None
    """The candidates compared row by row; None where frozen students were judged, or nothing can be compared."""
    fidelity: list[OrderVerdict] = Key(default_factory=list)
    """Whether the order may be trusted, by a fidelity bench of this log and memory, per task; empty where none was given."""
    verdicts: list[Verdict]
    """Every student that was trained to the end."""
    candidates: dict[str, dict[str, Any]] = Key(default_factory=dict)
    """The spec of each candidate, by name, with the values that were drawn for it."""
    scores: dict[str, Metric] = Key(default_factory=dict)
    """Each candidate's last score on held-out rows (see `Score`), where a search needed scores. A choice by this score does not use the
    rows of `block`."""
    stopped: list[Stopped] = Key(default_factory=list)
    """Candidates that were stopped early."""
    failed: list[Failed] = Key(default_factory=list)
    """Trials that failed; `--restore` tries them again."""
    untracked: dict[str, str] = Key(default_factory=dict)
    """Trackers that failed during the sweep, and why. Some trials are missing in them."""
    versions: dict[str, str] = Key(default_factory=dict)
    """Of the packages on which this result depends; empty in a file of an earlier release."""

    def tables(self) -> list[Table]:
        """The leaderboard for a terminal."""
        title = (
            f"{len(self.standings)} candidates on {self.units:,} units, judged {'live ' if self.live else ''}on {self.rows:,} rows "
            f"{'from' if self.live > 1 else 'of'} {self.block}{' on' if self.live > 1 else ''}"
        )
        return leaderboard_tables(title, self.standings, self.tasks, self.decision, self.yardsticks)

    def remarks(self, *, cost: bool = True) -> list[str]:
        """Lines with the facts that the table does not show; without `cost`, they are the same in every run."""
        lines = self.decision.sentences() if self.decision else []
        if cost and self.cost:
            lines.append(self.cost.sentence())
        lines += order_lines(self.fidelity)
        if self.scores:
            best = max(self.scores, key=lambda name: (self.scores[name], name))
            lines.append(f"Best on held-out rows: {best}, AUC {self.scores[best]:.4f}")
        if self.stopped:
            lines.append(
                "Stopped early: " + ", ".join(f"{trial.candidate} (step {trial.step})" for trial in self.stopped)
            )
        for trial in self.failed:
            lines.append(f"Failed: {trial.candidate}, seeds {', '.join(map(str, trial.seeds))}: {trial.why}")
        lines += [f"Tracker {name} was not used any more after an error: {why}" for name, why in self.untracked.items()]
        return lines

    def check(self) -> None:
        """Raise DietError where a trial failed."""
        if self.failed:
            first = self.failed[0]
            raise DietError(
                f"{len(self.failed)} trials failed, the others are done; candidate {first.candidate!r}: {first.why}; "
                "fix it and run the sweep again with --restore"
            )


def standings_rows(lines: list[Standing], tasks: list[str]) -> tuple[list[str], list[list[str]]]:
    """Column headings and cells of standings, mean +- sd over seeds; an undefined metric has its reason instead."""
    columns = ["candidate", "trained on"]
    prefixes = [f"{task} " for task in tasks] if len(tasks) > 1 else [""]
    columns += [prefix + metric for prefix in prefixes for metric in ("AUC", "LogLoss", "GAUC")] + ["CPU s"]
    rows = []
    for line in lines:
        cells = [
            f"undefined\n{why}"
            if (why := line.undefined.get(task, {}).get(metric))
            else mean_sd(line.mean[task][metric], line.sd[task][metric])
            for task in tasks
            for metric in ("auc", "logloss", "gauc")
        ]
        rows.append([line.candidate, line.trained_on, *cells, f"{line.train_seconds:.2f}"])
    return columns, rows


def write_tables(out: Path, board: Leaderboard) -> None:
    """`leaderboard` and `verdicts`, as CSV and as Parquet; an undefined figure is nan."""

    def drawn(name: str) -> str:
        return json.dumps(board.candidates[name], sort_keys=True)

    decided = board.decision.by_name if board.decision else {}

    def compared(name: str) -> dict[str, Any]:
        """Columns that only a live sweep has; a candidate that diverged is no part of the comparison."""
        if not decided:
            return {}
        part = decided.get(name)
        return {
            "difference": part.difference if part else math.nan,
            "difference_low": part.low if part else math.nan,
            "difference_high": part.high if part else math.nan,
            "group": part.group if part else "",
            "best_probability": part.best if part else math.nan,
        }

    lines = [
        {
            "place": place,
            "candidate": line.candidate,
            "arch": line.arch,
            "seeds": line.seeds,
            "memories": line.memories,
            **{
                f"{task}_{metric}_{statistic}": getattr(line, statistic)[task][metric]
                for task in board.tasks
                for metric in METRICS
                for statistic in ("mean", "sd")
            },
            **compared(line.candidate),
            "train_seconds": line.train_seconds,
            "parameters": line.parameters,
            "score": board.scores.get(line.candidate, math.nan),
            "spec": drawn(line.candidate),
        }
        for place, line in enumerate(board.standings, start=1)
    ]
    trials = [
        {
            "candidate": verdict.candidate,
            "arch": verdict.arch,
            "seed": verdict.seed,
            "memory": verdict.memory,
            **{f"{task}_{metric}": verdict.metrics[task][metric] for task in board.tasks for metric in METRICS},
            "train_seconds": verdict.train_seconds,
            "train_wall_seconds": verdict.train_wall_seconds,
            "parameters": verdict.parameters,
            "spec": drawn(verdict.candidate),
        }
        for verdict in board.verdicts
    ]
    for name, rows in (("leaderboard", lines), ("verdicts", trials)):
        write_result(pa.Table.from_pylist(rows), out / name)
