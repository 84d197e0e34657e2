"""Plain deep net over the concatenated embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.candidates.adapter import Adapter
from diet_ray.candidates.params import DeepParams
from diet_ray.candidates.registry import Net, Shape, register


@register("dnn")
class DNN(Net):
    """Multi-layer perceptron over the flattened input (the deep part of Covington et al. 2016 and most nets since)."""

    Params = DeepParams

    def __init__(self, shape: Shape, params: DeepParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.mlp = params.mlp(shape.width, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        return self.mlp(x.flatten(1))

    def behind(self, x: Tensor, adapter: Adapter) -> Tensor:
        """See `Net.behind`."""
        return self.mlp.behind(x, adapter)
