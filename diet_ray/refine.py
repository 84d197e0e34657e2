"""Stage step 7: rounds of the bi-level step on the memory, and the judgement whether they helped. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diet_ray.address import choose_active, draw_hard, example_losses, influence, reducible_loss
from diet_ray.bilevel import HardTargets, MetaClip, meta_gradient, mix_initial
from diet_ray.blocks import Rows
from diet_ray.candidates import Candidate, CandidateSpec, build
from diet_ray.config import StreamConfig
from diet_ray.crew import Crew
from diet_ray.reference import Predictor
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed, generator
from diet_ray.settings import Metric, Settings
from diet_ray.student import (
    BETA1,
    BETA2,
    EPSILON,
    AdamState,
    Examples,
    FlatNet,
    batch_order,
    cosine,
    predict,
    run_steps,
    train_student,
)
from diet_ray.units import Units

GUARD_SHARE = 1 / 3
"""Share of the held-out rows, the latest, on which refinement is judged; the others serve as hard targets."""


class RefineReport(Settings):
    """What refinement did to the memory in one stage."""

    skipped: int
    """Rounds without effect because their meta-gradient was not finite."""
    meta_loss: list[Metric]
    """Meta-loss of each round, nats; nan where the unrolled proxy diverged."""
    guard_before: Metric
    """Mean logloss on the guard rows of fresh students of the unrefined memory, one per proxy."""
    guard_after: Metric
    """The same for the refined memory; nan where its students diverged."""
    kept: bool
    """Whether the refined memory was no worse and therefore kept."""


def refine(
    units: Units,
    checkpoints: list[Predictor],
    held: Rows,
    schema: Schema,
    config: StreamConfig,
    crew: Crew,
    *,
    seed: int,
    on_round: Callable[[int], None] | None = None,
) -> tuple[Units, RefineReport | None]:
    """Refine the memory on real rows that the reference has not learned from.

    Args:
        units: M_t, ordered by unit id; the same on every worker.
        checkpoints: the K checkpoints of phi_t, oldest first.
        held: the held-out rows of the block, in time order.
        schema: the log's.
        config: the run's.
        crew: the workers; B_hard is split over them, and all of them hold and change the same units.
        seed: the stage's.
        on_round: called with the number of rounds done.

    Returns:
        The memory with fresh influences (deltas and logits are the old ones where refinement did not help) and a report; the memory
        as it was and None where there is nothing to do: no rounds, or too few held-out rows to judge by.
    """
    n_guard = int(len(held) * GUARD_SHARE)
    if config.refine.rounds == 0 or n_guard == 0:
        return units, None
    x, labels = checkpoints[-1].embed(held.ids), torch.tensor(held.labels, dtype=torch.float32)
    pool, guard = HardTargets(x[:-n_guard], labels[:-n_guard]), HardTargets(x[-n_guard:], labels[-n_guard:])

    refiner = Refiner(units, checkpoints, pool, schema, config, crew, seed)
    for number in range(config.refine.rounds):
        refiner.round(number)
        if on_round:
            on_round(number + 1)

    fresh = [refiner.fresh_proxy(spec, derive_seed(seed, "guard", spec.name)) for spec in config.refine.proxies]
    guard_before = _guard_loss(
        fresh,
        Examples(refiner.base + torch.tensor(units.delta), torch.tensor(units.logit), refiner.weight),
        guard,
        config,
        seed,
    )
    guard_after = _guard_loss(fresh, refiner.examples(), guard, config, seed)
    report = RefineReport(
        skipped=refiner.skipped,
        meta_loss=refiner.meta_loss,
        guard_before=guard_before,
        guard_after=guard_after,
        kept=guard_after <= guard_before,
    )
    if report.kept:
        units = units.updated(delta=refiner.delta.numpy(), logit=refiner.logit.numpy())
    return units.updated(influence=refiner.influence.numpy()), report


@dataclass(frozen=True)
class Proxy:
    """A net of the pool and the reference's parameters for it."""

    spec: CandidateSpec
    net: FlatNet
    references: list[Tensor]
    """Its parameters in each checkpoint, `[P]`; empty where the reference has another architecture."""


