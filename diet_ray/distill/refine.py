"""Stage step 7: rounds of the bi-level step on the memory, and the decision whether to keep their result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diet_ray.candidates import Candidate, CandidateSpec, build
from diet_ray.config import StreamConfig
from diet_ray.distill.address import direction, draw_hard, example_losses, reducible_loss
from diet_ray.distill.bilevel import HardTargets, MetaClip, meta_gradient, mix_initial
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.logs.blocks import Rows
from diet_ray.memory.facts import RefineReport
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.training.adam import AdamState
from diet_ray.training.device import draws_on, generator, put
from diet_ray.training.holdout import count_guard
from diet_ray.training.predictor import Predictor
from diet_ray.training.student import FlatNet, batch_order, cosine, predict, run_steps, student_order, train_student
from diet_ray.training.workers import Crew


def refine(
    memory: ShardedMemory,
    checkpoints: list[Predictor],
    held: Rows,
    schema: Schema,
    config: StreamConfig,
    crew: Crew,
    *,
    seed: int,
    on_round: Callable[[int], None] | None = None,
) -> RefineReport | None:
    """Refine the memory on real rows on which the reference has not trained.

    Where refinement did not help, the units are the old ones, with the influence that was measured before they were moved.

    Args:
        memory: M_t, open; changed in its shards.
        checkpoints: the K checkpoints of phi_t, oldest first.
        held: the held-out rows of the block, in time order.
        schema: of the log.
        config: of the run.
        crew: the workers; B_hard is split over them, and all of them unroll the same proxy on the same units.
        seed: of the stage.
        on_round: called with the number of rounds done.

    Returns:
        A report; None where refinement is skipped: no rounds, or too few held-out rows to judge the result.
    """
    n_guard = count_guard(len(held))
    if config.refine.rounds == 0 or n_guard == 0:
        return None
    x, labels = checkpoints[-1].embed(held.ids), torch.tensor(held.labels, dtype=torch.float32)
    targets, guard = HardTargets(x[:-n_guard], labels[:-n_guard]), HardTargets(x[-n_guard:], labels[-n_guard:])

    refiner = Refiner(memory, checkpoints, targets, schema, config, crew, seed)
    for number in range(config.refine.rounds):
        refiner.round(number)
        if on_round:
            on_round(number + 1)

    guard = guard.to(crew.device)
    guard_before, guard_after = (refiner.guard_loss(guard, refined=refined) for refined in (False, True))
    report = RefineReport(
        skipped=refiner.skipped,
        meta_loss=refiner.meta_loss,
        guard_before=guard_before,
        guard_after=guard_after,
        kept=guard_after <= guard_before,
    )
    crew.barrier()  # from here on no worker reads the unrefined units
    if crew.rank == 0:
        memory.settle(kept=report.kept)
    return report


@dataclass(frozen=True)
class Proxy:
    """A proxy net and the reference's parameters for it."""

    spec: CandidateSpec
    net: FlatNet
    references: list[Tensor]
    """Its parameters in each checkpoint, `[P]`; empty where the reference has another architecture."""


@dataclass
class Pupil:
    """A proxy in training on the memory."""

    proxy: Proxy
    state: AdamState


