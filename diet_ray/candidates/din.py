"""DIN: a deep net with attention of the target item over the user's recent history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diet_ray.candidates.layers import MLP, TensorModule
from diet_ray.candidates.params import Activation, DINParams
from diet_ray.candidates.registry import Net, Shape, register
from diet_ray.schema import places_of


class Attention(TensorModule):
    """Sum of a history's vectors, weighted by an MLP of target and history (Zhou et al. 2018, eq. 3), `-> [B, d]`.

    `v = sum_j a(q, k_j) k_j` with `a(q, k) = MLP([q, k, q - k, q * k])`. As in the paper, the weights are not normalised by a softmax, to
    preserve the strength of an interest. An empty place is the zero vector: it adds nothing at any weight and needs no mask.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...], activation: Activation, generator: torch.Generator) -> None:
        super().__init__()
        self.weigh = MLP(4 * dim, hidden, 1, activation, generator)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """`[B, d], [B, L, d] -> [B, d]`."""
        q = query.unsqueeze(1).expand_as(keys)
        weight = self.weigh(torch.cat((q, keys, q - keys, q * keys), dim=-1))
        return (weight * keys).sum(dim=1)


@register("din")
class DIN(Net):
    """Deep Interest Network (Zhou et al. 2018): an MLP over all fields, with the places of the history replaced by their `Attention`.

    The paper's activation Dice normalises by batch statistics, which nets here must not use. With mean 0, variance 1 and no leak, Dice is
    SiLU, the default.

    In a unit of a memory, the history is that of its row, moved by delta like every other field. An empty place is a zero vector until
    refinement moves it; a delta at an empty place has the effect of a value.
    """

    Params = DINParams

    def __init__(self, shape: Shape, params: DINParams, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        (self.target,), places = places_of(params.target, shape.fields), places_of(params.sequence, shape.fields)
        self.begin, self.end = places[0], places[-1] + 1
        self.attention = Attention(shape.dim, params.attention_hidden, params.activation, generator)
        width = (shape.n_fields - len(places) + 1) * shape.dim
        self.mlp = params.mlp(width, shape.n_tasks, generator)

    @classmethod
    def check_fields(cls, params: Mapping[str, Any], fields: Sequence[str]) -> None:
        """Raise ValueError where target or sequence is not among the fields, or is of the wrong kind."""
        for key, wanted in (("target", "a field with one vector"), ("sequence", "an unpooled sequence field")):
            name = params.get(key)
            if not isinstance(name, str):  # a search space: its value is not drawn yet
                continue
            if not places_of(name, fields):
                raise ValueError(f"params of 'din': {key} {name!r} is not among its fields")
            if (key == "target") != (name in fields):
                raise ValueError(f"params of 'din': {key} {name!r} is not {wanted}")

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        interest = self.attention(x[:, self.target], x[:, self.begin : self.end])
        rest = torch.cat((x[:, : self.begin], interest.unsqueeze(1), x[:, self.end :]), dim=1)
        return self.mlp(rest.flatten(1))
