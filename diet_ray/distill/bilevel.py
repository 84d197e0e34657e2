"""The bi-level step (RaT-BPTT, Feng et al. 2023): the gradient of the hard targets' loss with respect to the units.

A proxy that is in training on the units does W more steps, each of which keeps the graph of its own gradient. The loss of the proxy on the
hard targets is then backpropagated through the W steps, one after the other, to the units that they used. Only the interaction net is
unrolled, never the embeddings.

Graphs are kept for about sqrt(W) steps at a time: the others are made again when their turn comes (Chen et al. 2016, *Training Deep Nets
with Sublinear Memory Cost*).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.training.adam import AdamState, adam_step, adam_vjp
from diet_ray.training.device import put
from diet_ray.training.student import Examples, FlatNet, Rate, drawn, loss


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
        """A copy on a device."""
        return HardTargets(put(self.x, device), put(self.labels, device))


@dataclass(frozen=True)
class MetaGradient:
    """Gradient of the meta-loss with respect to the units that the window used."""

    loss: float
    """Meta-loss: binary cross entropy on B_hard after the window, in nats; this rank's part of the mean where B_hard is split."""
    rows: Tensor
    """`[R]` int64 positions of those units, ascending."""
    delta: Tensor
    """`[R, F, d]` float32."""
    logit: Tensor
    """`[R, T]` float32."""
    state: AdamState
    """The proxy after the window, without a graph."""


def meta_gradient(
    net: FlatNet,
    state: AdamState,
    examples: Examples,
    order: Tensor,
    hard: HardTargets,
    *,
    rate: Rate,
    draw: float,
    rng: torch.Generator,
    of: int | None = None,
) -> MetaGradient:
    """One truncated backpropagation through the proxy's training, on the device of `examples`; all tensors but `order` must be there.

    Args:
        net: the proxy.
        state: where the proxy stands before the window.
        examples: the units' inputs, logits and weights.
        order: `[W, B]` int64 batches of units, the window.
        hard: the hard targets, or one rank's share of them.
        rate: inner Adam's learning rate.
        draw: share of the labels that is drawn anew at each visit, as for a student; the derivative is that of the soft label.
        rng: of those draws.
        of: size of the whole B_hard where `hard` is a share of it; losses and gradients summed over the shares are those of the whole.
    """
    rows, position = torch.unique(put(order, examples.x.device), return_inverse=True)
    x, weight, soft = examples.x[rows], examples.weight[rows], torch.sigmoid(examples.logit[rows])
    target = [drawn(soft[batch], draw, rng) for batch in position]

    def forth(state: AdamState, numbers: range) -> tuple[list[_Step], AdamState]:
        steps: list[_Step] = []
        for number in numbers:
            batch = position[number]
            steps.append(_Step.forth(net, state, x[batch], target[number], weight[batch], rate(state.step)))
            state = adam_step(state, steps[-1].gradient.detach(), steps[-1].lr)
        return steps, state

    n_steps, length = len(position), math.ceil(math.sqrt(len(position)))
    segments = [range(first, min(first + length, n_steps)) for first in range(0, n_steps, length)]
    starts: list[AdamState] = []
    steps: list[_Step] = []
    for segment in segments:
        starts.append(state)
        steps.clear()  # before the next ones are made
        steps, state = forth(state, segment)

    theta = state.theta.detach().requires_grad_()
    total = binary_cross_entropy_with_logits(net(theta, hard.x), hard.labels, reduction="sum")
    meta_loss = total / (hard.labels.shape[1] * (of or len(hard)))
    (by_theta,) = torch.autograd.grad(meta_loss, theta)
    by_state = AdamState(by_theta, torch.zeros_like(by_theta), torch.zeros_like(by_theta), state.step)
    by_x, by_soft = torch.zeros_like(x), torch.zeros_like(soft)
    for segment, start in zip(reversed(segments), reversed(starts), strict=True):
        if not steps:  # all but the last segment's are made a second time
            steps, _ = forth(start, segment)
        for number in reversed(segment):
            # Popped, so that the graph of a step is freed directly after its backward pass.
            by_state, by_inputs, by_target = steps.pop().back(by_state)
            by_x.index_add_(0, position[number], by_inputs)
            by_soft.index_add_(0, position[number], by_target)
    # The expectation of the drawn label is the soft label; soft * (1 - soft) is the soft label's derivative with respect to the logit.
    return MetaGradient(float(meta_loss.detach()), rows, by_x, by_soft * soft * (1 - soft), state)


@dataclass(frozen=True, eq=False)
class _Step:
    """One tracked step. It holds only the graph of its gradient; `adam_vjp` differentiates Adam by hand, without a graph over `[P]`."""

    state: AdamState
    """The state before the step; its theta, `x` and `target` are leaves of the graph."""
    x: Tensor
    target: Tensor
    gradient: Tensor
    """`[P]`, gradient of the step's loss with respect to theta, with its graph."""
    lr: float

    @staticmethod
    def forth(net: FlatNet, state: AdamState, x: Tensor, target: Tensor, weight: Tensor, lr: float) -> _Step:
        """The gradient of a batch, `x [B, F, d]`, `target [B, T]` and `weight [B]`."""
        theta, x, target = (leaf.detach().requires_grad_() for leaf in (state.theta, x, target))
        value = loss(net, theta, x, target, weight)
        (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
        return _Step(AdamState(theta, state.m, state.v, state.step), x, target, gradient, lr)

    def back(self, by_after: AdamState) -> tuple[AdamState, Tensor, Tensor]:
        """The derivatives with respect to the state before the step, `x` and `target`, from that with respect to the state after it."""
        by_state, by_gradient = adam_vjp(self.state, self.gradient.detach(), self.lr, by_after)
        by_theta, by_x, by_target = torch.autograd.grad(
            self.gradient, (self.state.theta, self.x, self.target), by_gradient
        )
        return by_state._replace(theta=by_state.theta + by_theta), by_x, by_target


class MetaClip:
    """Clips the norm of a meta-gradient at twice its running mean, and rejects non-finite ones (Feng et al. 2023)."""

    DECAY = 0.9

    def __init__(self) -> None:
        self.mean: float | None = None

    def factor(self, norm: float) -> float | None:
        """The factor for the gradient, or None where the step must be skipped because the norm is not finite."""
        if not norm < float("inf"):
            return None
        if norm == 0:
            return 1.0  # not counted in the mean: a mean of 0 would clip all later gradients to zero
        limit = norm if self.mean is None else 2 * self.mean
        clipped = min(norm, limit)
        self.mean = clipped if self.mean is None else self.DECAY * self.mean + (1 - self.DECAY) * clipped
        return clipped / norm


def mix_initial(reference: Tensor, random: Tensor, lam: float) -> Tensor:
    """`theta_0 = lam * theta_ref + (1 - lam) * theta_rand`, `[P]`."""
    return lam * reference + (1 - lam) * random