class Refiner:
    """The rounds of one stage. Every worker runs the same rounds and fetches the units that a round needs; only the leader moves units.

    Proxies, hard targets and fetched units are on the worker's device. Units and rows are drawn on the CPU; tensors that workers sum or
    send to shards are on the CPU too.
    """

    def __init__(
        self,
        memory: ShardedMemory,
        checkpoints: list[Predictor],
        targets: HardTargets,
        schema: Schema,
        config: StreamConfig,
        crew: Crew,
        seed: int,
    ) -> None:
        self.memory, self.config, self.crew, self.seed, self.device = memory, config, crew, seed, crew.device
        self.schema = schema
        self.targets, self.target_logits = targets.to(self.device), put(checkpoints[-1].logits(targets.x), self.device)
        self.proxies = [self._proxy(spec, checkpoints) for spec in config.refine.proxies]
        self.clip = MetaClip()
        self.meta_loss: list[float] = []
        self.skipped = 0
        self.active = torch.zeros(0, dtype=torch.int64)
        self.reducible = torch.zeros(len(targets))
        self.pupils = [self._new_pupil(number) for number in range(config.refine.pool)]

    def round(self, number: int) -> None:
        """One bi-level step: address, let a pupil do the steps of a window, move the active units against the gradient of its loss."""
        config, rng = self.config, generator(self.seed, "round", number)
        place, window = number % len(self.pupils), config.refine.window
        if self.pupils[place].state.step + window > config.student.steps:
            self.pupils[place] = self._new_pupil(len(self.pupils) + number, age=0)
        pupil = self.pupils[place]
        if number % config.refine.address_every == 0:
            self.address(max(self.pupils, key=lambda one: one.state.step))
        chosen = draw_hard(self.reducible, config.refine.hard_batch, config.refine.uniform_share, rng)
        share = put(chosen[self.crew.rank :: self.crew.size], self.device)
        rows, order = self._rows(round_order(len(self.memory), self.active, config, rng=rng))
        gradient = meta_gradient(
            pupil.proxy.net,
            pupil.state,
            self.memory.take(rows).to(self.device),
            order,
            HardTargets(self.targets.x[share], self.targets.labels[share]),
            rate=cosine(config.student, pupil.proxy.spec.lr_scale),
            draw=config.student.draw,
            rng=draws_on(self.device, rng),
            of=len(chosen),
        )
        pupil.state = gradient.state
        self.meta_loss.append(float(self.crew.sum(torch.tensor([gradient.loss], dtype=torch.float64))))
        used = rows[gradient.rows.cpu()]
        changeable = torch.isin(used, self.active)
        by_delta = self.crew.sum(gradient.delta.cpu()[changeable])
        by_logit = self.crew.sum(gradient.logit.cpu()[changeable])
        factor = self.clip.factor(math.hypot(float(by_delta.double().norm()), float(by_logit.double().norm())))
        if factor is None:
            self.skipped += 1
            return
        if self.crew.rank == 0:
            self.memory.move(used[changeable], by_delta * factor, by_logit * factor)
        self.crew.barrier()

    def address(self, pupil: Pupil) -> None:
        """Measure on which rows a pupil of the memory fails (reducible loss) and which units affect them (influence)."""
        n, net, theta = min(self.config.refine.active, len(self.memory)), pupil.proxy.net, pupil.state.theta
        with torch.no_grad():
            self.reducible = reducible_loss(net(theta, self.targets.x), self.target_logits, self.targets.labels).cpu()
        self.active = torch.zeros(n, dtype=torch.int64)
        if self.crew.rank == 0:
            along = direction(net, theta, self.targets)
            self.active = self.memory.measure(pupil.proxy.spec, theta.cpu(), along.cpu(), n)
        self.active = self.crew.sum(self.active)  # the leader's positions, since all other workers add zeros

    def guard_loss(self, guard: HardTargets, *, refined: bool) -> float:
        """Mean logloss on the guard rows of one student per proxy, trained for the whole horizon with a fixed start and batch order."""
        losses = []
        for number, spec in enumerate(self.config.refine.proxies):
            module = self.fresh_proxy(spec, derive_seed(self.seed, "guard", spec.name)).to(self.device)
            seed = derive_seed(self.seed, "guard", number)
            rows, order = self._rows(student_order(len(self.memory), self.config.student, seed))
            units = self.memory.take(rows, refined=refined).to(self.device)
            theta = train_student(module, units, self.config.student, seed=seed, lr_scale=spec.lr_scale, order=order)
            losses.append(float(example_losses(predict(module, theta, guard.x), guard.labels).mean()))
        return sum(losses) / len(losses)

    def _new_pupil(self, number: int, age: int | None = None) -> Pupil:
        """A pupil that has done `age` steps; by default the pool's share of the horizon, so that the first ones are of all ages."""
        config, rng = self.config, generator(self.seed, "pupil", number)
        proxy, window = self.proxies[number % len(self.proxies)], config.refine.window
        if age is None:
            age = (number * config.student.steps // config.refine.pool) // window * window
        random = FlatNet(self.fresh_proxy(proxy.spec, derive_seed(self.seed, "start", number))).initial()
        state = AdamState.start(_initial(proxy, put(random, self.device), rng))
        if age:
            rows, order = self._rows(batch_order(len(self.memory), age, config.student.batch_size, rng))
            units, rate = self.memory.take(rows).to(self.device), cosine(config.student, proxy.spec.lr_scale)
            draw, draws = config.student.draw, draws_on(self.device, rng)
            state = run_steps(proxy.net, state, units, order, rate, draw=draw, rng=draws)
        return Pupil(proxy, state)

    @staticmethod
    def _rows(order: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct units of a batch order, ascending, and the order in positions among them."""
        rows, position = torch.unique(order, return_inverse=True)
        return rows, position

    def fresh_proxy(self, spec: CandidateSpec, seed: int) -> Candidate:
        """A proxy net with random parameters."""
        return build(spec, self.schema.field_names, self.config.reference.dim, self.schema.n_tasks, seed)

    def _proxy(self, spec: CandidateSpec, checkpoints: list[Predictor]) -> Proxy:
        # Evaluation mode: with dropout, a unit's gradient would depend on one draw of masks, and on other masks at each worker.
        net, own = FlatNet(self.fresh_proxy(spec, seed=0).eval()), spec.hyper_parameters()
        alike = [
            number
            for number, member in enumerate(self.config.reference.nets)
            if spec.arch == member.arch and own == member.hyper_parameters() and not spec.drop_fields
        ]
        # The reference has no adapter: the proxy's adapter keeps its initial parameters, the identity.
        start = dict(net.module.named_parameters())
        references = [
            put(net.flatten({**start, **dict(part.members[number].named_parameters())}), self.device)
            for part in checkpoints
            for number in alike
        ]
        net.module.to(self.device)
        return Proxy(spec, net, references)


def round_order(n: int, active: Tensor, config: StreamConfig, *, rng: torch.Generator) -> Tensor:
    """`[W, B]` int64: the batches of a round, with enough active units.

    Where all units are active, the order is that of a student. Otherwise each batch holds active units in proportion to their number, but
    at least half of the batch; the rest is drawn from all units.
    """
    batch_size, window = config.student.batch_size, config.refine.window
    order = batch_order(n, window, batch_size, rng)
    if len(active) < n:
        share = max(round(batch_size * len(active) / n), (batch_size + 1) // 2)
        order[:, :share] = active[batch_order(len(active), window, share, rng)]
    return order


def _initial(proxy: Proxy, random: Tensor, rng: torch.Generator) -> Tensor:
    """`theta_0`: the reference's parameters at a random checkpoint mixed with random ones, or only random ones."""
    if not proxy.references:
        return random
    k = int(torch.randint(len(proxy.references), (), generator=rng))
    return mix_initial(proxy.references[k], random, float(torch.rand((), generator=rng)))