class Refiner:
    """The memory under refinement: units, outer optimiser and addressing. Every worker holds the same one."""

    def __init__(
        self,
        units: Units,
        checkpoints: list[Predictor],
        pool: HardTargets,
        schema: Schema,
        config: StreamConfig,
        crew: Crew,
        seed: int,
    ) -> None:
        self.config, self.crew, self.seed, self.pool = config, crew, seed, pool
        self.field_names = schema.field_names
        self.base = checkpoints[-1].embed(units.ids)
        self.delta, self.logit = torch.tensor(units.delta), torch.tensor(units.logit)
        self.weight = torch.tensor(units.weight)
        self.pool_logits = checkpoints[-1].logits(pool.x)
        self.proxies = [self._proxy(spec, checkpoints) for spec in config.refine.proxies]
        self.delta_adam, self.logit_adam, self.clip = RowAdam(self.delta), RowAdam(self.logit), MetaClip()
        self.meta_loss: list[float] = []
        self.skipped = 0
        self.influence = torch.zeros(len(units))
        self.active = torch.zeros(0, dtype=torch.int64)
        self.reducible = torch.zeros(len(pool))

    def examples(self) -> Examples:
        """The units as a student sees them now."""
        return Examples(self.base + self.delta, self.logit, self.weight)

    def round(self, number: int) -> None:
        """One bi-level step: address, unroll a proxy, move the active units against the gradient of the loss on B_hard."""
        config, rng = self.config, generator(self.seed, "round", number)
        proxy = self.proxies[int(torch.randint(len(self.proxies), (), generator=rng))]
        random = FlatNet(self.fresh_proxy(proxy.spec, derive_seed(self.seed, "start", number))).initial()
        if number % config.refine.address_every == 0:
            self.address(proxy, random, rng)
        chosen = draw_hard(self.reducible, config.refine.hard_batch, config.refine.uniform_share, rng)
        mine = chosen[self.crew.rank :: self.crew.size]
        start = int(torch.randint(config.student.steps - config.refine.window + 1, (), generator=rng))
        gradient = meta_gradient(
            proxy.net,
            _initial(proxy, random, rng),
            self.examples(),
            round_order(len(self.weight), self.active, config, start=start, rng=rng),
            HardTargets(self.pool.x[mine], self.pool.labels[mine]),
            start=start,
            window=config.refine.window,
            rate=cosine(config.student, proxy.spec.lr_scale),
            draw=config.student.draw,
            rng=rng,
            of=len(chosen),
        )
        self.meta_loss.append(float(self.crew.sum(torch.tensor([gradient.loss], dtype=torch.float64))))
        changeable = torch.isin(gradient.rows, self.active)
        by_delta = self.crew.sum(gradient.delta[changeable])
        by_logit = self.crew.sum(gradient.logit[changeable])
        factor = self.clip.factor(math.hypot(float(by_delta.double().norm()), float(by_logit.double().norm())))
        if factor is None:
            self.skipped += 1
            return
        rows = gradient.rows[changeable]
        self.delta_adam.step(rows, by_delta * factor, config.refine.delta_lr)
        self.logit_adam.step(rows, by_logit * factor, config.refine.logit_lr)

    def address(self, proxy: Proxy, random: Tensor, rng: torch.Generator) -> None:
        """Measure with a fresh student where the memory fails (reducible loss) and which units have leverage on it (influence)."""
        student, examples = self.config.student, self.examples()
        order = batch_order(len(examples), student.steps, student.batch_size, rng)
        rate = cosine(student, proxy.spec.lr_scale)
        theta = run_steps(proxy.net, AdamState.start(random), examples, order, rate, draw=student.draw, rng=rng).theta
        with torch.no_grad():
            self.reducible = reducible_loss(proxy.net(theta, self.pool.x), self.pool_logits, self.pool.labels)
        self.influence = influence(proxy.net, theta, examples, self.pool)
        self.active = choose_active(self.influence, self.config.refine.active)

    def fresh_proxy(self, spec: CandidateSpec, seed: int) -> Candidate:
        """A net of the pool with random parameters."""
        return build(spec, self.field_names, self.base.shape[2], self.logit.shape[1], seed)

    def _proxy(self, spec: CandidateSpec, checkpoints: list[Predictor]) -> Proxy:
        # Evaluation mode: a unit's gradient shall not hang on one draw of masks, nor workers that split B_hard on each their own.
        net, own = FlatNet(self.fresh_proxy(spec, seed=0).eval()), spec.hyper_parameters()
        alike = [
            number
            for number, member in enumerate(self.config.reference.nets)
            if spec.arch == member.arch and own == member.hyper_parameters() and not spec.drop_fields
        ]
        # The reference has no adapter: its parameters stand behind the proxy's, which is the identity at the start.
        start = dict(net.module.named_parameters())
        return Proxy(
            spec,
            net,
            [
                net.flatten({**start, **dict(part.members[number].named_parameters())})
                for part in checkpoints
                for number in alike
            ],
        )


