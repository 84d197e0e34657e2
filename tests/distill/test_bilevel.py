"""The meta-gradient against finite differences and against a plain, untruncated unroll that shares no code with it."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.distill import bilevel
from diet_ray.distill.bilevel import HardTargets, MetaClip, MetaGradient, meta_gradient, mix_initial
from diet_ray.training.adam import BETA1, BETA2, EPSILON, AdamState, adam_step
from diet_ray.training.device import CPU, autocast
from diet_ray.training.student import Examples, FlatNet, batch_order, run_steps
from tests.support.small_nets import SMALL, make

M, F, D, T, H = 12, 3, 4, 2, 10
DRAW = 0.6


def rate(step: int) -> float:
    return 0.05 * (1 - step / 20)


PLAIN = {"rate": rate, "draw": 0.0, "rng": torch.Generator()}


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(7)


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Linear(F * D, 5).double(), nn.Linear(5, T).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x.flatten(1))))


@pytest.fixture
def problem() -> tuple[FlatNet, Tensor, Examples, Tensor, HardTargets]:
    rng = torch.Generator().manual_seed(2)
    examples = Examples(
        torch.randn(M, F, D, generator=rng, dtype=torch.float64),
        torch.randn(M, T, generator=rng, dtype=torch.float64),
        torch.rand(M, generator=rng, dtype=torch.float64) + 0.5,
    )
    hard = HardTargets(
        torch.randn(H, F, D, generator=rng, dtype=torch.float64),
        torch.randint(0, 2, (H, T), generator=rng).double(),
    )
    net = FlatNet(SmallNet())
    return net, net.initial(), examples, batch_order(M, 9, 5, rng), hard


def trained_loss(
    net: FlatNet, theta: Tensor, examples: Examples, moved: Examples, order: Tensor, hard: HardTargets, start: int
) -> float:
    """Meta-loss of a student trained without any graph: on `examples` for `start` steps, on `moved` from there on."""
    state = run_steps(net, AdamState.start(theta), examples, order[:start], rate, draw=0, rng=draws())
    state = run_steps(net, state, moved, order[start:], rate, draw=0, rng=draws())
    with torch.no_grad():
        return float(binary_cross_entropy_with_logits(net(state.theta, hard.x), hard.labels))


def unrolled(
    net: FlatNet, theta: Tensor, examples: Examples, order: Tensor, hard: HardTargets, *, start: int, **how: Any
) -> MetaGradient:
    """`start` steps without a graph, the other batches as the window."""
    of = how.pop("of", None)
    state = run_steps(net, AdamState.start(theta), examples, order[:start], **how)
    return meta_gradient(net, state, examples, order[start:], hard, of=of, **how)


@pytest.mark.parametrize(("window", "most"), [(1, 1), (2, 2), (5, 3), (9, 3)])
def test_graphs_of_a_few_steps_are_kept_at_a_time(problem, monkeypatch: Any, window: int, most: int) -> None:
    net, theta, examples, order, hard = problem
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    counts: list[int] = []
    forth = bilevel._Step.forth

    def watched(*values: Any) -> Any:
        step = forth(*values)
        alive.add(step)
        counts.append(len(alive))
        return step

    monkeypatch.setattr(bilevel._Step, "forth", watched)
    unrolled(net, theta, examples, order[:window], hard, start=0, **PLAIN)
    assert max(counts) == most
    assert len(counts) <= 2 * window - 1
    assert not alive


@pytest.mark.parametrize("start", [0, 4, 8])
@pytest.mark.parametrize("logits", [False, True])
def test_equals_finite_differences(problem, logits: bool, start: int) -> None:
    net, theta, examples, order, hard = problem
    gradient = unrolled(net, theta, examples, order, hard, start=start, **PLAIN)
    assert gradient.rows.tolist() == sorted(set(order[start:].flatten().tolist()))
    unmoved = trained_loss(net, theta, examples, examples, order, hard, start)
    assert math.isclose(gradient.loss, unmoved, rel_tol=1e-12)
    values = examples.logit if logits else examples.x
    found = torch.zeros_like(values)  # what the window does not use has no influence through it
    found[gradient.rows] = gradient.logit if logits else gradient.delta
    step = 1e-6
    for position in range(0, values.numel(), 5):
        sides = []
        for sign in (1, -1):
            changed = values.clone()
            changed.view(-1)[position] += sign * step
            parts = (examples.x, changed) if logits else (changed, examples.logit)
            moved = Examples(*parts, examples.weight)
            sides.append(trained_loss(net, theta, examples, moved, order, hard, start))
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(float(found.view(-1)[position]), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("draw", [0.0, DRAW])
@pytest.mark.parametrize("start", [0, 4])
def test_equals_a_plain_unroll(problem, start: int, draw: float) -> None:
    net, theta, examples, order, hard = problem
    gradient = unrolled(net, theta, examples, order, hard, start=start, rate=rate, draw=draw, rng=draws())
    rng = draws()

    # All nine steps with a graph, written out over a list of tensors; units used before the window do not count.
    module = SmallNet()
    x, logit = examples.x.clone().requires_grad_(), examples.logit.clone().requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    names = [name for name, _ in module.named_parameters()]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    for number, batch in enumerate(order, start=1):
        tracked = number > start
        inputs, targets = (x, logit) if tracked else (x.detach(), logit.detach())
        out = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (inputs[batch],))
        soft = torch.sigmoid(targets[batch])
        # A draw is a number that stands on the soft label: whatever it is, the label moves as the soft label does.
        noise = draw * (torch.bernoulli(soft.detach(), generator=rng) - soft.detach()) if draw else 0.0
        losses = binary_cross_entropy_with_logits(out, soft + noise, reduction="none").mean(1)
        lr = rate(number - 1)
        gradients = torch.autograd.grad((examples.weight[batch] * losses).mean(), parameters, create_graph=tracked)
        for i, g in enumerate(gradients):
            m, v = BETA1 * moments[i][0] + (1 - BETA1) * g, BETA2 * moments[i][1] + (1 - BETA2) * g**2
            moments[i] = (m, v)
            step = (m / (1 - BETA1**number)) / (v / (1 - BETA2**number) + EPSILON).sqrt()
            parameters[i] = (
                parameters[i] - lr * step if tracked else (parameters[i] - lr * step).detach().requires_grad_()
            )
    out = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (hard.x,))
    by_x, by_logit = torch.autograd.grad(binary_cross_entropy_with_logits(out, hard.labels), (x, logit))

    rows = gradient.rows
    torch.testing.assert_close(gradient.delta, by_x[rows], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(gradient.logit, by_logit[rows], rtol=1e-8, atol=1e-12)
    others = torch.ones(M, dtype=torch.bool)
    others[rows] = False
    assert not by_x[others].any()


def test_shares_of_the_hard_targets_add_up(problem) -> None:
    net, theta, examples, order, hard = problem
    how = {"start": 2, "rate": rate, "draw": DRAW}
    whole = unrolled(net, theta, examples, order[:7], hard, rng=draws(), **how)
    parts = [
        unrolled(
            net, theta, examples, order[:7], HardTargets(hard.x[r::3], hard.labels[r::3]), of=H, rng=draws(), **how
        )
        for r in range(3)
    ]
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, rel=1e-12)
    torch.testing.assert_close(sum(part.delta for part in parts), whole.delta)
    torch.testing.assert_close(sum(part.logit for part in parts), whole.logit)


def test_a_zero_gradient_leaves_the_derivative_finite() -> None:
    theta = torch.zeros(3, requires_grad=True)
    gradient = torch.zeros(3, requires_grad=True)
    state = adam_step(AdamState.start(theta), gradient, 0.05)
    assert torch.autograd.grad(state.theta.sum(), gradient)[0].isfinite().all()


def test_clip_limits_to_twice_the_running_mean_and_skips_what_is_not_finite() -> None:
    clip = MetaClip()
    assert clip.factor(float("nan")) is None  # before there is a mean, too
    assert clip.factor(1.0) == 1.0
    assert clip.factor(1.5) == 1.0
    mean = 0.9 * 1.0 + 0.1 * 1.5
    assert clip.factor(100.0) == pytest.approx(2 * mean / 100)
    mean = 0.9 * mean + 0.1 * 2 * mean  # what was cut off moves nothing
    assert clip.mean == pytest.approx(mean)
    before = clip.mean
    assert clip.factor(float("nan")) is None
    assert clip.factor(float("inf")) is None
    assert clip.mean == before
    assert clip.factor(0.0) == 1.0


def test_mix_is_linear() -> None:
    a, b = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(mix_initial(a, b, 1.0), a)
    torch.testing.assert_close(mix_initial(a, b, 0.0), b)
    torch.testing.assert_close(mix_initial(a, b, 0.25), 0.25 * a + 0.75 * b)


def test_a_zero_norm_does_not_freeze_what_follows() -> None:
    clip = MetaClip()
    assert clip.factor(0.0) == 1.0
    assert clip.factor(2.0) == 1.0
    assert clip.factor(0.0) == 1.0
    assert clip.factor(3.0) == 1.0
    assert clip.mean == pytest.approx(0.9 * 2 + 0.1 * 3)


@pytest.mark.parametrize("arch", ["dnn", "dcnv2", "wukong"])
def test_bfloat16_is_too_rough_for_the_inner_loop(arch: str) -> None:
    """A twentieth of its length is what a meta-gradient may be off; docs/tuning.md says that it is not kept."""
    rng = torch.Generator().manual_seed(3)
    examples = Examples(torch.randn(64, 5, 4, generator=rng), torch.randn(64, 1, generator=rng), torch.ones(64))
    hard = HardTargets(torch.randn(64, 5, 4, generator=rng), torch.randint(0, 2, (64, 1), generator=rng).float())
    net, order = FlatNet(make(arch, SMALL[arch]).eval()), batch_order(64, 40, 16, rng)
    found = []
    for precision in ("float32", "bfloat16"):
        with autocast(CPU, precision):  # type: ignore[arg-type]
            gradient = unrolled(net, net.initial(), examples, order, hard, start=20, **PLAIN)
        found.append(gradient.delta.double())
    exact, rough = found
    assert float((rough - exact).norm() / exact.norm()) > 0.05
