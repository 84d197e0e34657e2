"""xDeepFM: a compressed interaction network beside a deep net and a linear one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from diet_ray.candidates.layers import TensorModule, linear
from diet_ray.candidates.params import XDeepFMParams
from diet_ray.candidates.registry import Net, Shape, register

ROWS = 1024
"""Rows whose products are in memory at a time; without a graph, this bounds the memory that a large batch needs."""


class CIN(TensorModule):
    """Compressed interaction network, `[B, F, d] -> [B, H_1 + ... + H_K]` (Lian et al. 2018, eq. 6-7).

    `X^k_h = sum_ij W^k_hij X^{k-1}_i * X^0_j`, elementwise on the d-vectors and without a non-linearity, as in the
    paper. The output is the sum over d of every map of every layer. The last layer needs only this sum, so it is computed
    from dot products, which are d times fewer: `sum_ij W^K_hij <X^{K-1}_i, X^0_j>`.
    """

    def __init__(self, n_fields: int, maps: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            linear(a * n_fields, b, generator, bias=False) for a, b in pairwise((n_fields, *maps))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, H_1 + ... + H_K]`."""
        return torch.cat([self._pooled(part) for part in torch.split(x, ROWS)])

    def _pooled(self, x: Tensor) -> Tensor:
        x0 = xk = x.transpose(1, 2).contiguous()
        *inner, last = self.layers
        pooled = []
        for layer in inner:
            xk = layer((xk.unsqueeze(3) * x0.unsqueeze(2)).flatten(2))
            pooled.append(xk.sum(1))
        pooled.append(last(torch.bmm(xk.transpose(1, 2), x0).flatten(1)))
        return torch.cat(pooled, dim=1)


@register("xdeepfm")
class XDeepFM(Net):
    """Sum of the logits of a linear map, a compressed interaction network and an MLP (Lian et al. 2018).

    The net gets embeddings, not ids, so its linear part is a map of the flattened input (as `lr`).
    """

    Params = XDeepFMParams

    def __init__(self, shape: Shape, params: XDeepFMParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.first = linear(shape.width, shape.n_tasks, generator, bias=False)
        self.cin = CIN(shape.n_fields, params.cin, generator)
        self.out = linear(sum(params.cin), shape.n_tasks, generator, bias=False)
        self.mlp = params.mlp(shape.width, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        flat = x.flatten(1)
        return self.first(flat) + self.out(self.cin(x)) + self.mlp(flat)
