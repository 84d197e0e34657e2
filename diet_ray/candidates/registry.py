"""The registry of architectures: the interface of a net, and its registration under a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch

from diet_ray.candidates.layers import TensorModule
from diet_ray.settings import Settings


class Shape(NamedTuple):
    """The sizes that every net must fit."""

    n_fields: int
    """F, the fields that reach the net (dropped ones not counted)."""
    dim: int
    """d, the width of one field's embedding."""
    n_tasks: int
    """T, the number of logits per row."""
    fields: tuple[str, ...] = ()
    """`[F]`: names of the fields, for nets that use a certain field; `NAME[0]`, `NAME[1]`, ... are those of an unpooled sequence."""

    @property
    def width(self) -> int:
        """F * d, the width of a flattened row."""
        return self.n_fields * self.dim


class Net(TensorModule):
    """Base of the interaction nets: `x [B, F, d]` float32 -> `[B, T]` logits.

    A subclass names its hyper-parameters in `Params` and takes all randomness of its initialisation from `generator`.
    """

    Params: ClassVar[type[Settings]]

    def __init__(self, shape: Shape, params: Any, generator: torch.Generator) -> None:
        super().__init__()

    @classmethod
    def check_fields(cls, params: Mapping[str, Any], fields: Sequence[str]) -> None:
        """Raise ValueError where a net with these hyper-parameters cannot be built for these fields; by default it always can.

        Args:
            params: as in a file of candidates: without defaults, and a value may be a search space.
            fields: names of the fields that reach the net, in order.
        """


N = TypeVar("N", bound=type[Net])

_REGISTRY: dict[str, type[Net]] = {}


def register(arch: str) -> Callable[[N], N]:
    """Class decorator that registers a net under the name `arch`; user code calls it `diet_ray.register_candidate`.

    A class that is defined again, for example when its module is reloaded, replaces its earlier version.

    Raises:
        TypeError: the class is no `Net`, or its `Params` are no `Settings`.
        ValueError: another class has the same name.
    """

    def enter(net: N) -> N:
        registered = _REGISTRY.get(arch)
        if registered and (registered.__module__, registered.__qualname__) != (net.__module__, net.__qualname__):
            raise ValueError(f"architecture {arch!r} is registered twice: by {registered.__name__} and {net.__name__}")
        if not (isinstance(net, type) and issubclass(net, Net)):
            raise TypeError(f"architecture {arch!r}: {net!r} is no subclass of diet_ray.Net")
        if not issubclass(getattr(net, "Params", object), Settings):
            raise TypeError(f"architecture {arch!r}: {net.__name__} has no Params, a subclass of diet_ray.Settings")
        _REGISTRY[arch] = net
        return net

    return enter


def architectures() -> dict[str, type[Net]]:
    """All registered nets by name, in alphabetical order."""
    return dict(sorted(_REGISTRY.items()))
