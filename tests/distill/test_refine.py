"""Rounds of refinement: addressing, the outer optimiser, two workers against one, and the guard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diet_ray.config import StreamConfig, StudentConfig
from diet_ray.distill.address import draw_hard
from diet_ray.distill.bilevel import HardTargets, MetaGradient, meta_gradient
from diet_ray.distill.convert import convert
from diet_ray.distill.refine import Refiner, refine, round_order
from diet_ray.distill.select import Scored
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.logs.blocks import Rows
from diet_ray.memory.facts import RefineReport
from diet_ray.memory.units import Units
from diet_ray.seeds import derive_seed
from diet_ray.training.adam import AdamState, RowAdam
from diet_ray.training.device import generator, gpu_fault
from diet_ray.training.holdout import GUARD_SHARE
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.student import FlatNet, cosine, run_steps
from diet_ray.training.workers import Crew, Solo
from tests.support import synthetic
from tests.support.small_memory import memory_of, shards_of, units_of
from tests.support.small_run import STREAM

SCHEMA = synthetic.schema()


def config(**refinement: Any) -> StreamConfig:
    return StreamConfig.model_validate({"log": "x", **STREAM, "refine": {**STREAM["refine"], **refinement}})


@pytest.fixture(scope="module")
def checkpoints() -> list[Predictor]:
    stream = config()
    n_ids = int(SCHEMA.first_static_id[-1])
    reference = Reference(SCHEMA, stream.reference.nets, stream.reference, n_ids=n_ids, seed=0)
    found: list[Predictor] = []

    def keep(k: int) -> None:
        found.append(Predictor(SCHEMA, stream.reference.nets, reference.checkpoint()))

    train_pass(reference, [synthetic.rows(600)], Solo(), rows=600, on_checkpoint=keep)
    return found


@pytest.fixture(scope="module")
def units(checkpoints: list[Predictor]) -> Units:
    rows = synthetic.rows(60, block=1)
    probability = torch.sigmoid(checkpoints[-1](rows.ids)).numpy()
    return convert(Scored(rows, probability, probability), block=1, n_fields=4, dim=4)


HELD = synthetic.rows(90, block=2)


def run(units: Units, checkpoints: list[Predictor], stream: StreamConfig, **more: Any) -> tuple[Units, Any]:
    held, seed = more.pop("held", HELD), more.pop("seed", 1)
    memory = memory_of(units, SCHEMA, stream, phi=checkpoints[-1])
    report = refine(memory, checkpoints, held, SCHEMA, stream, Solo(), seed=seed, **more)
    return units_of(memory), report


def refiner_of(
    units: Units, checkpoints: list[Predictor], stream: StreamConfig, *, crew: Crew | None = None, seed: int = 1
) -> Refiner:
    memory = memory_of(units, SCHEMA, stream, phi=checkpoints[-1])
    return Refiner(memory, checkpoints, pool(checkpoints), SCHEMA, stream, crew or Solo(), seed)


def now(memory: ShardedMemory, units: Units) -> Units:
    """The units as refinement has left them so far."""
    memory.settle(kept=True)
    return units_of(memory).updated(influence=units.influence)


def same_bytes(a: Units, b: Units) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


class Peer:
    """One of several workers that are threads of this process. They take turns: forward-mode derivatives are not thread-safe."""

    device = torch.device("cpu")

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier, turn: threading.Lock) -> None:
        self.rank, self.size, self.slots, self.everyone, self.turn = rank, len(slots), slots, barrier, turn

    def sum(self, values: Tensor) -> Tensor:
        self.slots[self.rank] = values
        self.barrier()
        total = torch.stack(self.slots).sum(dim=0)
        self.barrier()
        return total

    def barrier(self) -> None:
        self.turn.release()
        try:
            self.everyone.wait(timeout=30)
        finally:
            self.turn.acquire()

    def parallel(self, module: Any) -> Any:
        return module


def in_threads(n: int, work: Callable[[Crew], Any]) -> list[Any]:
    slots: list[Any] = [None] * n
    barrier, turn = threading.Barrier(n), threading.Lock()

    def one(rank: int) -> Any:
        with turn:
            try:
                return work(Peer(rank, slots, barrier, turn))
            except BaseException:
                barrier.abort()
                raise

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(one, range(n)))


def rounds(
    units: Units, checkpoints: list[Predictor], stream: StreamConfig, *, shards: int = 3
) -> tuple[Units, list[float]]:
    """The units after all rounds, before the guard, and the meta-losses."""
    memory = memory_of(units, SCHEMA, stream, phi=checkpoints[-1], shards=shards)
    meta_loss = all_rounds(memory, checkpoints, stream, Solo())
    return now(memory, units), meta_loss


def all_rounds(memory: ShardedMemory, checkpoints: list[Predictor], stream: StreamConfig, crew: Crew) -> list[float]:
    refiner = Refiner(memory, checkpoints, pool(checkpoints), SCHEMA, stream, crew, 1)
    for number in range(stream.refine.rounds):
        refiner.round(number)
    return refiner.meta_loss


def pool(checkpoints: list[Predictor]) -> HardTargets:
    return HardTargets(checkpoints[-1].embed(HELD.ids), torch.tensor(HELD.labels, dtype=torch.float32))


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_do_what_one_does(units: Units, checkpoints: list[Predictor], workers: int) -> None:
    # A batch of hard targets that does not split evenly; the outer steps are summed, so that rounding alone tells them apart.
    stream = config(hard_batch=31, rounds=50, address_every=10)
    one, losses = rounds(units, checkpoints, stream)
    memory = memory_of(units, SCHEMA, stream, phi=checkpoints[-1])
    for its_losses in in_threads(workers, lambda crew: all_rounds(memory, checkpoints, stream, crew)):
        assert its_losses == pytest.approx(losses, abs=1e-5)
    other = now(memory, units)
    np.testing.assert_allclose(other.delta, one.delta, atol=1e-5)
    np.testing.assert_allclose(other.logit, one.logit, atol=1e-5)
    assert np.abs(one.delta).max() > 1e-5


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_the_number_of_shards_does_not_matter(units: Units, checkpoints: list[Predictor], shards: int) -> None:
    stream = config(rounds=6, active=9)
    one, losses = rounds(units, checkpoints, stream)
    other, its_losses = rounds(units, checkpoints, stream, shards=shards)
    np.testing.assert_allclose(other.delta, one.delta, atol=1e-6)
    np.testing.assert_allclose(other.logit, one.logit, atol=1e-6)
    assert its_losses == pytest.approx(losses, abs=1e-6)
    assert np.abs(one.delta).max() > 1e-5


def test_rounds_and_guard_see_the_units_as_they_are_kept(units: Units, checkpoints: list[Predictor]) -> None:
    memory, everything = memory_of(units, SCHEMA, config(), phi=checkpoints[-1]), torch.arange(len(units))
    all_rounds(memory, checkpoints, config(rounds=5), Solo())
    seen = memory.take(everything)
    exact = torch.cat([shard.working[0].values for shard in shards_of(memory) if shard.working])
    memory.settle(kept=True)
    kept = memory.take(everything)
    assert all(torch.equal(a, b) for a, b in zip(vars(seen).values(), vars(kept).values(), strict=True))
    assert np.array_equal(units_of(memory).delta.astype(np.float16).astype(np.float32), units_of(memory).delta)
    assert not torch.equal(exact, exact.half().float())  # steps add up in float32


def test_a_shard_that_no_round_touches_is_not_copied(units: Units, checkpoints: list[Predictor]) -> None:
    stream = config(active=1, address_every=9)
    memory = memory_of(units, SCHEMA, stream, phi=checkpoints[-1])
    all_rounds(memory, checkpoints, stream, Solo())
    assert sum(shard.working is not None for shard in shards_of(memory)) == 1


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_state(
    units: Units, checkpoints: list[Predictor]
) -> None:
    stream = config(rounds=4)
    torch.manual_seed(0)
    first, report = run(units, checkpoints, stream)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again, other_report = run(units, checkpoints, stream)
    assert same_bytes(first, again)
    assert report == other_report
    assert torch.equal(state, torch.get_rng_state())
    assert run(units, checkpoints, stream, seed=2)[1].meta_loss != report.meta_loss


def test_rounds_lower_the_meta_loss(units: Units, checkpoints: list[Predictor]) -> None:
    # Wrong labels to start from, one proxy, the whole pool: the gradient must lead to better ones.
    stream = config(
        rounds=40, delta_lr=0.0, logit_lr=0.1, hard_batch=90, uniform_share=1.0, active=60, window=10,
        proxies=[{"name": "lr", "arch": "lr", "adapter": False}],
    )  # fmt: skip
    # No member of the reference is like the proxy, which therefore knows nothing but the units; and none of their labels is drawn.
    lone = stream.reference.model_copy(update={"nets": stream.reference.nets[1:]})
    student = stream.student.model_copy(update={"lr": 1.0, "draw": 0.0})
    stream = stream.model_copy(update={"student": student, "reference": lone})
    right, wrong = (units.updated(logit=sign * 20 * units.logit) for sign in (1, -1))
    still = stream.model_copy(update={"refine": stream.refine.model_copy(update={"logit_lr": 0.0})})
    of_right, of_wrong = (np.mean(rounds(start, checkpoints, still)[1]) for start in (right, wrong))
    assert of_right < of_wrong
    _, meta_loss = rounds(wrong, checkpoints, stream)
    assert np.mean(meta_loss[-10:]) < of_right


def watch_gradients(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, MetaGradient]]:
    """The parameters from which each round starts, with the meta-gradient that it gives."""
    seen: list[tuple[Tensor, MetaGradient]] = []

    def watched(net: FlatNet, state: AdamState, *values: Any, **more: Any) -> MetaGradient:
        seen.append((state.theta, meta_gradient(net, state, *values, **more)))
        return seen[-1][1]

    monkeypatch.setattr("diet_ray.distill.refine.meta_gradient", watched)
    return seen


def test_the_first_round_moves_active_units_against_the_gradient(
    units: Units, checkpoints: list[Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_gradients(monkeypatch)
    # So few units and so long a horizon that the round sees them all: positions in it are positions in the memory.
    refiner = refiner_of(units, checkpoints, config(delta_lr=0.01, logit_lr=0.1, window=10, active=60))
    refiner.round(0)
    gradient = seen[0][1]
    changeable = torch.isin(gradient.rows, refiner.active)
    rows = gradient.rows[changeable]
    assert len(gradient.rows) == len(units)
    after = now(refiner.memory, units)
    for moved, by, lr in (
        (torch.tensor(after.delta - units.delta), gradient.delta, 0.01),
        (torch.tensor(after.logit - units.logit), gradient.logit, 0.1),
    ):
        moved, by = moved[rows], by[changeable]
        clear = by.abs() > 1e-7  # Adam's first step is lr long where epsilon counts for nothing
        assert int(clear.sum()) > 10
        torch.testing.assert_close(moved[clear], -lr * by[clear].sign(), rtol=0.02, atol=1e-6)


def test_a_pupil_begins_between_a_checkpoint_and_random_parameters(units: Units, checkpoints: list[Predictor]) -> None:
    stream = config(pool=8, proxies=[{"name": "same", "arch": "dnn", "params": {"hidden": [8]}}])
    refiner = refiner_of(units, checkpoints, stream)
    shares, used = [], set()
    for number in range(8):
        theta = refiner._new_pupil(number, age=0).state.theta
        random = FlatNet(refiner.fresh_proxy(stream.refine.proxies[0], derive_seed(1, "start", number))).initial()
        lines = [reference - random for reference in refiner.proxies[0].references]
        lams = [float((theta - random) @ line / (line @ line)) for line in lines]
        apart = [float((theta - random - lam * line).norm()) for lam, line in zip(lams, lines, strict=True)]
        k = int(np.argmin(apart))
        assert apart[k] < 1e-4
        assert 0 <= lams[k] <= 1
        shares.append(lams[k])
        used.add(k)
    assert used == {0, 1}
    assert np.ptp(shares) > 0.2


def test_pupils_of_all_ages_take_turns_and_go_on(
    units: Units, checkpoints: list[Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_gradients(monkeypatch)
    refiner = refiner_of(units, checkpoints, config(window=2, pool=3))  # horizon 10
    assert [pupil.state.step for pupil in refiner.pupils] == [0, 2, 6]
    assert [pupil.proxy.spec.name for pupil in refiner.pupils] == ["dnn", "fm", "dnn"]
    ages = []
    for number in range(12):
        refiner.round(number)
        ages.append(refiner.pupils[number % 3].state.step)
        assert torch.equal(refiner.pupils[number % 3].state.theta, seen[number][1].state.theta)
        if number >= 3 and ages[-1] > 2:  # it goes on where its last window ended
            assert torch.equal(seen[number][0], seen[number - 3][1].state.theta)
    assert ages == [2, 4, 8, 4, 6, 10, 6, 8, 2, 8, 10, 4]  # at the horizon a new one takes its place


def test_a_pupil_learns_as_a_student_does(units: Units, checkpoints: list[Predictor]) -> None:
    """Windows with a graph and steps without one train alike: the whole horizon by rounds that move nothing, against `run_steps`."""
    stream = config(window=2, pool=1, delta_lr=0.0, logit_lr=0.0, proxies=[{"name": "fm", "arch": "fm"}])
    refiner = refiner_of(units, checkpoints, stream)
    start, everything = refiner.pupils[0].state, refiner.memory.take(torch.arange(len(units)))
    state = start
    for number in range(5):
        refiner.round(number)
        rng = generator(1, "round", number)
        draw_hard(refiner.reducible, stream.refine.hard_batch, stream.refine.uniform_share, rng)
        order = round_order(len(units), refiner.active, stream, rng=rng)
        rate = cosine(stream.student, 1.0)
        state = run_steps(refiner.proxies[0].net, state, everything, order, rate, draw=stream.student.draw, rng=rng)
        torch.testing.assert_close(refiner.pupils[0].state.theta, state.theta)
    assert state.step == 10


def test_a_round_without_a_finite_gradient_is_skipped_and_counted(units: Units, checkpoints: list[Predictor]) -> None:
    broken = units.updated(delta=np.full_like(units.delta, np.nan))
    refiner = refiner_of(broken, checkpoints, config())
    refiner.round(0)
    refiner.round(1)
    assert refiner.skipped == 2
    assert np.isnan(refiner.meta_loss).all()
    assert all(shard.working is None for shard in shards_of(refiner.memory))


def test_the_clip_scales_both_gradients(
    units: Units, checkpoints: list[Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = refiner_of(units, checkpoints, config())
    monkeypatch.setattr(refiner.clip, "factor", lambda norm: 0.0)
    refiner.round(0)
    assert any(shard.working is not None for shard in shards_of(refiner.memory))
    assert same_bytes(now(refiner.memory, units), units)


def test_addressing_is_repeated_every_so_many_rounds(
    units: Units, checkpoints: list[Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = refiner_of(units, checkpoints, config(address_every=2))
    addressed: list[int] = []
    real = refiner.address
    monkeypatch.setattr(refiner, "address", lambda *values: (addressed.append(len(refiner.meta_loss)), real(*values)))
    for number in range(5):
        refiner.round(number)
    assert addressed == [0, 2, 4]


def test_only_active_units_move(units: Units, checkpoints: list[Predictor]) -> None:
    stream = config(rounds=2, active=5, address_every=2)
    moved, _ = rounds(units, checkpoints, stream)
    changed = (moved.delta != units.delta).any(axis=(1, 2)) | (moved.logit != units.logit).any(axis=1)
    assert 1 <= changed.sum() <= 5


def test_a_proxys_scale_multiplies_the_students_rate(units: Units, checkpoints: list[Predictor]) -> None:
    def refined(lr: float, scale: float) -> tuple[Units, RefineReport]:
        stream = config(
            rounds=2, proxies=[{"name": "dnn", "arch": "dnn", "params": {"hidden": [8]}, "lr_scale": scale}]
        )
        return run(units, checkpoints, stream.model_copy(update={"student": student(lr)}))

    def student(lr: float) -> StudentConfig:
        return config().student.model_copy(update={"lr": lr})

    (scaled, its_report), (plain, report), (slower, other) = refined(0.01, 2.0), refined(0.02, 1.0), refined(0.01, 1.0)
    assert its_report == report != other
    assert same_bytes(scaled, plain)
    assert not np.array_equal(slower.influence, plain.influence)


def test_dropout_is_in_the_guards_students_but_not_in_the_proxies(units: Units, checkpoints: list[Predictor]) -> None:
    def refined(dropout: float, global_seed: int) -> tuple[Units, RefineReport]:
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        params = {"hidden": [6], "dropout": dropout}
        found = run(units, checkpoints, config(rounds=2, proxies=[{"name": "dnn", "arch": "dnn", "params": params}]))
        assert torch.equal(torch.get_rng_state(), state)
        return found

    (one, report), (two, again), (plain, without) = refined(0.4, 0), refined(0.4, 1), refined(0.0, 0)
    assert report == again
    assert same_bytes(one, two)
    assert report.meta_loss == without.meta_loss
    assert np.array_equal(one.influence, plain.influence)
    assert report.guard_before != without.guard_before


@pytest.mark.parametrize(("delta_lr", "logit_lr"), [(0.0, 1000.0), (1e30, 1e30)])
def test_the_guard_drops_a_refinement_that_hurts(
    units: Units, checkpoints: list[Predictor], delta_lr: float, logit_lr: float
) -> None:
    # Students long enough to learn what the labels have become.
    student = StudentConfig(steps=80, batch_size=16, lr=0.05)
    stream = config(delta_lr=delta_lr, logit_lr=logit_lr, rounds=4).model_copy(update={"student": student})
    after, report = run(units, checkpoints, stream)
    assert not report.kept
    assert not report.guard_after <= report.guard_before
    assert same_bytes(after.updated(influence=units.influence), units)
    # What was measured before the units were moved is kept all the same.
    assert after.influence.any()
    assert np.abs(after.influence).max() < 1
    assert str(RefineReport.model_validate_json(report.model_dump_json())) == str(report)


def test_the_guard_keeps_a_refinement_that_changes_nothing(units: Units, checkpoints: list[Predictor]) -> None:
    after, report = run(units, checkpoints, config(delta_lr=0.0, logit_lr=0.0))
    assert report.kept
    assert report.guard_after == report.guard_before
    assert same_bytes(after.updated(influence=units.influence), units)


def test_the_guard_rows_are_the_latest_and_no_hard_targets(
    units: Units, checkpoints: list[Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Tensor] = []
    real = Refiner.__init__

    def watched(self: Refiner, *values: Any) -> None:
        pools.append(values[2].x)
        real(self, *values)

    monkeypatch.setattr(Refiner, "__init__", watched)
    run(units, checkpoints, config())
    assert torch.equal(pools[0], checkpoints[-1].embed(HELD.ids)[: 90 - int(90 * GUARD_SHARE)])


def some(rows: Rows, n: int) -> Rows:
    return rows.take(np.arange(n))


@pytest.mark.parametrize(("n_rounds", "held"), [(0, 90), (3, 0), (3, 2)])
def test_nothing_to_do_changes_nothing(units: Units, checkpoints: list[Predictor], n_rounds: int, held: int) -> None:
    after, report = run(units, checkpoints, config(rounds=n_rounds), held=some(HELD, held))
    assert report is None
    assert same_bytes(after, units)


def test_three_held_out_rows_are_enough(units: Units, checkpoints: list[Predictor]) -> None:
    _, report = run(units, checkpoints, config(), held=some(HELD, 3))
    assert len(report.meta_loss) == 3


def test_rounds_are_told(units: Units, checkpoints: list[Predictor]) -> None:
    told: list[int] = []
    run(units, checkpoints, config(), on_round=told.append)
    assert told == [1, 2, 3]


def test_the_references_parameters_stand_behind_the_proxys_adapter(units: Units, checkpoints: list[Predictor]) -> None:
    stream = config(
        proxies=[
            {"name": "same", "arch": "dnn", "params": {"hidden": [8]}},
            {"name": "wider", "arch": "dnn", "params": {"hidden": [9]}},
            {"name": "less", "arch": "dnn", "params": {"hidden": [8]}, "drop_fields": ["hour"]},
            {"name": "fm", "arch": "fm"},
        ]
    )
    targets = pool(checkpoints)
    refiner = refiner_of(units, checkpoints, stream)
    assert [len(proxy.references) for proxy in refiner.proxies] == [2, 0, 0, 0]
    proxy = refiner.proxies[0]
    for theta, phi in zip(proxy.references, checkpoints, strict=True):
        # With the adapter at its start, the proxy is the checkpoint's net.
        torch.testing.assert_close(proxy.net(theta, targets.x), phi.members[1](targets.x))


@pytest.mark.parametrize("scale", [1.0, 1e-6])  # as small as meta-gradients are, where the place of epsilon shows
def test_row_adam_is_torchs_adam_on_rows_and_leaves_the_others(scale: float) -> None:
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(6, 2, 3, generator=rng)
    values = start.clone()
    mine = RowAdam(values)
    rows = torch.tensor([1, 4])
    parameter = torch.nn.Parameter(start[rows].clone())
    theirs = torch.optim.Adam([parameter], lr=0.01, eps=1e-10)
    for _ in range(5):
        gradient = torch.randn(2, 2, 3, generator=rng) * scale
        mine.step(rows, gradient, 0.01)
        parameter.grad = gradient
        theirs.step()
    torch.testing.assert_close(values[rows], parameter.detach())
    others = torch.tensor([0, 2, 3, 5])
    assert torch.equal(values[others], start[others])
    # A row that joins late is at its own first step, which is lr long.
    mine.step(torch.tensor([0]), torch.full((1, 2, 3), 3.0), 0.01)
    torch.testing.assert_close(values[0], start[0] - 0.01)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 50),
    n_active=st.integers(1, 50),
    batch=st.integers(1, 20),
    window=st.integers(1, 6),
)
def test_each_batch_of_the_window_has_its_share_of_active_units(n: int, n_active: int, batch: int, window: int) -> None:
    active = torch.randperm(n, generator=generator(n))[: min(n_active, n)].sort().values
    stream = StreamConfig.model_validate({"log": "x", "student": {"batch_size": batch}, "refine": {"window": window}})
    order = round_order(n, active, stream, rng=generator(1))
    assert order.shape == (window, batch)
    assert 0 <= int(order.min()) <= int(order.max()) < n
    share = torch.isin(order, active).sum(dim=1)
    if len(active) < n:
        assert bool((share >= max(round(batch * len(active) / n), batch / 2)).all())
        # The active units take turns: none is seen twice before each has been seen once.
        placed = max(round(batch * len(active) / n), (batch + 1) // 2)
        turns = order[:, :placed].flatten()[: len(active)]
        assert len(turns.unique()) == len(turns)


def test_a_round_works_where_its_worker_is(
    units: Units, checkpoints: list[Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = torch.device("meta")  # stands for a GPU: it holds no numbers
    refiner = refiner_of(units, checkpoints, config(rounds=2), crew=Solo(away))
    refiner.active = torch.arange(len(units))
    nets = [parameter for proxy in refiner.proxies for parameter in proxy.net.module.parameters()]
    starts = [start for proxy in refiner.proxies for start in proxy.references]
    assert {
        part.device for part in [*nets, *starts, refiner.targets.x, refiner.targets.labels, refiner.target_logits]
    } == {away}
    seen: list[set[torch.device]] = []

    def unrolled(net: FlatNet, state: AdamState, examples: Any, order: Tensor, hard: HardTargets, **how: Any) -> Any:
        seen.append({part.device for part in (state.theta, *vars(examples).values(), *vars(hard).values())})
        return MetaGradient(0.5, torch.arange(2), torch.ones(2, 4, 4), torch.ones(2, 1), state)

    monkeypatch.setattr("diet_ray.distill.refine.meta_gradient", unrolled)
    refiner.round(1)
    assert seen == [{away}]
    moved = now(refiner.memory, units)
    assert 0 < (moved.delta != units.delta).any(axis=(1, 2)).sum() <= 2


@pytest.mark.skipif(gpu_fault("float32") is not None, reason="needs a GPU")
def test_a_gpu_refines_as_the_cpu_does(units: Units, checkpoints: list[Predictor]) -> None:
    stream = config()
    stream = stream.model_copy(update={"student": stream.student.model_copy(update={"draw": 0.0})})
    found = []
    for device in ("cpu", "cuda"):
        memory = memory_of(units, SCHEMA, stream, phi=checkpoints[-1])
        found.append(refine(memory, checkpoints, HELD, SCHEMA, stream, Solo(torch.device(device)), seed=1))
    here, there = found
    assert here
    assert there
    assert there.meta_loss == pytest.approx(here.meta_loss, rel=1e-3)
    assert there.guard_before == pytest.approx(here.guard_before, rel=1e-3)
    assert there.guard_after == pytest.approx(here.guard_after, rel=1e-3)
