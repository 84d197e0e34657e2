"""Adam in the forms that diet_ray needs: differentiable on one flat vector, on some rows of a tensor at a time, and torch's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999
EPSILON = 1e-10
"""Adam's epsilon, inside the root so that the derivative of a step stays finite where a gradient is zero."""
TORCH_EPSILON = 1e-8
"""That of torch's own optimisers, outside the root."""


class AdamState(NamedTuple):
    """Parameters and moments after `step` steps; all `[P]`."""

    theta: Tensor
    m: Tensor
    v: Tensor
    step: int

    @staticmethod
    def start(theta: Tensor) -> AdamState:
        """The state before the first step."""
        return AdamState(theta, torch.zeros_like(theta), torch.zeros_like(theta), 0)


def adam_step(state: AdamState, gradient: Tensor, lr: float) -> AdamState:
    """One step of Adam (Kingma & Ba 2015), differentiable in the state and the gradient; epsilon is inside the root."""
    step = state.step + 1
    m = BETA1 * state.m + (1 - BETA1) * gradient
    v = BETA2 * state.v + (1 - BETA2) * gradient * gradient
    update = (m / (1 - BETA1**step)) / torch.sqrt(v / (1 - BETA2**step) + EPSILON)
    return AdamState(state.theta - lr * update, m, v, step)


def adam_vjp(state: AdamState, gradient: Tensor, lr: float, by_after: AdamState) -> tuple[AdamState, Tensor]:
    """The backward pass of `adam_step`, written by hand.

    Args:
        state, gradient, lr: the arguments of the step.
        by_after: a scalar's derivative with respect to theta, m and v after the step.

    Returns:
        The scalar's derivatives with respect to the state before the step and to the gradient.
    """
    step = state.step + 1
    c1, c2 = 1 - BETA1**step, 1 - BETA2**step
    m = BETA1 * state.m + (1 - BETA1) * gradient
    v = BETA2 * state.v + (1 - BETA2) * gradient * gradient
    inverse = torch.rsqrt(v / c2 + EPSILON)
    by_update = -lr * by_after.theta * inverse
    by_m = by_after.m + by_update / c1
    by_v = by_after.v - by_update * m * inverse * inverse / (2 * c1 * c2)
    by_gradient = (1 - BETA1) * by_m + 2 * (1 - BETA2) * gradient * by_v
    return AdamState(by_after.theta, BETA1 * by_m, BETA2 * by_v, state.step), by_gradient


class RowAdam:
    """The outer optimiser: Adam with moments and a step count per row, so that a row without a gradient does not change.

    It is never differentiated, so its epsilon is outside the root, as usual.
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


def net_adam(parameters: Iterable[Tensor] | list[dict[str, Any]]) -> torch.optim.Adam:
    """torch's Adam for the parameters of nets on the CPU, with every setting given. Each group's `lr` must be set before a step."""
    return torch.optim.Adam(
        parameters,
        lr=0.0,
        betas=(BETA1, BETA2),
        eps=TORCH_EPSILON,
        weight_decay=0,
        amsgrad=False,
        maximize=False,
        capturable=False,
        differentiable=False,
        decoupled_weight_decay=False,
        # Each of torch's three ways to compute a step rounds in its own way; by default torch chooses one of them.
        foreach=False,
        fused=False,
    )


def on_device(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Let a `net_adam` step on a device: on a GPU all parameters at once, as torch does there by default."""
    for group in optimiser.param_groups:
        group["foreach"] = device.type == "cuda"


def table_adam(table: Tensor, lr: float) -> torch.optim.SparseAdam:
    """torch's Adam for a table with sparse gradients, with every setting given: rows without a gradient do not change."""
    return torch.optim.SparseAdam([table], lr=lr, betas=(BETA1, BETA2), eps=TORCH_EPSILON, maximize=False)
