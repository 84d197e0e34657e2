from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import log_loss

from diet_ray.judge.metrics import auc, calibration, evaluate, gauc, logloss

# Few distinct users and scores, so that ties and one-class users are common.
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=40)


def columns(drawn: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users, labels, scores = (np.array(part) for part in zip(*drawn, strict=True))
    return users.astype(np.int64) * 10**15 - 7, labels.astype(np.uint8), (scores / 4).astype(np.float32)


def pairwise_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[labels == 1] for n in scores[labels == 0]]
    return float(np.mean(wins)) if wins else math.nan


@settings(deadline=None)
@given(rows)
def test_auc_is_the_share_of_ordered_pairs(drawn: list) -> None:
    _, labels, scores = columns(drawn)
    assert auc(labels, scores) == pytest.approx(pairwise_auc(labels, scores), nan_ok=True)


@settings(deadline=None)
@given(rows)
def test_gauc_is_the_weighted_mean_over_users(drawn: list) -> None:
    users, labels, scores = columns(drawn)
    total = weight = 0.0
    for user in np.unique(users):
        mine = users == user
        one = pairwise_auc(labels[mine], scores[mine])
        if not math.isnan(one):
            total, weight = total + one * mine.sum(), weight + mine.sum()
    assert gauc(users, labels, scores) == pytest.approx(total / weight if weight else math.nan, nan_ok=True)


@settings(deadline=None)
@given(rows)
def test_gauc_of_one_user_is_auc(drawn: list) -> None:
    users, labels, scores = columns(drawn)
    assert gauc(np.zeros_like(users), labels, scores) == pytest.approx(auc(labels, scores), nan_ok=True)


@settings(deadline=None)
@given(rows)
def test_logloss_and_calibration_are_those_of_the_probabilities(drawn: list) -> None:
    _, labels, logits = columns(drawn)
    p = expit(logits.astype(np.float64))
    assert logloss(labels, logits) == pytest.approx(log_loss(labels, p, labels=[0, 1]))
    expected = p.sum() / labels.sum() if labels.any() else math.nan
    assert calibration(labels, logits) == pytest.approx(expected, nan_ok=True)


def test_logloss_of_sure_mistakes_is_exact() -> None:
    assert logloss(np.array([0, 1]), np.array([1000.0, -500.0], dtype=np.float32)) == pytest.approx(750.0)


def test_logloss_takes_soft_labels() -> None:
    assert logloss(np.array([0.25]), np.array([0.0])) == pytest.approx(math.log(2))


def test_undefined_is_nan() -> None:
    ones, scores, users = np.ones(3, np.uint8), np.array([0.1, 0.2, 0.3]), np.zeros(3, np.int64)
    assert math.isnan(auc(ones, scores))
    assert math.isnan(gauc(users, ones, scores))
    assert math.isnan(calibration(1 - ones, scores))
    labels, broken, empty = np.array([0, 1, 1]), np.array([0.1, np.nan, np.inf]), np.array([])
    for value in (
        auc(labels, broken),
        logloss(labels, broken),
        calibration(labels, broken),
        gauc(users, labels, broken),
        auc(empty, empty),
        logloss(empty, empty),
        calibration(empty, empty),
        gauc(empty, empty, empty),
    ):
        assert math.isnan(value)


def test_evaluate_keys_by_task() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 2)).astype(np.float32), rng.integers(0, 2, (50, 2), dtype=np.uint8)
    users = rng.integers(0, 5, 50)
    out = evaluate(logits, labels, users, ["click", "view"])
    assert list(out) == ["click", "view"]
    assert out["view"] == {
        "auc": auc(labels[:, 1], logits[:, 1]),
        "logloss": logloss(labels[:, 1], logits[:, 1]),
        "gauc": gauc(users, labels[:, 1], logits[:, 1]),
        "calibration": calibration(labels[:, 1], logits[:, 1]),
    }
    assert all(isinstance(value, float) for value in out["click"].values())
    with pytest.raises(ValueError, match="disagree"):
        evaluate(logits, labels, users, ["click"])
