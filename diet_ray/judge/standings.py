"""Ranks verdicts: one line per candidate and training set, the best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """Number of seeds, on each memory."""
    memories: int = 1
    """Number of memories."""
    mean: dict[str, dict[str, Metric]]
    """`{task: {metric: mean over seeds and memories}}`."""
    sd: dict[str, dict[str, Metric]]
    """`{task: {metric: standard deviation}}` of one training: over the seeds on one memory, nan for one seed; over memories and seeds where
    there are several memories."""
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

    memories = np.array([verdict.memory for verdict in group])

    def over_seeds(statistic: Any) -> dict[str, dict[str, float]]:
        return {
            task: {metric: float(statistic([verdict.metrics[task][metric] for verdict in group])) for metric in metrics}
            for task, metrics in first.metrics.items()
        }

    return Standing(
        candidate=first.candidate,
        arch=first.arch,
        trained_on=first.trained_on,
        seeds=len(group) // len(set(memories.tolist())),
        memories=len(set(memories.tolist())),
        mean=over_seeds(np.mean),
        sd=over_seeds(lambda values: spread(np.array(values), memories)),
        undefined=reasons,
        train_seconds=float(np.mean([verdict.train_seconds for verdict in group])),
        parameters=first.parameters,
    )


def on_memories(lines: Sequence[Standing]) -> str:
    """The memories on which candidates were trained, for a sentence."""
    memories = max(line.memories for line in lines)
    return f"each of {memories} memories" if memories > 1 else "one memory"


def spread(values: np.ndarray, memories: np.ndarray) -> float:
    """Standard deviation of one training: over seeds, and over memories where there are several.

    Args:
        values: `[n]`, a metric of each training.
        memories: `[n]` int64, its memory.

    Returns:
        nan for one training. Pooled over all trainings it would be too small, because those on one memory are alike.
    """
    parts = [values[memories == number] for number in np.unique(memories)]
    if len(parts) == 1:
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    within = [float(np.var(part, ddof=1)) for part in parts if len(part) > 1]
    of_seeds = float(np.mean(within)) if within else 0.0
    of_means = float(np.var([part.mean() for part in parts], ddof=1))
    return math.sqrt(max(of_seeds, of_means + of_seeds * (1 - 1 / (len(values) / len(parts)))))


def _place(line: Standing) -> tuple[float, str, str]:
    aucs = [m["auc"] for task, m in line.mean.items() if line.undefined.get(task, {}).get("auc") != ONE_CLASS]
    auc = float(np.mean(aucs)) if aucs else float("nan")
    return (-auc if auc == auc else 1.0, line.candidate, line.trained_on)


def _place_live(line: Standing) -> tuple[bool, float, str]:
    logloss = float(np.mean([metrics["logloss"] for metrics in line.mean.values()]))
    return (logloss != logloss, logloss, line.candidate)
