"""DeepFM: a factorisation machine beside a deep net."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.candidates.adapter import Adapter
from diet_ray.candidates.fm import FM
from diet_ray.candidates.params import DeepParams, FMParams
from diet_ray.candidates.registry import Net, Shape, register


@register("deepfm")
class DeepFM(Net):
    """Sum of the logits of an FM and of an MLP on the same embeddings (Guo et al. 2017)."""

    Params = DeepParams

    def __init__(self, shape: Shape, params: DeepParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.fm = FM(shape, FMParams(), generator)
        self.mlp = params.mlp(shape.width, shape.n_tasks, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        return self.fm(x) + self.mlp(x.flatten(1))

    def behind(self, x: Tensor, adapter: Adapter) -> Tensor:
        """See `Net.behind`."""
        return self.fm(adapter(x)) + self.mlp.behind(x, adapter)
