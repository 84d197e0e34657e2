"""Factorisation machine over the embedded fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.layers import linear
from diet_ray.candidates.params import FMParams
from diet_ray.candidates.registry import Net, Shape, register


@register("fm")
class FM(Net):
    """Factorisation machine (Rendle 2010): `logit_t = b_t + sum_f <w_tf, x_f> + <v_t, sum_{i<j} x_i * x_j>`.

    The net gets embeddings, not ids, so its first-order part is a linear map of the flattened input (as `lr`). `v_t` is
    a learned d-vector per task, all ones at the start: then the second-order part is the sum of all pairwise dot
    products, as in the plain FM.
    """

    Params = FMParams

    def __init__(self, shape: Shape, params: FMParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.first = linear(shape.width, shape.n_tasks, generator)
        self.second = linear(shape.dim, shape.n_tasks, generator, bias=False)
        nn.init.ones_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        # sum_{i<j} x_i x_j = ((sum x)^2 - sum x^2) / 2 costs O(F).
        pairs = 0.5 * (x.sum(1).square() - x.square().sum(1))
        return self.first(x.flatten(1)) + self.second(pairs)
