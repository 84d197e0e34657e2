"""The registry of architectures: what a net must offer, and how it gets its name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
    """`[F]`: names of the fields, for the nets that need to know one; `NAME[0]`, `NAME[1]`, ... are an unpooled sequence's."""

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
        """Raise ValueError where no net with these hyper-parameters can be built over these fields; by default one always can.

        Args:
            params: as a file of candidates has them: without defaults, and a value may be a search space.
            fields: names of the fields that reach the net, in order.
        """


N = TypeVar("N", bound=type[Net])

_REGISTRY: dict[str, type[Net]] = {}


def register(arch: str) -> Callable[[N], N]:
    """Class decorator that makes a net known under the name `arch`; `diet_ray.register_candidate` for user code.

    A class that is defined again, as when a module is reloaded, takes the place of its former self.

    Raises:
        TypeError: it is no `Net` with `Params` that are `Settings`.
        ValueError: two classes claim the same name.
    """

    def enter(net: N) -> N:
        there = _REGISTRY.get(arch)
        if there and (there.__module__, there.__qualname__) != (net.__module__, net.__qualname__):
            raise ValueError(f"architecture {arch!r} is registered twice: by {there.__name__} and {net.__name__}")
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


def import_modules(names: Sequence[str], folder: Path) -> None:
    """Import user code that registers architectures, looked for in `folder` first.

    Raises:
        ValueError: a module cannot be found, or fails while it is imported; the message says which and why.
    """
    if names and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # it is the user's code: whatever it raises is for them to put right
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"module {name!r} cannot be imported, looked for in {folder} ({why})") from error


def sources(names: Sequence[str]) -> list[Path]:
    """The files of imported modules, in order; of a package its `__init__.py`."""
    specs = [importlib.util.find_spec(name) for name in names]
    return [Path(spec.origin) for spec in specs if spec and spec.origin and Path(spec.origin).is_file()]
