import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import StudentConfig
from diet_ray.training.adam import AdamState, FlatAdam, adam_step, adam_vjp
from diet_ray.training.device import generator
from diet_ray.training.student import Examples, FlatNet, batch_order, drawn, loss, predict, train_student

SPEC = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]})


def module(seed: int = 0) -> nn.Module:
    return build(SPEC, ["a", "b", "c"], 4, 2, seed)


def examples(m: int = 50, seed: int = 0) -> Examples:
    rng = torch.Generator().manual_seed(seed)
    return Examples(
        torch.randn(m, 3, 4, generator=rng), torch.randn(m, 2, generator=rng), torch.rand(m, generator=rng) + 0.5
    )


def test_flat_net_is_the_module() -> None:
    net = FlatNet(module())
    theta, x = net.initial(), examples().x
    assert torch.equal(net(theta, x), net.module(x))
    assert torch.equal(net.flatten(net.unflatten(theta)), theta)
    assert len(theta) == sum(p.numel() for p in net.module.parameters())
    other = FlatNet(module(1))
    assert torch.equal(net(other.initial(), x), other.module(x))
    assert torch.equal(net.flatten({**net.unflatten(theta), "more": theta}), theta)


def test_adam_step_is_torchs_adam() -> None:
    rng = torch.Generator().manual_seed(1)
    theta = torch.randn(7, generator=rng, dtype=torch.float64)
    parameter = nn.Parameter(theta.clone())
    optimiser = torch.optim.Adam([parameter], lr=0.01, eps=1e-12)
    state = AdamState.start(theta)
    for _ in range(20):
        gradient = torch.randn(7, generator=rng, dtype=torch.float64)
        gradient = gradient.sign() * (gradient.abs() + 0.5)  # epsilon counts for nothing
        state = adam_step(state, gradient, 0.01)
        parameter.grad = gradient
        optimiser.step()
        assert torch.allclose(state.theta, parameter.detach(), rtol=0, atol=1e-9)
    assert state.step == 20


