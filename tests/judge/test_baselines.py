"""What a memory is compared with: random rows and the full log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import ReferenceConfig, StudentConfig
from diet_ray.judge.baselines import FROZEN, FULL, HARD_OWN, as_examples, frozen_log, full_log, random_rows, sample_own
from diet_ray.judge.metrics import evaluate
from diet_ray.logs.blocks import Log, Rows, open_log
from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference
from tests.support.synthetic import rows, schema, write_log

SPEC = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]})
REFERENCE = ReferenceConfig(dim=4, batch_size=64, lr=5e-3, embedding_lr=2e-2)
N_IDS = int(schema().first_static_id[-1])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return open_log(write_log(tmp_path_factory.mktemp("log") / "log", blocks=3, n=2000))


def test_random_rows_are_the_smallest_hashes_of_all_rows(log: Log) -> None:
    sample = random_rows(log, log.blocks[:2], 150, seed=5)
    all_ids = np.concatenate([log.read_block(block).row_id for block in log.blocks[:2]])
    u = uniform_by_id(all_ids, derive_seed(5, "rows"))
    assert sample.row_id.tolist() == sorted(all_ids[np.argsort(u)[:150]].tolist())
    assert abs(np.mean(sample.row_id >> 32) - 0.5) < 0.2  # 5 standard deviations: both blocks alike
    assert not np.array_equal(random_rows(log, log.blocks[:2], 150, seed=6).row_id, sample.row_id)


@pytest.mark.parametrize("shards", [1, 5])
def test_random_rows_do_not_depend_on_the_shards(tmp_path: Path, log: Log, shards: int) -> None:
    other = open_log(write_log(tmp_path / "log", blocks=3, n=2000, shards=shards))
    a, b = random_rows(other, other.blocks, 100, seed=1), random_rows(log, log.blocks, 100, seed=1)
    assert np.array_equal(a.row_id, b.row_id)
    assert np.array_equal(a.ids, b.ids)
    assert np.array_equal(a.labels, b.labels)


def test_fewer_rows_than_asked_for_are_all_taken(log: Log) -> None:
    assert len(random_rows(log, log.blocks[:1], 10_000, seed=0)) == 2000


@pytest.mark.parametrize("soft", [True, False])
def test_rows_as_examples(soft: bool) -> None:
    net = SPEC.model_copy(update={"adapter": False})
    reference = Reference(schema(2), [net], REFERENCE, n_ids=N_IDS, seed=0)
    phi, sample = Predictor(schema(2), [net], reference.checkpoint()), rows(40, tasks=2)
    examples = as_examples(sample, phi, soft=soft)
    assert torch.equal(examples.x, reference.embedding(torch.tensor(sample.ids)).detach())
    assert torch.equal(examples.weight, torch.ones(40))
    target = torch.sigmoid(examples.logit)
    if soft:
        torch.testing.assert_close(examples.logit, reference(torch.tensor(sample.ids))[0].detach())
    else:
        assert np.array_equal(target.numpy(), sample.labels.astype(np.float32))


def test_the_full_log_beats_chance_and_a_few_of_its_rows(log: Log) -> None:
    test = log.read_block(log.blocks[2])
    full = full_log(SPEC, log, log.blocks[:2], test, REFERENCE, seed=0)
    assert (full.candidate, full.arch, full.trained_on, full.seed) == ("net", "dnn", FULL, 0)
    assert full.metrics["label_0"]["auc"] > 0.65
    sample = random_rows(log, log.blocks[:2], 40, seed=0)
    few = sample_own(SPEC, log, sample, test, REFERENCE, StudentConfig(steps=20, batch_size=16), n_ids=N_IDS, seed=0)
    assert few.trained_on == HARD_OWN
    assert few.metrics["label_0"]["auc"] < full.metrics["label_0"]["auc"] - 0.05
    # The table takes up an adapter, so neither of them trains one.
    plain = Reference(schema(), [SPEC.model_copy(update={"adapter": False})], REFERENCE, n_ids=N_IDS, seed=0)
    assert full.parameters == few.parameters == sum(p.numel() for p in plain.net.parameters())


def test_the_full_log_repeats_itself(log: Log) -> None:
    test = log.read_block(log.blocks[2])
    one, two = (full_log(SPEC, log, log.blocks[:1], test, REFERENCE, seed=3).metrics for _ in range(2))
    assert one == two


def test_frozen_embeddings_in_one_pass_equal_steps_of_adam_on_rows_in_time_order(log: Log) -> None:
    reference = Reference(log.schema, [SPEC.model_copy(update={"adapter": False})], REFERENCE, n_ids=N_IDS, seed=1)
    table, test = reference.embedding.weight.detach(), log.read_block(log.blocks[2])
    spec = SPEC.model_copy(update={"lr_scale": 2.0})
    found = frozen_log(spec, log, log.blocks[:2], table, test, REFERENCE, seed=4)
    assert found.trained_on == FROZEN

    whole = Rows.concat([log.read_block(block) for block in log.blocks[:2]])
    net = build(spec, log.schema.field_names, 4, 1, derive_seed(4, "candidate"))
    # Our Adam has its epsilon inside the root; here it is too small to matter.
    optimiser = torch.optim.Adam(net.parameters(), lr=2 * REFERENCE.lr, eps=1e-9)
    for start in range(0, len(whole), 64):
        batch = whole.take(np.arange(start, min(start + 64, len(whole))))
        logits = net(table[torch.tensor(batch.ids)])
        optimiser.zero_grad()
        binary_cross_entropy_with_logits(logits, torch.tensor(batch.labels, dtype=torch.float32)).backward()
        optimiser.step()
    logits = net(table[torch.tensor(test.ids)]).detach().numpy()
    expected = evaluate(logits, test.labels, test.user, log.schema.tasks)["label_0"]
    assert found.metrics["label_0"] == pytest.approx(expected, abs=2e-3)


def test_own_embeddings_learn_from_probabilities(log: Log) -> None:
    sample, test = log.read_block(log.blocks[0]), log.read_block(log.blocks[2])
    student = StudentConfig(steps=60, batch_size=128)

    def auc(labels: np.ndarray) -> float:
        given = replace(sample, labels=labels)
        found = sample_own(SPEC, log, given, test, REFERENCE, student, n_ids=N_IDS, seed=0)
        return float(found.metrics["label_0"]["auc"])

    soft = 0.2 + 0.6 * sample.labels.astype(np.float32)
    assert auc(soft) > 0.6
    assert auc(1 - soft) < 0.4
