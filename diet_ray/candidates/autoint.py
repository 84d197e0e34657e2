"""AutoInt+: self-attention over the fields beside a deep net."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        split = (*x.shape[:2], self.heads, self.head_dim)
        q, k, v = (part(x).reshape(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        # Not a fused attention kernel: those have no double backward.
        z = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        return F.relu(z.transpose(1, 2).flatten(2) + self.residual(x))


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
        z = x
        for layer in self.attention:
            z = layer(z)
        return self.out(z.flatten(1)) + self.mlp(x.flatten(1))
