"""The outcomes of a sweep's trials: kept by content hash, and sent to trackers and to a progress display."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diet_ray.judge.leaderboard import Failed
from diet_ray.judge.sweep_plan import Identity, Work
from diet_ray.judge.trackers import Trackers
from diet_ray.judge.trial import Outcome, Report, Score
from diet_ray.judge.verdict import Verdict
from diet_ray.settings import parse_json, write_json


class Outcomes:
    """The outcomes of a sweep's trials, in the folder that keeps them. The runner of the trials reports to it, in the driver."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        trackers: Trackers,
        on_progress: Callable[[int, int], None] | None,
        *,
        rung: int | None = None,
        memory: int = 0,
    ) -> None:
        """Read the outcomes that are kept.

        Args:
            folder: theirs.
            identity: of the trials.
            trackers: get the figures of the trials.
            on_progress: called with the number of trials done and their total.
            rung: of a race, the rows that its trials have met at their end. Trackers show them after so many steps more, and do not see a
                trial end that has finished, because it may go on.
            memory: the number of the trials' memory, where a sweep has several; trackers show it in the names of trials after the first's.
        """
        self.memory = memory
        self.rung = rung
        self.folder, self.identity, self.trackers, self.on_progress = folder, identity, trackers, on_progress
        self.kept = {path.stem: parse_json(Outcome, path) for path in sorted(folder.glob("*.json"))}
        self.failed: dict[str, Failed] = {}
        self.done, self.total = 0, 0
        """Trials that have ended, and trials to run."""
        self._known_before = set(self.kept)
        self._scores: dict[str, dict[int, float]] = {}

    def of(self, work: Work) -> Outcome | None:
        """The kept outcome of a trial; None where the trial has not ended or has failed."""
        return self.kept.get(self.identity(work))

    def to_run(self, works: list[Work]) -> list[Work]:
        """Those of the works whose outcome is not kept; their number is the total from here on."""
        todo = [work for work in works if self.of(work) is None]
        self.total = len(todo)
        return todo

    def report(self, work: Work, report: Report) -> None:
        """Record a report of a trial."""
        key = self.identity(work)
        if key in self._known_before:
            return
        if not math.isnan(report.score):
            self._scores.setdefault(key, {})[report.step] = report.score
        step = report.step + (self.rung or 0 if report.verdicts else 0)
        self.trackers.log(
            self._trial(work), parameters(work), step, {"score": report.score, **_figures(report.verdicts)}
        )
        if report.verdicts:
            self._keep(key, report.verdicts)

    def fail(self, work: Work, why: str) -> None:
        """Record that a trial has failed, and why."""
        key = self.identity(work)
        if key not in self._known_before:
            self.failed[key] = Failed(candidate=work.name, seeds=work.seeds, why=why)

    def end(self, work: Work) -> None:
        """Record that a trial has ended: it finished, or failed, or its scheduler stopped it early."""
        key = self.identity(work)
        if key not in self.kept and key not in self.failed:
            self._keep(key, [])
        if key not in self._known_before:
            status = "failed" if key in self.failed else "finished" if self.kept[key].verdicts else "stopped"
            if status != "finished" or self.rung is None:
                self.trackers.end(self._trial(work), parameters(work), status)
        self.done += 1
        if self.on_progress:
            self.on_progress(self.done, self.total)

    def _trial(self, work: Work) -> str:
        return work.trial + (f"-memory{self.memory}" if self.memory else "")

    def _keep(self, key: str, verdicts: list[Verdict]) -> None:
        scores = [Score(step=step, score=score) for step, score in sorted(self._scores.get(key, {}).items())]
        self.kept[key] = Outcome(scores=scores, verdicts=verdicts)
        write_json(self.folder / f"{key}.json", self.kept[key])


def parameters(work: Work) -> dict[str, Any]:
    """A candidate's settings for a tracker, with one key per hyper-parameter."""
    spec = {key: value for key, value in work.spec.items() if key not in ("name", "params")}
    return {**spec, **{f"params.{key}": value for key, value in work.spec["params"].items()}, "seeds": work.seeds}


def _figures(verdicts: list[Verdict]) -> dict[str, float]:
    """`{task/metric: mean over seeds}`."""
    if not verdicts:
        return {}
    return {
        f"{task}/{metric}": float(np.mean([verdict.metrics[task][metric] for verdict in verdicts]))
        for task, metrics in verdicts[0].metrics.items()
        for metric in metrics
    }
