"""FinalMLP: two deep nets, each with its own gate, joined by a bilinear form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.layers import MLP, HiddenLayers, TensorModule, linear
from diet_ray.candidates.params import FinalMLPParams
from diet_ray.candidates.registry import Net, Shape, register


class Stream(TensorModule):
    """One gated stream, `[B, F*d] -> [B, hidden[-1]]`: `MLP(2 sigmoid(g) * x)` (Mao et al. 2023).

    The gate `g [F*d]` is an MLP of a context. In the paper the context is a few chosen fields or a learned vector. Here
    it is a learned vector, which fits any log, so a stream weights its inputs in the same way for every row.
    """

    def __init__(
        self, shape: Shape, hidden: tuple[int, ...], params: FinalMLPParams, generator: torch.Generator
    ) -> None:
        super().__init__()
        # Not zero: a zero context would get no gradient through rectifiers whose biases are zero.
        self.context = nn.Parameter(torch.randn(shape.dim, generator=generator))
        self.gate = MLP(shape.dim, params.gate_hidden, shape.width, "relu", generator)
        self.deep = HiddenLayers(shape.width, hidden, params.activation, generator, dropout=params.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F*d] -> [B, hidden[-1]]`."""
        return self.deep(2 * torch.sigmoid(self.gate(self.context)) * x)


@register("finalmlp")
class FinalMLP(Net):
    """Two gated streams under multi-head bilinear fusion (Mao et al. 2023).

    `logit_t = b_t + <w_t1, o_1> + <w_t2, o_2> + sum_h o_1h^T W_th o_2h`, where `o_1h`, `o_2h` are the h-th of k equal parts of
    the streams' last hidden layers.
    """

    Params = FinalMLPParams

    def __init__(self, shape: Shape, params: FinalMLPParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.heads = params.heads
        a, b = params.hidden[-1], params.second_hidden[-1]
        self.first = Stream(shape, params.hidden, params, generator)
        self.second = Stream(shape, params.second_hidden, params, generator)
        self.out_first = linear(a, shape.n_tasks, generator)
        self.out_second = linear(b, shape.n_tasks, generator, bias=False)
        self.bilinear = nn.Parameter(torch.empty(shape.n_tasks, self.heads, a // self.heads, b // self.heads))
        # The sum runs over `a * b / heads` products of outputs of order one.
        nn.init.normal_(self.bilinear, std=(self.heads / (a * b)) ** 0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        flat = x.flatten(1)
        first, second = self.first(flat), self.second(flat)
        left, right = (part.unflatten(1, (self.heads, -1)) for part in (first, second))
        fused = torch.einsum("bhi,thij,bhj->bt", left, self.bilinear, right)
        return self.out_first(first) + self.out_second(second) + fused
