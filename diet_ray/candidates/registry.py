"""The registry of architectures: the interface of a net, and its registration under a name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from diet_ray.candidates.adapter import Adapter
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

    def behind(self, x: Tensor, adapter: Adapter) -> Tensor:
        """`[B, F, d] -> [B, T]`: the logits of the input behind an adapter. Called only where derivatives are taken by hand.

        A net whose deep part reads the flattened input can spare it the mapped input (`MLP.behind`).
        """
        return self(adapter(x))

    @classmethod
    def check_fields(cls, params: Mapping[str, Any], fields: Sequence[str]) -> None:
        """Raise ValueError where a net with these hyper-parameters cannot be built for these fields; by default it always can.

        Args:
            params: as in a file of candidates: without defaults, and a value may be a search space.
            fields: names of the fields that reach the net, in order.
        """


N = TypeVar("N", bound=Callable[..., nn.Module])

_REGISTRY: dict[str, type[Net]] = {}


class MadeOtherError(TypeError):
    """The user's function made something else than a torch module."""


class NoParams(Settings):
    """The hyper-parameters of a net that has none."""


def register(arch: str) -> Callable[[N], N]:
    """Decorator that registers a net under the name `arch`; user code calls it `diet_ray.register_candidate`.

    It takes a subclass of `Net`, or a function from a `Shape` to any torch module without hyper-parameters, such as
    `lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(shape.width, shape.n_tasks))`; a class of modules is such a function. What is
    defined again, for example when its module is reloaded, replaces its earlier version.

    Raises:
        TypeError: it is no `Net` and can make no module, or its `Params` are no `Settings`.
        ValueError: another net has the same name.
    """

    def enter(made_by: N) -> N:
        if not callable(made_by) or (isinstance(made_by, type) and not issubclass(made_by, nn.Module)):
            raise TypeError(
                f"architecture {arch!r}: {made_by!r} is neither a subclass of diet_ray.Net nor a function from a Shape to a torch module"
            )
        net = _class_of(made_by)
        if not net.__module__.startswith(f"{__package__}."):
            _register_all()  # no name of the package's own nets may be taken before they are registered
        registered = _REGISTRY.get(arch)
        if registered and (registered.__module__, registered.__qualname__) != (net.__module__, net.__qualname__):
            raise ValueError(f"architecture {arch!r} is registered twice: by {registered.__name__} and {net.__name__}")
        if not issubclass(getattr(net, "Params", object), Settings):
            raise TypeError(f"architecture {arch!r}: {net.__name__} has no Params, a subclass of diet_ray.Settings")
        _REGISTRY[arch] = net
        return made_by

    return enter


def _class_of(factory: Callable[..., nn.Module]) -> type[Net]:
    """The factory itself where it is a class of nets, else a class of nets around the modules that it makes."""
    if isinstance(factory, type) and issubclass(factory, Net):
        return factory

    class Made(Net):
        Params = NoParams

        def __init__(self, shape: Shape, params: NoParams, generator: torch.Generator) -> None:
            super().__init__(shape, params, generator)
            module = factory(shape)
            if not isinstance(module, nn.Module):
                raise MadeOtherError(f"it made {type(module).__name__}, no torch module")
            self.made = module

        def forward(self, x: Tensor) -> Tensor:
            """`[B, F, d]` to `[B, T]` logits."""
            logits: Tensor = self.made(x)
            return logits

    Made.__module__, Made.__qualname__ = factory.__module__, factory.__qualname__
    Made.__name__ = factory.__name__
    return Made


@cache
def _register_all() -> None:
    """Import the files of this package: that registers their nets."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")


def architectures() -> dict[str, type[Net]]:
    """All registered nets by name, in alphabetical order."""
    _register_all()
    return dict(sorted(_REGISTRY.items()))
