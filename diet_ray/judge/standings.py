"""Ranks verdicts: one line per candidate and training set, the best first."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field as Key

from diet_ray.judge.metrics import ONE_CLASS
from diet_ray.judge.verdict import Verdict
from diet_ray.settings import Metric, Settings


class Standing(Settings):
    """One line of a leaderboard: a candidate on a training set, over its seeds."""

    candidate: str
    arch: str
    trained_on: str
    seeds: int
    """Number of seeds."""
    mean: dict[str, dict[str, Metric]]
    """`{task: {metric: mean over seeds}}`."""
    sd: dict[str, dict[str, Metric]]
    """`{task: {metric: standard deviation over seeds}}`, nan for one seed."""
    undefined: dict[str, dict[str, str]] = Key(default_factory=dict)
    """`{task: {metric: reason}}` of the means that are nan; the reason is that of the first seed without the metric."""
    train_seconds: float
    """Mean CPU seconds of the training."""
    parameters: int


def rank(verdicts: list[Verdict]) -> list[Standing]:
    """One line per candidate and training set, the best first: by mean AUC over the tasks, live by mean LogLoss, then by name.

    A task has no AUC that counts where all rows have the same label. A candidate whose predictions are not finite comes last.
    """
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.candidate, verdict.trained_on), []).append(verdict)
    lines = [_standing(group) for group in groups.values()]
    if verdicts and all(verdict.live for verdict in verdicts):
        return sorted(lines, key=_place_live)
    return sorted(lines, key=_place)


def _standing(group: list[Verdict]) -> Standing:
    first = group[0]

    reasons: dict[str, dict[str, str]] = {}
    for verdict in group:
        for task, task_reasons in verdict.undefined.items():
            reasons[task] = {**task_reasons, **reasons.get(task, {})}

    def over_seeds(statistic: Any) -> dict[str, dict[str, float]]:
        return {
            task: {metric: float(statistic([verdict.metrics[task][metric] for verdict in group])) for metric in metrics}
            for task, metrics in first.metrics.items()
        }

    return Standing(
        candidate=first.candidate,
        arch=first.arch,
        trained_on=first.trained_on,
        seeds=len(group),
        mean=over_seeds(np.mean),
        sd=over_seeds(lambda values: np.std(values, ddof=1) if len(values) > 1 else float("nan")),
        undefined=reasons,
        train_seconds=float(np.mean([verdict.train_seconds for verdict in group])),
        parameters=first.parameters,
    )


def _place(line: Standing) -> tuple[float, str, str]:
    aucs = [m["auc"] for task, m in line.mean.items() if line.undefined.get(task, {}).get("auc") != ONE_CLASS]
    auc = float(np.mean(aucs)) if aucs else float("nan")
    return (-auc if auc == auc else 1.0, line.candidate, line.trained_on)


def _place_live(line: Standing) -> tuple[bool, float, str]:
    logloss = float(np.mean([metrics["logloss"] for metrics in line.mean.values()]))
    return (logloss != logloss, logloss, line.candidate)
