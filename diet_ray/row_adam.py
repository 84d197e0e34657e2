"""The outer optimiser: Adam on some rows of a tensor at a time. Pure."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.student import BETA1, BETA2, EPSILON


class RowAdam:
    """Adam whose moments and step counts are each row's own, so an untouched row stays as it is.

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
