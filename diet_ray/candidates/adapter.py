"""The adapter: a linear map per field with which a candidate transforms the reference model's embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.layers import TensorModule


class Adapter(TensorModule):
    """Bias-free linear map per field, `x_f -> x_f A_f`, `[B, F, d] -> [B, F, d]`; every `A_f` starts as the identity.

    Students on frozen reference embeddings and soft labels all imitate the reference; the adapter lets them differ from it.
    A benchmark must show whether that improves the ranking.
    """

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim).repeat(n_fields, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, F, d]`."""
        return torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1)
