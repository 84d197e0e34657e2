"""Influence-guided addressing: which hard targets and which units a refinement round works on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.distill.bilevel import HardTargets
from diet_ray.training.student import Examples, FlatNet


def example_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """`[N]`: binary cross entropy of each example, mean over its T tasks."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def reducible_loss(student: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
    """`[N]`: by how much the student's loss on a row exceeds the reference's, at least 0 (Mindermann et al. 2022).

    A difference that is not finite, because the student diverged, carries no information about the row and counts as 0.

    Args:
        student: `[N, T]` logits of a student of the memory.
        reference: `[N, T]` logits of the reference, which has not seen the rows.
        labels: `[N, T]` float32.
    """
    return _finite(example_losses(student, labels) - example_losses(reference, labels)).clamp_min(0)


def draw_hard(reducible: Tensor, n: int, uniform_share: float, rng: torch.Generator) -> Tensor:
    """`[min(n, N)]` int64 positions of B_hard: a share drawn uniformly, the rest with p ~ reducible loss, no row twice."""
    n = min(n, len(reducible))
    n_uniform = round(n * uniform_share)
    shuffled = torch.randperm(len(reducible), generator=rng)
    uniform, rest = shuffled[:n_uniform], shuffled[n_uniform:]
    # A small floor makes the draw possible where fewer than n rows have reducible loss.
    weights = reducible[rest].double() + 1e-9
    u = torch.rand(len(rest), generator=rng, dtype=torch.float64)
    keys = torch.log(u) / weights
    return torch.cat([uniform, rest[torch.argsort(keys, descending=True, stable=True)[: n - n_uniform]]])


def direction(net: FlatNet, theta: Tensor, hard: HardTargets) -> Tensor:
    """`[P]`: gradient of the hard targets' mean loss at `theta`, along which influence is measured."""
    at = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(example_losses(net(at, hard.x), hard.labels).mean(), at)
    return gradient


def influence(net: FlatNet, theta: Tensor, along: Tensor, examples: Examples) -> Tensor:
    """`[M]`: influence of each unit on the hard targets: the dot product of its loss gradient with theirs, at `theta`.

    A positive influence means that a step on the unit lowers the loss on the hard targets. The M dot products are one directional
    derivative of the units' losses along the hard targets' gradient (forward mode), so no gradient of a single unit is computed. An
    influence that is not finite, because the student diverged, counts as 0, like that of a unit that was never measured: under a cap, a
    unit without a valid measurement must not be preferred to a measured one.

    Args:
        net: a proxy.
        theta: `[P]`, a student's parameters.
        along: `[P]`, the gradient of the hard targets (see `direction`).
        examples: the units.
    """
    target = torch.sigmoid(examples.logit)

    def losses(theta: Tensor) -> Tensor:
        return examples.weight * example_losses(net(theta, examples.x), target)

    tensor: Tensor = torch.func.jvp(losses, (theta,), (along,))[1]
    return _finite(tensor.detach())


def choose_active(influence: Tensor, n: int) -> Tensor:
    """`[min(n, M)]` int64, ascending: the units of the largest absolute influence on B_hard, positive or negative."""
    order = torch.argsort(influence.abs(), descending=True, stable=True)
    return order[:n].sort().values


def _finite(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
