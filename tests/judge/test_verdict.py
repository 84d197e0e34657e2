"""Judging candidates, and the order of a leaderboard."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig, StudentConfig
from diet_ray.judge.baselines import as_examples
from diet_ray.judge.standings import rank
from diet_ray.judge.verdict import Verdict, judge
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.workers import Solo
from tests.support.synthetic import rows, schema

NAN = float("nan")
NET = CandidateSpec(name="reference", arch="dnn", params={"hidden": [8]}, adapter=False)
CONFIG = ReferenceConfig(nets=[NET], dim=4, batch_size=64, embedding_lr=2e-2)
N_IDS = int(schema().first_static_id[-1])


def verdict(candidate: str, auc: float, *, seed: int = 0, trained_on: str = "memory", loss: float = 0.5) -> Verdict:
    return Verdict(
        candidate=candidate,
        arch="fm",
        trained_on=trained_on,
        seed=seed,
        metrics={"click": {"auc": auc, "logloss": loss}},
        train_seconds=seed + 1.0,
        train_wall_seconds=seed + 2.0,
        parameters=7,
    )


def test_a_student_learns_the_log_and_repeats_itself() -> None:
    reference = Reference(schema(), [NET], CONFIG, n_ids=N_IDS, seed=0)
    train_pass(reference, [rows(4000)], Solo(), rows=4000)
    phi = Predictor(schema(), [NET], reference.checkpoint())
    examples = as_examples(rows(200, block=1), phi, soft=True)
    spec = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]})

    def run(seed: int) -> Verdict:
        student = StudentConfig(steps=30, batch_size=64)
        return judge(spec, examples, phi.table, rows(9000, block=2), schema(), student, seed=seed, trained_on="x")

    one = run(0)
    assert one.metrics["label_0"]["auc"] > 0.65
    assert (one.candidate, one.trained_on, one.seed) == ("net", "x", 0)
    assert run(0).metrics == one.metrics
    assert run(1).metrics != one.metrics
    assert one.parameters == 4 * 4 * 4 + 16 * 8 + 8 + 8 + 1  # adapter, hidden layer, output
    assert torch.isfinite(examples.logit).all()


def test_a_candidate_is_trained_at_its_own_scale_of_the_rate() -> None:
    phi = Predictor(schema(), [NET], Reference(schema(), [NET], CONFIG, n_ids=N_IDS, seed=0).checkpoint())
    examples, test = as_examples(rows(100, block=1), phi, soft=True), rows(100, block=2)

    def metrics(lr: float, scale: float) -> dict[str, dict[str, float]]:
        spec = CandidateSpec(name="net", arch="fm", lr_scale=scale)
        student = StudentConfig(steps=5, batch_size=64, lr=lr)
        return judge(spec, examples, phi.table, test, schema(), student, seed=0, trained_on="x").metrics

    assert metrics(0.01, 2.0) == metrics(0.02, 1.0)
    assert metrics(0.01, 2.0) != metrics(0.01, 1.0)


def test_standings_order_mean_and_sd() -> None:
    lines = rank(
        [
            verdict("b", 0.7),
            verdict("a", 0.6),
            verdict("b", 0.8, seed=1, loss=0.7),
            verdict("a", 0.9, trained_on="full log"),
        ]
    )
    assert [(line.candidate, line.trained_on) for line in lines] == [
        ("a", "full log"),
        ("b", "memory"),
        ("a", "memory"),
    ]
    b = lines[1]
    assert b.seeds == 2
    assert b.mean["click"] == pytest.approx({"auc": 0.75, "logloss": 0.6})
    assert b.sd["click"] == pytest.approx({"auc": 0.1 / np.sqrt(2), "logloss": 0.2 / np.sqrt(2)})
    assert b.train_seconds == 1.5
    assert np.isnan(lines[0].sd["click"]["auc"])


def test_equal_lines_go_by_name_and_undefined_ones_come_last() -> None:
    lines = rank([verdict("u", NAN), verdict("z", 0.5), verdict("y", 0.5), verdict("worst", 0.0)])
    assert [line.candidate for line in lines] == ["y", "z", "worst", "u"]
