"""WuKong: stacked factorisation machines, each layer doubling the order of the interactions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.layers import MLP, TensorModule, linear
from diet_ray.candidates.params import WukongParams
from diet_ray.candidates.registry import Net, Shape, register


class WukongLayer(TensorModule):
    """`[B, n, d] -> [B, n_F + n_L, d]`: `LN(concat(FMB(X), LCB(X)) + R X)` (Zhang et al. 2024, section 3).

    `FMB(X) = MLP(LN(flatten(X X^T Y)))`, `LCB(X) = W_L X`; `R` is the identity where n = n_F + n_L, and otherwise a
    learned `(n_F + n_L) x n` map.
    """

    def __init__(self, n: int, dim: int, params: WukongParams, generator: torch.Generator) -> None:
        super().__init__()
        self.fmb_count = params.fmb
        n_out = params.fmb + params.lcb
        interactions = n * (params.rank or n)
        self.project = linear(n, params.rank, generator, bias=False) if params.rank else nn.Identity()
        self.fm_norm = nn.LayerNorm(interactions)
        self.fm_mlp = MLP(
            interactions, params.fmb_hidden, params.fmb * dim, params.activation, generator, dropout=params.dropout
        )
        self.compress = linear(n, params.lcb, generator, bias=False)
        self.residual = linear(n, n_out, generator, bias=False) if n != n_out else nn.Identity()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n, d] -> [B, n_F + n_L, d]`."""
        # The linear maps of the n vectors as one product for each example: apart, each would move the input about.
        maps = [layer.weight for layer in (self.project, self.compress, self.residual) if isinstance(layer, nn.Linear)]
        parts = list(
            torch.bmm(torch.cat(maps).expand(len(x), -1, -1), x).split([len(weight) for weight in maps], dim=1)
        )
        projected = parts.pop(0) if isinstance(self.project, nn.Linear) else x
        lcb, residual = (*parts, x)[:2]
        interactions = torch.bmm(x, projected.transpose(1, 2))
        fmb = self.fm_mlp(self.fm_norm(interactions.flatten(1))).unflatten(1, (self.fmb_count, -1))
        normed: Tensor = self.norm(torch.cat((fmb, lcb), dim=1) + residual)
        return normed


@register("wukong")
class Wukong(Net):
    """Stack of WuKong layers under an MLP (Zhang et al. 2024)."""

    Params = WukongParams

    def __init__(self, shape: Shape, params: WukongParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        n_out = params.fmb + params.lcb
        counts = [shape.n_fields, *[n_out] * (params.layers - 1)]
        self.layers = nn.ModuleList(WukongLayer(n, shape.dim, params, generator) for n in counts)
        self.mlp = params.mlp(n_out * shape.dim, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        for layer in self.layers:
            x = layer(x)
        return self.mlp(x.flatten(1))
