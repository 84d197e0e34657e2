"""Late faces: what a package offers, found in its modules when it is first asked for.

A command that only looks at files must not wait for torch or Ray, so no package imports its modules by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: its name, `__name__`.
        places: the module of each name that it offers, below the package; `module:name` where it has another name there.
    """

    def get(name: str) -> Any:
        if name in places:
            module, _, there = places[name].partition(":")
            return getattr(import_module(f"{package}.{module}"), there or name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
