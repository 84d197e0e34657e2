"""DCN-V2: learned bounded-degree feature crosses with a deep net."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field as Key
from torch import Tensor, nn

from diet_ray.candidates.layers import DeepParams, TensorModule, linear
from diet_ray.candidates.registry import Net, Shape, register


class DCNv2Params(DeepParams):
    """Hyper-parameters of DCN-V2."""

    cross_layers: int = Key(default=3, ge=1, le=8)
    """Number of cross layers: the highest degree of the crosses is one more."""
    rank: int = Key(default=32, ge=0, le=4096)
    """Rank r of each cross layer's matrix `U V^T`; 0 for a full F*d x F*d matrix."""
    structure: Literal["parallel", "stacked"] = "parallel"
    """`parallel`: crosses and MLP side by side, concatenated; `stacked`: the MLP reads the crosses."""


class Cross(TensorModule):
    """One cross layer, `x_{l+1} = x_0 * (W x_l + b) + x_l`; `W = U V^T` where a rank is given (Wang et al. 2021)."""

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = linear(width, rank, generator, bias=False) if rank else nn.Identity()
        self.up = linear(rank or width, width, generator)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """`[B, F*d], [B, F*d] -> [B, F*d]`."""
        return x + x0 * self.up(self.down(x))


@register("dcnv2")
class DCNv2(Net):
    """Cross network and deep net, parallel or stacked, under one linear head (Wang et al. 2021)."""

    Params = DCNv2Params

    def __init__(self, shape: Shape, params: DCNv2Params, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.cross = nn.ModuleList(Cross(shape.width, params.rank, generator) for _ in range(params.cross_layers))
        self.mlp = params.mlp(shape.width, shape.n_tasks, generator)
        self.parallel = params.structure == "parallel"
        if self.parallel:
            # A linear head on [cross, deep] is the sum of a head on each: no concatenation is needed.
            self.out = linear(shape.width, shape.n_tasks, generator, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        crossed = x0 = x.flatten(1)
        for layer in self.cross:
            crossed = layer(x0, crossed)
        if self.parallel:
            return self.out(crossed) + self.mlp(x0)
        return self.mlp(crossed)
