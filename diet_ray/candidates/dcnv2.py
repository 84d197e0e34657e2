"""DCN-V2: learned bounded-degree feature crosses with a deep net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.adapter import Adapter
from diet_ray.candidates.layers import TensorModule, linear
from diet_ray.candidates.params import DCNv2Params
from diet_ray.candidates.registry import Net, Shape, register


class Cross(TensorModule):
    """One cross layer, `x_{l+1} = x_0 * (W x_l + b) + x_l`; `W = U V^T` where a rank is given (Wang et al. 2021)."""

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = linear(width, rank, generator, bias=False) if rank else nn.Identity()
        self.up = linear(rank or width, width, generator)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """`[B, F*d], [B, F*d] -> [B, F*d]`."""
        return torch.addcmul(x, x0, self.up(self.down(x)))


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
        crossed = self._crossed(x)
        if self.parallel:
            return self.out(crossed) + self.mlp(x.flatten(1))
        return self.mlp(crossed)

    def behind(self, x: Tensor, adapter: Adapter) -> Tensor:
        """See `Net.behind`."""
        if self.parallel:
            return self.out(self._crossed(adapter(x))) + self.mlp.behind(x, adapter)
        return self(adapter(x))

    def _crossed(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, F*d]`."""
        crossed = x0 = x.flatten(1)
        for layer in self.cross:
            crossed = layer(x0, crossed)
        return crossed
