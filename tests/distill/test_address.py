"""Addressing: influence against one gradient per unit, and the draws of hard targets and active units."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import architectures
from diet_ray.distill.address import choose_active, direction, draw_hard, example_losses, influence, reducible_loss
from diet_ray.distill.bilevel import HardTargets
from diet_ray.training.student import Examples, FlatNet
from tests.support.small_nets import DIM, FIELDS, SMALL, make


def test_influence_is_the_dot_product_of_gradients() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    net = FlatNet(module)
    theta = net.initial()
    examples = Examples(torch.randn(9, 3, 2).double(), torch.randn(9, 2).double(), torch.rand(9).double())
    hard = HardTargets(torch.randn(5, 3, 2).double(), torch.randint(0, 2, (5, 2)).double())

    at = theta.clone().requires_grad_()
    (by_hard,) = torch.autograd.grad(binary_cross_entropy_with_logits(net(at, hard.x), hard.labels), at)
    expected = []
    for i in range(9):
        at = theta.clone().requires_grad_()
        one = binary_cross_entropy_with_logits(net(at, examples.x[i : i + 1]), torch.sigmoid(examples.logit[i : i + 1]))
        (by_unit,) = torch.autograd.grad(examples.weight[i] * one, at)
        expected.append(by_unit @ by_hard)
    torch.testing.assert_close(influence(net, theta, direction(net, theta, hard), examples), torch.stack(expected))


def test_a_step_on_a_unit_of_positive_influence_lowers_the_hard_loss() -> None:
    torch.manual_seed(1)
    net = FlatNet(nn.Sequential(nn.Flatten(), nn.Linear(6, 1)).double())
    theta = net.initial()
    examples = Examples(torch.randn(20, 3, 2).double(), torch.randn(20, 1).double(), torch.ones(20).double())
    hard = HardTargets(torch.randn(8, 3, 2).double(), torch.randint(0, 2, (8, 1)).double())
    found = influence(net, theta, direction(net, theta, hard), examples)
    before = example_losses(net(theta, hard.x), hard.labels).mean()
    for i in range(20):
        at = theta.clone().requires_grad_()
        loss = example_losses(net(at, examples.x[i : i + 1]), torch.sigmoid(examples.logit[i : i + 1])).mean()
        (gradient,) = torch.autograd.grad(loss, at)
        after = example_losses(net(theta - 1e-5 * gradient, hard.x), hard.labels).mean()
        assert (after < before) == (found[i] > 0)


def test_reducible_loss_is_the_excess_over_the_reference() -> None:
    student, reference = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0]])
    labels = torch.zeros(2, 1)
    softplus = torch.nn.functional.softplus
    expected = torch.stack(
        [softplus(student[0, 0]) - softplus(reference[0, 0]), softplus(student[1, 0]) - softplus(reference[1, 0])]
    )
    torch.testing.assert_close(reducible_loss(student, reference, labels), expected)
    assert reducible_loss(reference, student, labels).tolist() == [0.0, 0.0]


def test_draw_takes_no_row_twice_and_heavy_rows_more_often() -> None:
    weights = torch.zeros(100)
    weights[:10] = 1.0
    rng = torch.Generator().manual_seed(0)
    counts = torch.zeros(100)
    for _ in range(200):
        chosen = draw_hard(weights, 20, 0.5, rng)
        assert len(chosen) == len(set(chosen.tolist())) == 20
        counts[chosen] += 1
    # Ten uniform ones of a hundred, then ten of what has weight: every heavy row is in, as long as places last.
    assert counts[:10].min() > 190
    assert counts[10:].mean() == pytest.approx(200 * 10 / 90, rel=0.2)


def test_draw_of_more_than_there_is_gives_all() -> None:
    chosen = draw_hard(torch.rand(7), 50, 0.5, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == list(range(7))


def test_active_units_have_leverage_either_way_and_ties_go_to_the_first() -> None:
    assert choose_active(torch.tensor([0.1, -3.0, 2.0, 0.0]), 2).tolist() == [1, 2]
    assert choose_active(torch.tensor([1.0, -1.0, 1.0]), 2).tolist() == [0, 1]
    assert choose_active(torch.tensor([1.0, 2.0]), 9).tolist() == [0, 1]


@pytest.mark.parametrize("arch", architectures())
def test_every_architecture_has_a_forward_derivative(arch: str) -> None:
    net = FlatNet(make(arch, SMALL[arch], n_tasks=2))
    draw, theta = torch.Generator().manual_seed(1), net.initial()
    n_slots = len(FIELDS)
    examples = Examples(torch.randn(3, n_slots, DIM, generator=draw), torch.randn(3, 2, generator=draw), torch.ones(3))
    hard = HardTargets(torch.randn(5, n_slots, DIM, generator=draw), torch.ones(5, 2))
    at = theta.clone().requires_grad_()
    (by_hard,) = torch.autograd.grad(example_losses(net(at, hard.x), hard.labels).mean(), at)
    losses = example_losses(net(at, examples.x), torch.sigmoid(examples.logit))
    expected = [torch.autograd.grad(loss, at, retain_graph=True)[0] @ by_hard for loss in losses]
    found = influence(net, theta, direction(net, theta, hard), examples)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-5)


def test_a_row_is_drawn_in_proportion_to_its_reducible_loss() -> None:
    reducible, counts = torch.tensor([1.0, 2.0, 5.0]), torch.zeros(3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(2000):
        counts[draw_hard(reducible, 1, 0.0, rng)] += 1
    torch.testing.assert_close(counts / 2000, reducible / 8, rtol=0, atol=0.04)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_uniform_share_is_drawn_whatever_the_loss(share: float) -> None:
    reducible, draws, n = torch.zeros(100), 300, 8
    reducible[:20] = 1.0
    rng = torch.Generator().manual_seed(0)
    light = sum(int((draw_hard(reducible, n, share, rng) >= 20).sum()) for _ in range(draws))
    # Only a uniform draw reaches the eighty rows without loss.
    assert light / draws == pytest.approx(n * share * 0.8, abs=0.3)