class RowAdam:
    """Adam on some rows of a tensor at a time: moments and step counts are each row's own, so an untouched row stays as it is.

    Nothing differentiates this one, so its epsilon stands outside the root, as usual.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.m, self.v = torch.zeros_like(values), torch.zeros_like(values)
        self.steps = torch.zeros(len(values))

    def step(self, rows: Tensor, gradient: Tensor, lr: float) -> None:
        """Move the rows `rows [R]` against `gradient [R, ...]`, in place."""
        self.steps[rows] += 1
        count = self.steps[rows].view(-1, *[1] * (gradient.dim() - 1))
        self.m[rows] = BETA1 * self.m[rows] + (1 - BETA1) * gradient
        self.v[rows] = BETA2 * self.v[rows] + (1 - BETA2) * gradient**2
        root = torch.sqrt(self.v[rows] / (1 - BETA2**count)) + EPSILON
        self.values[rows] -= lr * self.m[rows] / (1 - BETA1**count) / root


def round_order(n: int, active: Tensor, config: StreamConfig, *, start: int, rng: torch.Generator) -> Tensor:
    """`[start + W, B]` int64: the batches of a round, in which the window sees enough of the active units.

    Where they are all units, the order is a student's. Otherwise each batch of the window holds active units in proportion to their
    number, at least a half, and units drawn from all for the rest.
    """
    batch_size, window = config.student.batch_size, config.refine.window
    order = batch_order(n, start + window, batch_size, rng)
    if len(active) < n:
        share = max(round(batch_size * len(active) / n), (batch_size + 1) // 2)
        order[start:, :share] = active[batch_order(len(active), window, share, rng)]
    return order


def _initial(proxy: Proxy, random: Tensor, rng: torch.Generator) -> Tensor:
    """`theta_0`: the reference's parameters at a random checkpoint mixed with random ones, or random ones alone."""
    if not proxy.references:
        return random
    k = int(torch.randint(len(proxy.references), (), generator=rng))
    return mix_initial(proxy.references[k], random, float(torch.rand((), generator=rng)))


def _guard_loss(
    fresh: list[Candidate], examples: Examples, guard: HardTargets, config: StreamConfig, seed: int
) -> float:
    """Mean logloss on the guard rows of one student per proxy, trained for the whole horizon from the same start and order."""
    losses = []
    for number, (spec, module) in enumerate(zip(config.refine.proxies, fresh, strict=True)):
        theta = train_student(
            module, examples, config.student, seed=derive_seed(seed, "guard", number), lr_scale=spec.lr_scale
        )
        losses.append(float(example_losses(predict(module, theta, guard.x), guard.labels).mean()))
    return sum(losses) / len(losses)
