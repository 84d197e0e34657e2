"""Logistic regression over the embedded fields."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.candidates.layers import linear
from diet_ray.candidates.params import LRParams
from diet_ray.candidates.registry import Net, Shape, register


@register("lr")
class LR(Net):
    """Linear map of the flattened input: `logit_t = b_t + sum_f <w_tf, x_f>`.

    The net gets embeddings, not ids: it has one weight per field and dimension, while LR over ids would have one per id.
    """

    Params = LRParams

    def __init__(self, shape: Shape, params: LRParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.out = linear(shape.width, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        return self.out(x.flatten(1))
