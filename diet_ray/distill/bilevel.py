"""The bi-level step (RaT-BPTT, Feng et al. 2023): how would the hard targets' loss change if the units changed?

A proxy is trained on the units from `theta_0`: `start` steps without a graph, then W steps of which each keeps the graph of its own
gradient. The loss of the result on the hard targets is then walked back through the W steps, one after the other, to the units that they
used. Only the interaction net is unrolled, never the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.training.adam import AdamState, adam_step, adam_vjp
from diet_ray.training.device import put
from diet_ray.training.student import Examples, FlatNet, Rate, drawn, loss, run_steps


@dataclass(frozen=True)
class HardTargets:
    """B_hard: real rows, as inputs and labels."""

    x: Tensor
    """`[H, F, d]` float32."""
    labels: Tensor
    """`[H, T]` float32, 0 or 1."""

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> HardTargets:
        """The same on a device."""
        return HardTargets(put(self.x, device), put(self.labels, device))


@dataclass(frozen=True)
class MetaGradient:
    """Gradient of the meta-loss with respect to the units that the window used."""

    loss: float
    """Meta-loss: binary cross entropy on B_hard after the window, in nats; the rank's share where B_hard is split."""
    rows: Tensor
    """`[R]` int64 positions of those units, rising."""
    delta: Tensor
    """`[R, F, d]` float32."""
    logit: Tensor
    """`[R, T]` float32."""


def meta_gradient(
    net: FlatNet,
    theta: Tensor,
    examples: Examples,
    order: Tensor,
    hard: HardTargets,
    *,
    start: int,
    window: int,
    rate: Rate,
    draw: float,
    rng: torch.Generator,
    of: int | None = None,
) -> MetaGradient:
    """One truncated backpropagation through the proxy's training, on the examples' device, where all but `order` must be.

    Args:
        net: the proxy.
        theta: `[P]`, theta_0.
        examples: the units' inputs, logits and weights.
        order: `[>= start + window, B]` int64 batches of units.
        hard: the hard targets, or one rank's share of them.
        start: untracked steps.
        window: W, tracked steps.
        rate: inner Adam's learning rate.
        draw: share of the labels that is drawn anew at each visit, as for a student; the derivative is the soft label's.
        rng: of those draws.
        of: size of the whole of B_hard where `hard` is a share of it; summed over the shares, losses and gradients are the whole's.
    """
    order = put(order, examples.x.device)
    state = run_steps(net, AdamState.start(theta), examples, order[:start], rate, draw=draw, rng=rng)
    rows, position = torch.unique(order[start : start + window], return_inverse=True)
    x, weight, soft = examples.x[rows], examples.weight[rows], torch.sigmoid(examples.logit[rows])
    steps: list[_Step] = []
    for batch in position:
        steps.append(_Step.forth(net, state, x[batch], drawn(soft[batch], draw, rng), weight[batch], rate(state.step)))
        state = adam_step(state, steps[-1].gradient.detach(), steps[-1].lr)

    theta = state.theta.requires_grad_()
    total = binary_cross_entropy_with_logits(net(theta, hard.x), hard.labels, reduction="sum")
    meta_loss = total / (hard.labels.shape[1] * (of or len(hard)))
    (by_theta,) = torch.autograd.grad(meta_loss, theta)
    by_state = AdamState(by_theta, torch.zeros_like(by_theta), torch.zeros_like(by_theta), state.step)
    by_x, by_soft = torch.zeros_like(x), torch.zeros_like(soft)
    for batch in position.flip(0):
        # Popped, so that a step's graph is gone as soon as it has been walked.
        by_state, by_inputs, by_target = steps.pop().back(by_state)
        by_x.index_add_(0, batch, by_inputs)
        by_soft.index_add_(0, batch, by_target)
    # What is drawn moves the label, but not with it: E[y] is the soft label, whose derivative by the logit is this.
    return MetaGradient(float(meta_loss.detach()), rows, by_x, by_soft * soft * (1 - soft))


@dataclass(frozen=True)
class _Step:
    """One tracked step: the graph of its gradient alone. Adam's arithmetic is differentiated by hand, which spares a graph over `[P]`."""

    state: AdamState
    """Before the step; its theta is a leaf of the graph, like the two below."""
    x: Tensor
    target: Tensor
    gradient: Tensor
    """`[P]`, of the step's loss by theta, with its graph."""
    lr: float

    @staticmethod
    def forth(net: FlatNet, state: AdamState, x: Tensor, target: Tensor, weight: Tensor, lr: float) -> _Step:
        """The gradient of a batch, `x [B, F, d]`, `target [B, T]` and `weight [B]`."""
        theta, x, target = (one.detach().requires_grad_() for one in (state.theta, x, target))
        value = loss(net, theta, x, target, weight)
        (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
        return _Step(AdamState(theta, state.m, state.v, state.step), x, target, gradient, lr)

    def back(self, by_after: AdamState) -> tuple[AdamState, Tensor, Tensor]:
        """From the derivative by the state after the step to those by the state before it, by `x` and by `target`."""
        by_state, by_gradient = adam_vjp(self.state, self.gradient.detach(), self.lr, by_after)
        by_theta, by_x, by_target = torch.autograd.grad(
            self.gradient, (self.state.theta, self.x, self.target), by_gradient
        )
        return by_state._replace(theta=by_state.theta + by_theta), by_x, by_target


class MetaClip:
    """Clips a meta-gradient's norm at twice its running mean, and tells the non-finite ones apart (Feng et al. 2023)."""

    DECAY = 0.9

    def __init__(self) -> None:
        self.mean: float | None = None

    def factor(self, norm: float) -> float | None:
        """What to multiply the gradient with, or None where the step is to be skipped because its norm is not finite."""
        if not norm < float("inf"):
            return None
        if norm == 0:
            return 1.0  # and no part of the mean: a mean of 0 would clip everything that follows to nothing
        limit = norm if self.mean is None else 2 * self.mean
        clipped = min(norm, limit)
        self.mean = clipped if self.mean is None else self.DECAY * self.mean + (1 - self.DECAY) * clipped
        return clipped / norm


def mix_initial(reference: Tensor, random: Tensor, lam: float) -> Tensor:
    """`theta_0 = lam * theta_ref + (1 - lam) * theta_rand`, `[P]`."""
    return lam * reference + (1 - lam) * random
