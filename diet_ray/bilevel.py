"""The bi-level step (RaT-BPTT, Feng et al. 2023): how would the hard targets' loss change if the units changed? Pure.

A proxy is trained on the units from `theta_0`: `start` steps without a graph, then W steps with one. The loss of the result on the hard
targets is differentiated through the W steps to the units that they used. Only the interaction net is unrolled, never the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.student import AdamState, Examples, FlatNet, Rate, adam_step, drawn, loss, run_steps


@dataclass(frozen=True)
class HardTargets:
    """B_hard: real rows, as inputs and labels."""

    x: Tensor
    """`[H, F, d]` float32."""
    labels: Tensor
    """`[H, T]` float32, 0 or 1."""

    def __len__(self) -> int:
        return len(self.x)


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
    """One truncated backpropagation through the proxy's training.

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
    state = run_steps(net, AdamState.start(theta), examples, order[:start], rate, draw=draw, rng=rng)
    tracked = order[start : start + window]
    rows, position = torch.unique(tracked, return_inverse=True)
    x = examples.x[rows].detach().requires_grad_()
    logit = examples.logit[rows].detach().requires_grad_()
    weight, target = examples.weight[rows], torch.sigmoid(logit)
    state = AdamState(state.theta.detach().requires_grad_(), state.m, state.v, state.step)
    for batch in position:
        # What is drawn moves the label, but not with it: E[y] is the soft label.
        noise = drawn(target[batch].detach(), draw, rng) - target[batch].detach()
        value = loss(net, state.theta, x[batch], target[batch] + noise, weight[batch])
        (gradient,) = torch.autograd.grad(value, state.theta, create_graph=True)
        state = adam_step(state, gradient, rate(state.step))
    total = binary_cross_entropy_with_logits(net(state.theta, hard.x), hard.labels, reduction="sum")
    meta_loss = total / (hard.labels.shape[1] * (of or len(hard)))
    gradient_x, gradient_logit = torch.autograd.grad(meta_loss, (x, logit))
    return MetaGradient(float(meta_loss.detach()), rows, gradient_x, gradient_logit)


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
