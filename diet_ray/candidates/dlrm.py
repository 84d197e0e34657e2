"""DLRM: a deep net over the dot products of all pairs of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.candidates.params import DeepParams
from diet_ray.candidates.registry import Net, Shape, register


@register("dlrm")
class DLRM(Net):
    """Top MLP over `<x_i, x_j>` of all pairs i < j of the F fields and the dense vector (Naumov et al. 2019).

    A log has no dense features here: numbers are bucketised fields. Without input, the paper's bottom MLP is only its
    bias, so the dense vector is a learned d-vector, zero at the start. Its dot products with the fields let each field
    contribute on its own. As an input of the top MLP it would only add to that MLP's bias, so it is left out there.
    """

    Params = DeepParams
    pairs: Tensor
    """`[(F + 1) F / 2]` int64: places of the pairs i < j in a flattened (F + 1) x (F + 1) matrix. Not saved with the state."""

    def __init__(self, shape: Shape, params: DeepParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        n = shape.n_fields + 1
        i, j = torch.triu_indices(n, n, offset=1)
        self.register_buffer("pairs", i * n + j, persistent=False)
        self.dense = nn.Parameter(torch.zeros(shape.dim))
        self.mlp = params.mlp(n * (n - 1) // 2, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        vectors = torch.cat((self.dense.expand(len(x), 1, -1), x), dim=1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        return self.mlp(dots.index_select(1, self.pairs))
