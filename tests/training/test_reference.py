"""The reference: its pass, its state, and one worker against two."""

from __future__ import annotations

import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig
from diet_ray.logs.blocks import Rows
from diet_ray.storage.tensors import load_tensors, save_tensors
from diet_ray.training.holdout import held_out
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, batches, train_pass
from diet_ray.training.workers import Group, Solo
from tests.support.synthetic import rows, schema

NET = CandidateSpec(name="reference", arch="dnn", params={"hidden": [8]}, adapter=False)
CONFIG = ReferenceConfig(nets=[NET], dim=4, batch_size=50, checkpoints=3)
N_IDS = int(schema().first_static_id[-1])


def new(n_ids: int = N_IDS) -> Reference:
    return Reference(schema(), [NET], CONFIG, n_ids=n_ids, seed=0)


def worker(rank: int, rendezvous: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    reference = new()
    # 505 rows: the last batch is smaller and splits unevenly.
    loss = train_pass(reference, [rows(505)], Group(), rows=505)
    saved = {**reference.checkpoint(), "loss": torch.tensor(loss, dtype=torch.float64)}
    save_tensors(Path(out) / f"{rank}.safetensors", saved)
    dist.destroy_process_group()


def test_two_workers_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, args=(f"{folder}/rendezvous", str(tmp_path)), nprocs=2)
    one = new()
    loss = train_pass(one, [rows(505)], Solo(), rows=505)
    start, alone = new().checkpoint(), one.checkpoint()
    two = [load_tensors(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    for name, value in alone.items():
        assert torch.equal(two[0][name], two[1][name]), name
        torch.testing.assert_close(two[0][name], value, rtol=0, atol=1e-6)
        assert not torch.equal(value, start[name]), name
    assert float(two[0]["loss"]) == float(two[1]["loss"]) == pytest.approx(loss, abs=1e-6)


def test_a_saved_state_continues_byte_for_byte(tmp_path: Path) -> None:
    straight, first = new(), new()
    for reference in (straight, first):
        train_pass(reference, [rows(300)], Solo(), rows=300)
    save_tensors(tmp_path / "weights", first.checkpoint())
    save_tensors(tmp_path / "moments", first.optimiser_state())
    again = new()
    again.load(load_tensors(tmp_path / "weights"), load_tensors(tmp_path / "moments"))
    for reference in (straight, again):
        train_pass(reference, [rows(300, block=1)], Solo(), rows=300)
    for mine, theirs in (
        (again.checkpoint(), straight.checkpoint()),
        (again.optimiser_state(), straight.optimiser_state()),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_growing_keeps_old_rows_and_moments() -> None:
    reference = new()
    train_pass(reference, [rows(200)], Solo(), rows=200)
    before, moments = reference.checkpoint(), reference.optimiser_state()
    reference.grow(N_IDS + 7)
    after, grown = reference.checkpoint(), reference.optimiser_state()
    assert after["table"].shape == (N_IDS + 7, 4)
    assert torch.equal(after["table"][:N_IDS], before["table"])
    assert torch.equal(after["table"][N_IDS:], new(N_IDS + 7).checkpoint()["table"][N_IDS:])
    for name in ("exp_avg", "exp_avg_sq"):
        assert bool(moments[f"table/{name}"].any())
        assert torch.equal(grown[f"table/{name}"][:N_IDS], moments[f"table/{name}"])
        assert not grown[f"table/{name}"][N_IDS:].any()
    assert torch.equal(grown["table/step"], moments["table/step"])
    train_pass(reference, [rows(50)], Solo(), rows=50)  # the new parameter is the one that learns
    assert not torch.equal(reference.checkpoint()["table"][:N_IDS], before["table"])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 17), max_size=8), st.integers(1, 9))
def test_batches_cut_across_parts(sizes: list[int], batch_size: int) -> None:
    whole = rows(sum(sizes) or 1).take(np.arange(sum(sizes)))
    cuts = np.cumsum([0, *sizes])
    parts = [whole.take(np.arange(a, b)) for a, b in pairwise(cuts)]
    cut = list(batches(parts, batch_size))
    assert all(len(batch) == batch_size for batch in cut[:-1])
    assert all(1 <= len(batch) <= batch_size for batch in cut)
    joined = Rows.concat([*cut, whole.take(np.arange(0))])
    assert np.array_equal(joined.row_id, whole.row_id)
    assert np.array_equal(joined.labels, whole.labels)


