"""How well logits predict labels: AUC, LogLoss, GAUC, calibration. NumPy arrays in, floats out.

A metric that its input does not define is nan, never an error: the AUC of rows of one class, the GAUC where no user has
both classes, the calibration where no label is positive, and every metric of scores that are not all finite (a
candidate that diverged). `undefined` gives the reason.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

ONE_CLASS = "all labels are the same"
"""The reason for an undefined AUC of such rows, the same for every candidate."""


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a random positive scores above a random negative; ties count 1/2.

    Args:
        labels: `[N]` 0/1.
        scores: `[N]` probabilities or logits, any monotone score.
    """
    if not np.isfinite(scores).all() or labels.min(initial=1) >= labels.max(initial=0):
        return float("nan")
    return gauc(np.zeros(len(labels), np.int64), labels, scores)


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy in nats, `mean(log(1 + exp(z)) - y z)`.

    It takes logits, for which it is exact as long as they are finite. A probability would round to 0 or 1 and need a clip.

    Args:
        labels: `[N]` 0/1, or soft labels within [0, 1].
        logits: `[N]`.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return float("nan")
    z = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, z) - labels * z))


def calibration(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean predicted probability over mean label: 1 is calibrated, above 1 over-predicts.

    Args:
        labels: `[N]` 0/1.
        logits: `[N]`.
    """
    if not np.isfinite(logits).all() or not labels.any():
        return float("nan")
    return float(expit(logits.astype(np.float64)).mean() / labels.mean())


def gauc(users: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> float:
    """AUC within each user, averaged over the users with both classes, weighted by their rows (Zhu et al. 2017).

    One sort, O(N log N), whatever the number of users.

    Args:
        users: `[N]` int64, the user of each row.
        labels: `[N]` 0/1.
        scores: `[N]` probabilities or logits, any monotone score.
    """
    if not len(users) or not np.isfinite(scores).all():
        return float("nan")
    order = np.lexsort((scores, users))
    users, scores, positive = users[order], scores[order], labels[order].astype(np.float64)
    new_user = np.r_[True, users[1:] != users[:-1]]
    new_tie = new_user | np.r_[True, scores[1:] != scores[:-1]]
    user, tie = np.cumsum(new_user) - 1, np.cumsum(new_tie) - 1
    # Rank within the user from 1; tied rows share their mean rank, which counts each tied pair as 1/2.
    first = np.flatnonzero(new_tie)
    mean_position = first + (np.diff(np.r_[first, len(users)]) + 1) / 2
    rank = mean_position[tie] - np.flatnonzero(new_user)[user]
    rows = np.bincount(user)
    positives = np.bincount(user, weights=positive)
    negatives = rows - positives
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    rank_sum = np.bincount(user, weights=rank * positive)
    wins = rank_sum - positives * (positives + 1) / 2
    return float(np.average(wins[both] / (positives * negatives)[both], weights=rows[both]))


def evaluate(
    logits: np.ndarray, labels: np.ndarray, users: np.ndarray, tasks: list[str]
) -> dict[str, dict[str, float]]:
    """All metrics of every task: `{task: {"auc", "logloss", "gauc", "calibration"}}`.

    Args:
        logits: `[N, T]`.
        labels: `[N, T]` 0/1.
        users: `[N]` int64, the user of each row.
        tasks: the T names of the tasks, in the order of the columns.

    Raises:
        ValueError: the shapes do not agree.
    """
    if logits.shape != labels.shape or logits.shape != (len(users), len(tasks)):
        raise ValueError(
            f"logits {logits.shape}, labels {labels.shape}, {len(users)} users and {len(tasks)} tasks disagree"
        )
    return {
        task: {
            "auc": auc(labels[:, t], logits[:, t]),
            "logloss": logloss(labels[:, t], logits[:, t]),
            "gauc": gauc(users, labels[:, t], logits[:, t]),
            "calibration": calibration(labels[:, t], logits[:, t]),
        }
        for t, task in enumerate(tasks)
    }


def undefined(
    metrics: dict[str, dict[str, float]], logits: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, str]]:
    """The reasons of the metrics that are nan: `{task: {metric: reason}}`.

    Args:
        metrics: the result of `evaluate`.
        logits: `[N, T]`.
        labels: `[N, T]` 0/1.
    """
    reasons: dict[str, dict[str, str]] = {}
    for t, (task, values) in enumerate(metrics.items()):
        of_task = {name: _why(name, logits[:, t], labels[:, t]) for name, value in values.items() if np.isnan(value)}
        if of_task:
            reasons[task] = of_task
    return reasons


def _why(metric: str, logits: np.ndarray, labels: np.ndarray) -> str:
    if not len(labels):
        return "no rows"
    if not np.isfinite(logits).all():
        return "predictions are not finite"
    if metric == "calibration":
        return "no label is positive"
    return "no user has both labels" if metric == "gauc" and labels.min() < labels.max() else ONE_CLASS
