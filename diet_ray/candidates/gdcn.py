"""GDCN: feature crosses, each with a learned gate, and a deep net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.layers import TensorModule, linear
from diet_ray.candidates.params import GDCNParams
from diet_ray.candidates.registry import Net, Shape, register


class GatedCross(TensorModule):
    """One gated cross layer, `c_{l+1} = c_0 * (W_c c_l + b) * sigmoid(W_g c_l) + c_l` (Wang et al. 2023)."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.cross = linear(width, width, generator)
        self.gate = linear(width, width, generator, bias=False)

    def forward(self, c0: Tensor, c: Tensor) -> Tensor:
        """`[B, F*d], [B, F*d] -> [B, F*d]`."""
        return torch.addcmul(c, c0 * self.cross(c), torch.sigmoid(self.gate(c)))


@register("gdcn")
class GDCN(Net):
    """Gated cross network and deep net, parallel or stacked, under one linear head (Wang et al. 2023).

    The paper is "Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction". Its crosses have full
    F*d x F*d matrices; `dcnv2` has low-rank matrices and no gates.
    """

    Params = GDCNParams

    def __init__(self, shape: Shape, params: GDCNParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.cross = nn.ModuleList(GatedCross(shape.width, generator) for _ in range(params.cross_layers))
        self.mlp = params.mlp(shape.width, shape.n_tasks, generator)
        self.parallel = params.structure == "parallel"
        if self.parallel:
            # A linear head on [cross, deep] is the sum of a head on each: no concatenation is needed.
            self.out = linear(shape.width, shape.n_tasks, generator, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        crossed = c0 = x.flatten(1)
        for layer in self.cross:
            crossed = layer(c0, crossed)
        if self.parallel:
            return self.out(crossed) + self.mlp(c0)
        return self.mlp(crossed)