def test_the_parts_do_not_matter_to_the_pass() -> None:
    a, b, whole = new(), new(), rows(230)
    loss = train_pass(a, [whole], Solo(), rows=230)
    assert loss == train_pass(b, [whole.take(part) for part in np.array_split(np.arange(230), 7)], Solo(), rows=230)
    assert all(torch.equal(value, b.checkpoint()[name]) for name, value in a.checkpoint().items())


@pytest.mark.parametrize("n", [30, 150, 600, 610])
def test_checkpoints_are_evenly_spaced_and_the_last_is_the_model(n: int) -> None:
    seen: list[tuple[int, dict[str, torch.Tensor]]] = []
    steps: list[int] = []
    reference = new()

    def keep(k: int) -> None:
        seen.append((k, reference.checkpoint()))
        steps.append(int(reference.optimiser_state()["table/step"]))

    train_pass(reference, [rows(n)], Solo(), rows=n, on_checkpoint=keep)
    assert [k for k, _ in seen] == [0, 1, 2]
    # The first step after which a (k+1)/3 of the rows has been seen.
    done = [min(50 * step, n) for step in range(1, -(-n // 50) + 1)]
    assert steps == [next(i + 1 for i, rows_done in enumerate(done) if 3 * rows_done >= k * n) for k in (1, 2, 3)]
    assert all(torch.equal(value, seen[-1][1][name]) for name, value in reference.checkpoint().items())


def test_the_loss_is_measured_before_learning() -> None:
    reference, batch = new(), rows(50)
    with torch.no_grad():
        expected = binary_cross_entropy_with_logits(
            reference(torch.tensor(batch.ids))[0], torch.tensor(batch.labels, dtype=torch.float32)
        )
    assert train_pass(reference, [batch], Solo(), rows=50) == pytest.approx(float(expected), abs=1e-6)


def with_net(seed: int = 0, **changes: object) -> Reference:
    net = NET.model_copy(update=changes)
    return Reference(schema(), [net], CONFIG.model_copy(update={"nets": [net]}), n_ids=N_IDS, seed=seed)


def test_dropout_depends_on_the_models_seed_and_the_steps_done() -> None:
    params = {"hidden": (8,), "dropout": 0.5}
    some, one, two = rows(200), with_net(params=params), with_net(params=params)
    for number, reference in enumerate((one, two)):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        train_pass(reference, [some], Solo(), rows=200)
        assert torch.equal(torch.get_rng_state(), state)
    first = one.checkpoint()
    assert all(torch.equal(value, first[name]) for name, value in two.checkpoint().items())
    without = new()
    train_pass(without, [some], Solo(), rows=200)
    assert not torch.equal(without.checkpoint()["table"], first["table"])
    # The same start and rows: with no rate, nothing but the masks can tell the losses apart.
    frozen = with_net(params=params, lr_scale=1e-30)
    frozen.table_optimiser.param_groups[0]["lr"] = 1e-30
    losses = [train_pass(frozen, [some], Solo(), rows=200) for _ in range(2)]
    assert frozen.steps() == 8
    assert losses[0] != losses[1]


def test_a_candidates_scale_multiplies_the_rate_of_the_net_alone() -> None:
    plain, scaled = with_net(), with_net(lr_scale=3.0)
    assert scaled.net_optimiser.param_groups[0]["lr"] == pytest.approx(3 * CONFIG.lr)
    assert scaled.table_optimiser.param_groups[0]["lr"] == CONFIG.embedding_lr
    start = plain.checkpoint()
    for reference in (plain, scaled):
        train_pass(reference, [rows(50)], Solo(), rows=50)
    a, b = plain.checkpoint(), scaled.checkpoint()
    torch.testing.assert_close(b["table"], a["table"])
    moved = {name: (3 * (a[name] - start[name]), b[name] - start[name]) for name in a if name != "table"}
    for mine, theirs in moved.values():
        torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-6)  # Adam's first step is one rate long


def test_learning_lowers_the_loss() -> None:
    reference = new()
    losses = [train_pass(reference, [rows(1000, block=block)], Solo(), rows=1000) for block in range(6)]
    assert losses[-1] < losses[0] - 0.03


def test_a_predictor_equals_its_module() -> None:
    reference, some = new(), rows(70)
    train_pass(reference, [some], Solo(), rows=70)
    phi = Predictor(schema(), [NET], reference.checkpoint())
    with torch.no_grad():
        expected = reference.eval()(torch.tensor(some.ids))[0]
    assert torch.equal(phi(some.ids), expected)
    torch.testing.assert_close(phi(some.ids, batch_size=9), expected)
    torch.testing.assert_close(phi.logits(phi.embed(some.ids), batch_size=11), expected)


def test_members_share_the_embeddings_and_each_learns_by_its_own_loss() -> None:
    lr = CandidateSpec(name="lr", arch="lr", adapter=False, lr_scale=2.0)
    both = Reference(schema(), [lr, NET], CONFIG, n_ids=N_IDS, seed=0)
    ids, labels = torch.tensor(rows(50).ids), torch.tensor(rows(50).labels, dtype=torch.float32)
    mine = Reference(schema(), [lr, NET], CONFIG, n_ids=N_IDS, seed=0)
    x = mine.embedding(ids)
    losses = [binary_cross_entropy_with_logits(member(x), labels) for member in mine.net.members]
    nets = [torch.optim.Adam(m.parameters(), lr=CONFIG.lr * s) for m, s in zip(mine.net.members, (2, 1), strict=True)]
    table = torch.optim.SparseAdam([mine.embedding.weight], lr=CONFIG.embedding_lr)
    (sum(losses) / 2).backward()
    for optimiser in (*nets, table):
        optimiser.step()
    train_pass(both, [rows(50)], Solo(), rows=50)
    for name, value in both.state_dict().items():
        torch.testing.assert_close(value, mine.state_dict()[name])


def test_together_they_predict_the_mean_of_their_logits() -> None:
    lr = CandidateSpec(name="lr", arch="lr", adapter=False)
    both = Reference(schema(), [lr, NET], CONFIG, n_ids=N_IDS, seed=0)
    phi = Predictor(schema(), [lr, NET], both.checkpoint())
    ids = torch.tensor(rows(40).ids)
    with torch.no_grad():
        apart = torch.stack([member(both.embedding(ids)) for member in both.net.members])
    assert not torch.allclose(apart[0], apart[1])
    torch.testing.assert_close(phi(rows(40).ids), apart.mean(dim=0))


def test_a_first_member_starts_as_it_would_alone() -> None:
    lr = CandidateSpec(name="lr", arch="lr", adapter=False)
    alone = Reference(schema(), [NET], CONFIG, n_ids=N_IDS, seed=0).state_dict()
    both = Reference(schema(), [NET, lr], CONFIG, n_ids=N_IDS, seed=0).state_dict()
    assert all(torch.equal(value, both[name]) for name, value in alone.items())


def test_held_out_rows_are_a_share_by_hash() -> None:
    ids = np.arange(20_000)
    held = held_out(ids, 0.1, seed=0)
    assert abs(held.mean() - 0.1) < 0.011  # 5 standard deviations
    assert np.array_equal(held_out(ids[::-1], 0.1, seed=0), held[::-1])
    assert np.array_equal(held_out(ids, 0.2, seed=0) & held, held)
    assert not np.array_equal(held_out(ids, 0.1, seed=1), held)
    assert not held_out(ids, 0.0, seed=0).any()


def plain_live(reference: Reference, seen: Rows, *, batch_size: int, l2: float) -> np.ndarray:
    """Predict each batch, then learn it: written out, with dense gradients and the formulas of Adam (Kingma & Ba 2015)."""
    net = reference.net.members[0]
    table = reference.embedding.weight.detach().clone()
    lrs = [CONFIG.embedding_lr, *[CONFIG.lr * NET.lr_scale] * len(list(net.parameters()))]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (table, *net.parameters())]
    predicted = []
    for step, start in enumerate(range(0, len(seen), batch_size), start=1):
        ids = torch.tensor(seen.ids[start : start + batch_size]).long()
        labels = torch.tensor(seen.labels[start : start + batch_size], dtype=torch.float32)
        table.requires_grad_()
        logits = net(table[ids])
        predicted.append(logits.detach().numpy())
        loss = (torch.logaddexp(torch.zeros(()), logits) - labels * logits).mean()
        values = [table, *net.parameters()]
        gradients = torch.autograd.grad(loss, values)
        table = table.detach()
        touched = torch.zeros(len(table), dtype=torch.bool)
        touched[ids.flatten()] = True
        with torch.no_grad():
            for value, gradient, lr, (m, v) in zip((table, *values[1:]), gradients, lrs, moments, strict=True):
                rows_moved = touched if value is table else torch.ones(len(value), dtype=torch.bool)
                g = gradient[rows_moved] + (l2 * value[rows_moved] if value is table else 0)
                m[rows_moved] = 0.9 * m[rows_moved] + 0.1 * g
                v[rows_moved] = 0.999 * v[rows_moved] + 0.001 * g * g
                epsilon = (
                    1e-8 / (1 - 0.999**step) ** 0.5 if value is table else 1e-8
                )  # sparse Adam adds it before the correction
                root = torch.sqrt(v[rows_moved] / (1 - 0.999**step)) + epsilon
                value[rows_moved] = value[rows_moved] - lr * m[rows_moved] / (1 - 0.9**step) / root
    return np.concatenate(predicted)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_every_row_is_predicted_just_before_it_is_learned(l2: float) -> None:
    config, seen = CONFIG.model_copy(update={"embedding_l2": l2}), rows(230)
    live, again = (Reference(schema(), [NET], config, n_ids=N_IDS, seed=0) for _ in range(2))
    batches_seen: list[Rows] = []
    logits: list[torch.Tensor] = []

    def keep(batch: Rows, predicted: torch.Tensor) -> None:
        batches_seen.append(batch)
        logits.append(predicted[0])

    loss = train_pass(live, [seen], Solo(), rows=230, on_predicted=keep)
    assert np.array_equal(Rows.concat(batches_seen).row_id, seen.row_id)
    predicted = torch.cat(logits)
    np.testing.assert_allclose(predicted.numpy(), plain_live(again, seen, batch_size=50, l2=l2), rtol=0, atol=2e-5)
    labels = torch.tensor(seen.labels, dtype=torch.float32)
    assert float(binary_cross_entropy_with_logits(predicted, labels)) == pytest.approx(loss, abs=1e-6)


def test_predictions_are_made_without_dropout_and_change_nothing() -> None:
    net = NET.model_copy(update={"params": {"hidden": [8], "dropout": 0.5}})
    watched, alone = (Reference(schema(), [net], CONFIG, n_ids=N_IDS, seed=0) for _ in range(2))
    logits: list[torch.Tensor] = []
    train_pass(watched, [rows(50)], Solo(), rows=50, on_predicted=lambda _, predicted: logits.append(predicted))
    train_pass(alone, [rows(50)], Solo(), rows=50)
    fresh = Reference(schema(), [net], CONFIG, n_ids=N_IDS, seed=0).eval()
    assert torch.equal(logits[0], fresh(torch.tensor(rows(50).ids)))
    assert all(torch.equal(value, alone.checkpoint()[name]) for name, value in watched.checkpoint().items())


def test_the_penalty_shrinks_the_rows_that_are_looked_up() -> None:
    norms = []
    for l2 in (0.0, 1.0):
        reference = Reference(schema(), [NET], CONFIG.model_copy(update={"embedding_l2": l2}), n_ids=N_IDS + 50, seed=0)
        before = reference.embedding.weight.detach().clone()
        train_pass(reference, [rows(500)], Solo(), rows=500)
        after = reference.embedding.weight.detach()
        assert torch.equal(after[N_IDS:], before[N_IDS:])  # nobody has looked them up
        assert torch.equal(after[0], torch.zeros(4))
        norms.append(float(after[:N_IDS].norm()))
    assert norms[1] < 0.9 * norms[0]
