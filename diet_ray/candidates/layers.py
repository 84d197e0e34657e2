"""Layers that several nets share: explicitly initialised linear layers, hidden layers and the multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diet_ray.candidates.by_hand import behind_maps
from diet_ray.candidates.params import Activation

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


if TYPE_CHECKING:  # torch does not annotate what a module returns
    from diet_ray.candidates.adapter import Adapter

    class TensorModule(nn.Module):
        """A module of tensors."""

        def __call__(self, *inputs: Tensor) -> Tensor:
            """Its output."""
            ...

    class Linear(nn.Linear):
        """A linear layer."""

        def __call__(self, *inputs: Tensor) -> Tensor:
            """Its output."""
            ...
else:
    TensorModule, Linear = nn.Module, nn.Linear


def linear(n_in: int, n_out: int, generator: torch.Generator, *, bias: bool = True, gain: float = 1.0) -> Linear:
    """A linear layer `[..., n_in] -> [..., n_out]`: Xavier-uniform weights (Glorot & Bengio 2010) times `gain`, bias 0.

    All randomness comes from `generator`: torch's global random state is neither read nor changed.
    """
    layer: Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight, gain=gain, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class HiddenLayers(TensorModule):
    """Hidden layers with their non-linearity, `[B, n_in] -> [B, hidden[-1]]`, each followed by dropout in training mode.

    Dropout draws from torch's global generator, which the training code must seed. Without dropout nothing is drawn.
    """

    def __init__(
        self,
        n_in: int,
        hidden: tuple[int, ...],
        activation: Activation,
        generator: torch.Generator,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        # The gain sqrt(2) preserves the variance of a signal through rectifiers (He et al. 2015).
        self.hidden = nn.ModuleList(linear(a, b, generator, gain=2**0.5) for a, b in pairwise((n_in, *hidden)))
        self.activation = ACTIVATIONS[activation]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n_in] -> [B, hidden[-1]]`."""
        first: Linear = self.hidden[0]  # type: ignore[assignment]
        return self.after_first(first(x))

    def after_first(self, first: Tensor) -> Tensor:
        """`[B, hidden[0]] -> [B, hidden[-1]]`, from what the first linear layer gives."""
        x: Tensor = self.dropout(self.activation(first))
        for layer in self.hidden[1:]:
            x = self.dropout(self.activation(layer(x)))
        return x


class MLP(HiddenLayers):
    """Multi-layer perceptron `[B, n_in] -> [B, n_out]`: hidden layers and a linear one."""

    def __init__(
        self,
        n_in: int,
        hidden: tuple[int, ...],
        n_out: int,
        activation: Activation,
        generator: torch.Generator,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_in, hidden, activation, generator, dropout=dropout)
        self.out = linear(hidden[-1], n_out, generator)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n_in] -> [B, n_out]`."""
        return self.out(super().forward(x))

    def behind(self, x: Tensor, adapter: Adapter) -> Tensor:
        """`[B, F, d] -> [B, n_out]`: of the flattened input behind an adapter, with its derivative by hand (`behind_maps`)."""
        first: Linear = self.hidden[0]  # type: ignore[assignment]
        return self.out(self.after_first(behind_maps(x.flatten(1), adapter.weight, first.weight, first.bias)))