def test_steps_in_place_give_the_bytes_of_adam_step() -> None:
    rng = torch.Generator().manual_seed(2)
    theta = torch.randn(7, generator=rng)
    state = AdamState(theta, torch.zeros(7), torch.zeros(7), 0)
    flat = FlatAdam(state)
    for step in range(5):
        gradient = torch.randn(7, generator=rng)
        state = adam_step(state, gradient, 0.1 / (step + 1))
        flat.step([gradient[:4].view(2, 2), gradient[4:]], 0.1 / (step + 1))
        for one, other in zip(flat.state(), state, strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert not torch.equal(flat.theta, theta)


def test_adam_step_has_a_finite_derivative_at_zero_gradient() -> None:
    gradient = torch.zeros(3, requires_grad=True)
    adam_step(AdamState.start(torch.ones(3)), gradient, 0.1).theta.sum().backward()
    assert gradient.grad is not None
    assert bool(torch.isfinite(gradient.grad).all())
    assert bool((gradient.grad < 0).all())


@pytest.mark.parametrize("step", [0, 7])
def test_the_derivative_of_a_step_by_hand_is_autograds(step: int) -> None:
    rng = torch.Generator().manual_seed(3)
    theta, m, gradient, *by_after = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    v = torch.rand(5, generator=rng, dtype=torch.float64)
    inputs = [one.requires_grad_() for one in (theta, m, v, gradient)]
    after = adam_step(AdamState(theta, m, v, step), gradient, 0.1)
    expected = torch.autograd.grad(after[:3], inputs, by_after)
    with torch.no_grad():
        before, by_gradient = adam_vjp(AdamState(theta, m, v, step), gradient, 0.1, AdamState(*by_after, step + 1))
    torch.testing.assert_close((before.theta, before.m, before.v, by_gradient), expected)


@settings(deadline=None)
@given(n=st.integers(1, 40), steps=st.integers(1, 30), batch=st.integers(1, 20))
def test_every_epoch_of_the_order_is_a_permutation(n: int, steps: int, batch: int) -> None:
    order = batch_order(n, steps, batch, generator(0))
    assert order.shape == (steps, batch)
    epochs = order.flatten().split(n)
    for epoch in epochs:
        assert len(epoch.unique()) == len(epoch)
        assert 0 <= int(epoch.min()) <= int(epoch.max()) < n
    if len(epochs) > 1 and len(epochs[1]) == n > 6:
        assert not torch.equal(epochs[0], epochs[1])


def test_loss_is_the_weighted_mean_over_examples_of_the_mean_over_tasks() -> None:
    net, data = FlatNet(module()), examples()
    theta, target = net.initial(), torch.sigmoid(data.logit)
    p = torch.sigmoid(net(theta, data.x))
    nats = -(target * p.log() + (1 - target) * (1 - p).log())
    expected = (data.weight[:, None] * nats).sum() / (50 * 2)
    assert torch.allclose(loss(net, theta, data.x, target, data.weight), expected, atol=1e-6)


@pytest.mark.parametrize("draw", [0.0, 0.25, 1.0])
def test_train_student_against_torchs_own_loop(draw: float) -> None:
    data, config = examples(), StudentConfig(steps=30, batch_size=16, lr=0.01, draw=draw)
    theta = train_student(module(), data, config, seed=5)
    mine, rng = module(), generator(5, "labels")
    optimiser = torch.optim.Adam(mine.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 30)
    for batch in batch_order(50, 30, 16, generator(5, "order")):
        optimiser.zero_grad()
        soft = torch.sigmoid(data.logit[batch])
        label = (1 - draw) * soft + draw * torch.bernoulli(soft, generator=rng) if draw else soft
        nats = binary_cross_entropy_with_logits(mine(data.x[batch]), label, reduction="none")
        (data.weight[batch] * nats.mean(dim=1)).mean().backward()
        optimiser.step()
        schedule.step()
    assert torch.allclose(theta, FlatNet(mine).initial(), atol=1e-4)
    assert not torch.allclose(theta, FlatNet(module()).initial(), atol=0.05)
    assert torch.allclose(predict(module(), theta, data.x, batch_size=7), mine(data.x).detach(), atol=1e-3)


def test_students_learn_under_autocast() -> None:
    """autocast keeps rounded parameters: a step in place must not leave it with those of before."""
    config, net, x = StudentConfig(steps=60, batch_size=16, lr=0.05), module(), examples(seed=1).x
    exact = predict(net, train_student(net, examples(), config, seed=0), x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = train_student(net, examples(), config, seed=0)
    moved = (exact - predict(net, FlatNet(net).initial(), x)).abs().max()
    assert (predict(net, rough, x) - exact).abs().max() < 0.3 * moved


def test_train_student_depends_on_its_seed_alone_and_leaves_the_rest_alone() -> None:
    data, config, net = examples(), StudentConfig(steps=12, batch_size=16), module()
    before = FlatNet(net).initial()
    torch.manual_seed(0)
    first = train_student(net, data, config, seed=1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(train_student(net, data, config, seed=1), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(FlatNet(net).initial(), before)
    assert not torch.equal(train_student(net, data, config, seed=2), first)


def test_dropout_depends_on_the_seed_alone_and_is_off_in_predict() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2))
    data, config = examples(), StudentConfig(steps=5, batch_size=16)
    torch.manual_seed(0)
    a = train_student(net, data, config, seed=1)
    torch.manual_seed(99)
    assert torch.equal(train_student(net, data, config, seed=1), a)
    assert torch.equal(train_student(net.eval(), data, config, seed=1), a)  # whatever mode it was left in
    # One example has one order of batches, so that nothing but the masks can tell two seeds apart.
    single = StudentConfig(steps=5, batch_size=1, lr=0.01)
    one, two = (train_student(net, examples(1), single, seed=seed) for seed in (1, 2))
    assert not torch.allclose(one, two, atol=1e-3)
    assert torch.equal(predict(net, a, data.x), predict(net, a, data.x))


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_a_candidates_scale_multiplies_the_runs_lr(scale: float) -> None:
    data, config = examples(), StudentConfig(steps=1, batch_size=50, lr=0.01)
    start = FlatNet(module()).initial()
    moved = (train_student(module(), data, config, seed=0, lr_scale=scale) - start).abs().max()
    assert float(moved) == pytest.approx(0.01 * scale, rel=0.01)  # Adam's first step is lr long


def test_what_is_drawn_has_the_soft_labels_mean_and_its_share_of_noise() -> None:
    soft, rng = torch.tensor([0.1, 0.5, 0.9]), torch.Generator().manual_seed(0)
    labels = torch.stack([drawn(soft, 0.5, rng) for _ in range(20_000)])
    assert torch.allclose(labels.mean(dim=0), soft, atol=0.01)
    assert torch.allclose(labels.var(dim=0), 0.25 * soft * (1 - soft), atol=0.005)
    assert set(drawn(soft, 1.0, rng).tolist()) <= {0.0, 1.0}
    assert torch.equal(drawn(soft, 0.0, rng), soft)


def test_hard_labels_are_the_same_however_they_are_drawn() -> None:
    data = examples()
    hard = Examples(data.x, torch.where(data.logit > 0, torch.inf, -torch.inf), data.weight)
    one, other = (train_student(module(), hard, StudentConfig(steps=9, draw=draw), seed=0) for draw in (0.0, 1.0))
    assert torch.equal(one, other)


def test_hard_labels_are_infinite_logits() -> None:
    data = examples()
    hard = Examples(data.x, torch.where(data.logit > 0, torch.inf, -torch.inf), data.weight)
    theta = train_student(module(), hard, StudentConfig(steps=60, batch_size=50, lr=0.05), seed=0)
    assert bool(torch.isfinite(theta).all())
    assert float(((predict(module(), theta, data.x) > 0) == (data.logit > 0)).float().mean()) > 0.95
