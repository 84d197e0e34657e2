"""Adam in the two forms that diet_ray needs: differentiable on one flat vector, and on some rows of a tensor at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999
EPSILON = 1e-10
"""Adam's epsilon, inside the root so that the derivative of a step stays finite where a gradient is zero."""


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
