"""The registry of architectures: what a net must offer, and how it gets its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import nn

from diet_ray.settings import Settings


class Shape(NamedTuple):
    """The sizes that every net must fit."""

    n_fields: int
    """F, the fields that reach the net (dropped ones not counted)."""
    dim: int
    """d, the width of one field's embedding."""
    n_tasks: int
    """T, the number of logits per row."""

    @property
    def width(self) -> int:
        """F * d, the width of a flattened row."""
        return self.n_fields * self.dim


class Net(nn.Module):
    """Base of the interaction nets: `x [B, F, d]` float32 -> `[B, T]` logits.

    A subclass names its hyper-parameters in `Params` and takes all randomness of its initialisation from `generator`.
    """

    Params: ClassVar[type[Settings]]

    def __init__(self, shape: Shape, params: Any, generator: torch.Generator) -> None:
        super().__init__()


N = TypeVar("N", bound=type[Net])

_REGISTRY: dict[str, type[Net]] = {}


def register(arch: str) -> Callable[[N], N]:
    """Class decorator that makes a net known under the name `arch`.

    Raises:
        ValueError: two classes claim the same name.
    """

    def enter(net: N) -> N:
        if arch in _REGISTRY:
            raise ValueError(
                f"architecture {arch!r} is registered twice: by {_REGISTRY[arch].__name__} and {net.__name__}"
            )
        _REGISTRY[arch] = net
        return net

    return enter


def architectures() -> dict[str, type[Net]]:
    """All registered nets by name, in alphabetical order."""
    return dict(sorted(_REGISTRY.items()))
