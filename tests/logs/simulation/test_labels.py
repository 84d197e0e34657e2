"""The true probabilities of a simulated log: what they are made of, and that labels follow them."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import logit

from diet_ray.judge.metrics import auc, calibration, logloss
from diet_ray.logs.blocks import Rows
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.labels import _latents, _parts, draw, true_probability

FIELDS = [
    {"name": "user", "size": 400, "zipf": 0.5, "start": 0.8, "new": 0.05},
    {"name": "item", "size": 200, "zipf": 0.8, "churn": 0.1},
    {"name": "kind", "size": 12, "of": "item", "zipf": 0.3},
    {"name": "hour", "size": 24, "zipf": 0.3},
    {"name": "place", "size": 8, "zipf": 0.3},
]


def make(**keys: Any) -> SimulateConfig:
    return SimulateConfig.model_validate({"fields": FIELDS, "rows": 20_000, **keys})


def as_of(rows: Rows, block: int) -> Rows:
    """The same ids in another block."""
    return replace(rows, row_id=(block << 32) + (rows.row_id & 0xFFFFFFFF))


def test_latents_turn_slowly_and_stay_gaussian() -> None:
    config = make(drift=0.2, fields=[{**FIELDS[0], "weight": 2}, *FIELDS[1:]])
    at = {block: _latents(config, 0, np.arange(20_000), block) / 2 for block in (0, 3, 8)}
    for x in at.values():
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(np.cov(x.T), np.eye(5), atol=0.04)
        assert stats.kstest(x[:, 2], "norm").pvalue > 0.001
    for one, other in combinations(at, 2):
        k = other - one
        found = [np.corrcoef(at[one][:, column], at[other][:, column])[0, 1] for column in range(5)]
        np.testing.assert_allclose(found, np.exp(-((0.2 * k) ** 2) / 2), atol=0.03)


def test_parts_are_sums_over_fields_pairs_and_triples() -> None:
    config = make(tasks={"a": 0.1, "b": 0.2}, factors=3)
    rng = np.random.default_rng(0)
    values = [rng.integers(0, field["size"], 5_000) for field in FIELDS]
    found = _parts(config, 4, values)
    assert found.shape == (5_000, 3, 3)
    for row in (0, 4_095, 4_096, 4_999):
        x = np.stack([_latents(config, f, column[[row]], 4)[0].reshape(3, 4) for f, column in enumerate(values)])
        main, factors = x[:, :, 0], x[:, :, 1:].astype(np.float64)
        pairs = sum((factors[f] * factors[g]).sum(axis=-1) for f, g in combinations(range(5), 2))
        triples = sum((factors[f] * factors[g] * factors[h]).sum(axis=-1) for f, g, h in combinations(range(5), 3))
        np.testing.assert_allclose(found[row], np.stack([main.sum(axis=0), pairs, triples], axis=-1), atol=1e-4)


def test_large_fields_are_looked_up_otherwise_but_are_the_same() -> None:
    config = make(shard_rows=10)
    rows = draw(make(), 3, 500, 700)
    np.testing.assert_array_equal(draw(config, 3, 500, 700).labels, rows.labels)
    np.testing.assert_allclose(true_probability(config, rows), true_probability(make(), rows), rtol=1e-6)


@pytest.mark.parametrize("strength", ["main", "pairwise", "higher"])
def test_strengths_are_standard_deviations_of_the_logit(strength: str) -> None:
    config = make(**{"main": 0, "pairwise": 0, "higher": 0, strength: 1.5})
    z = logit(true_probability(config, draw(config, 0, 0, 20_000)))
    assert z.std() == pytest.approx(1.5, rel=0.06)


def test_what_each_part_leaves_to_richer_models() -> None:
    """Least squares of the logit on one-hot fields, and on one-hot pairs of them."""
    fields = [{"name": name, "size": 12, "zipf": 0} for name in ("user", "item", "hour")]

    def explained(strength: str) -> tuple[float, float]:
        config = make(**{"fields": fields, "main": 0, "pairwise": 0, "higher": 0, strength: 1})
        rows = draw(config, 0, 0, 3_000)
        z = logit(true_probability(config, rows))[:, 0]
        values = rows.ids - config.log_schema.first_static_id[:-1]
        single = np.hstack([np.eye(12)[values[:, f]] for f in range(3)])
        paired = np.hstack([np.eye(144)[values[:, f] * 12 + values[:, g]] for f, g in combinations(range(3), 2)])
        left = [z - x @ np.linalg.lstsq(x, z, rcond=None)[0] for x in (single, paired)]
        return 1 - left[0].var() / z.var(), 1 - left[1].var() / z.var()

    assert explained("main")[0] > 0.999
    assert explained("pairwise")[0] < 0.5
    assert explained("pairwise")[1] > 0.999
    assert explained("higher")[1] < 0.8


def test_labels_follow_the_probabilities() -> None:
    config = make(tasks={"click": 0.3, "buy": 0.05})
    for block in (0, 5):
        rows = draw(config, block, 0, 20_000)
        p = true_probability(config, rows)
        for task in range(2):
            order = np.argsort(p[:, task], kind="stable").reshape(20, 1_000)
            chance, labels = p[order, task], rows.labels[order, task]
            chi2 = ((labels.sum(axis=1) - chance.sum(axis=1)) ** 2 / (chance * (1 - chance)).sum(axis=1)).sum()
            assert stats.chi2.sf(chi2, 20) > 0.001
            assert calibration(rows.labels[:, task], logit(p[:, task])) == pytest.approx(1, abs=0.06)


def test_base_rates_and_the_best_that_a_model_can_do() -> None:
    config = make(tasks={"click": 0.3, "buy": 0.02})
    rows = draw(config, 0, 0, 20_000)
    p = true_probability(config, rows)
    np.testing.assert_allclose(p.mean(axis=0), [0.3, 0.02], rtol=0.05)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(axis=0)
    for task in range(2):
        z = logit(p[:, task])
        loss = logloss(rows.labels[:, task], z)
        assert loss == pytest.approx(entropy[task], rel=0.05)
        assert all(loss < logloss(rows.labels[:, task], other) for other in (1.3 * z, 0.7 * z, z + 0.3, z - 0.3))
        assert auc(rows.labels[:, task], z) > 0.75


def test_tasks_are_as_related_as_asked() -> None:
    for relatedness in (0, 0.7, 1):
        config = make(tasks={"a": 0.2, "b": 0.2}, relatedness=relatedness)
        rows = draw(config, 0, 0, 20_000)
        z = logit(true_probability(config, rows))
        assert np.corrcoef(z.T)[0, 1] == pytest.approx(relatedness, abs=0.12)
        assert (rows.labels[:, 0] != rows.labels[:, 1]).any()


def test_noise_draws_by_the_base_rate() -> None:
    rows = draw(make(), 2, 0, 1_000)
    clean, noisy = (true_probability(make(noise=noise), rows) for noise in (0, 0.25))
    np.testing.assert_allclose(noisy, 0.75 * clean + 0.25 * 0.2, rtol=1e-12)


def test_the_world_drifts_away_from_a_model_of_the_first_block() -> None:
    def lost(drift: float) -> list[float]:
        config = make(drift=drift)
        losses = []
        for block in (1, 3, 9):
            rows = draw(config, block, 0, 20_000)
            now, then = (logit(true_probability(config, r))[:, 0] for r in (rows, as_of(rows, 0)))
            losses.append(auc(rows.labels[:, 0], now) - auc(rows.labels[:, 0], then))
        return losses

    assert lost(0) == [0, 0, 0]
    slow = lost(0.1)
    assert slow == sorted(slow)
    assert slow[0] < 0.01
    assert slow[2] > 0.04


def test_rows_of_several_blocks_at_once() -> None:
    config = make()
    parts = [draw(config, block, 100, 50) for block in (4, 0, 7)]
    whole = true_probability(config, Rows.concat(parts))
    np.testing.assert_array_equal(whole, np.concatenate([true_probability(config, part) for part in parts]))


def test_any_part_of_a_block_can_be_drawn_alone() -> None:
    config = make(tasks={"click": 0.3, "buy": 0.05})
    whole, part = draw(config, 6, 0, 9_000), draw(config, 6, 4_321, 1_000)
    for name in ("row_id", "time", "user", "ids", "labels"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[4_321:5_321])
