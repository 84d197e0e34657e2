"""AutoInt+: self-attention over the fields beside a deep net."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diet_ray.candidates.adapter import Adapter
from diet_ray.candidates.layers import TensorModule, linear
from diet_ray.candidates.params import AutoIntParams
from diet_ray.candidates.registry import Net, Shape, register


class Interacting(TensorModule):
    """One interacting layer (Song et al. 2019, eq. 5-8), `[B, F, d] -> [B, F, heads * head_dim]`.

    Per head, `a = softmax_k <Q x_m, K x_k>` (unscaled, as in the paper) and `z_m = sum_k a_mk V x_k`; the output is
    `relu(concat_heads z_m + R x_m)`.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.query, self.key, self.value, self.residual = (
            linear(dim, heads * head_dim, generator, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, F, heads * head_dim]`."""
        # One product for the four maps, and heads apart: their small matrices then are used where they lie.
        maps = torch.cat([part.weight for part in (self.query, self.key, self.value, self.residual)])
        parts = F.linear(x, maps).unflatten(2, (4 * self.heads, -1)).unbind(2)
        q, k, v, residual = (parts[begin : begin + self.heads] for begin in range(0, len(parts), self.heads))
        # Not a fused attention kernel: those have no double backward.
        weights = [torch.softmax(torch.bmm(q[h], k[h].transpose(1, 2)), dim=-1) for h in range(self.heads)]
        return F.relu(torch.cat([torch.baddbmm(residual[h], weights[h], v[h]) for h in range(self.heads)], dim=2))


@register("autoint")
class AutoInt(Net):
    """AutoInt+ (Song et al. 2019): the logit of stacked interacting layers plus that of a parallel MLP (the "+")."""

    Params = AutoIntParams

    def __init__(self, shape: Shape, params: AutoIntParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        width = params.heads * params.head_dim
        dims = [shape.dim, *[width] * (params.attention_layers - 1)]
        self.attention = nn.ModuleList(Interacting(dim, params.heads, params.head_dim, generator) for dim in dims)
        self.out = linear(shape.n_fields * width, shape.n_tasks, generator, bias=False)
        self.mlp = params.mlp(shape.width, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        return self._attended(x) + self.mlp(x.flatten(1))

    def behind(self, x: Tensor, adapter: Adapter) -> Tensor:
        """See `Net.behind`."""
        return self._attended(adapter(x)) + self.mlp.behind(x, adapter)

    def _attended(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`: the logit of the interacting layers."""
        for layer in self.attention:
            x = layer(x)
        return self.out(x.flatten(1))
