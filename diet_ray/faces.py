"""Late imports: the public names of a package are imported from its modules when they are first used.

A command that only reads files must not wait for torch or Ray, so no package imports its own modules at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: its name, `__name__`.
        places: the module of each public name, below the package; `module:name` where the name in the module differs.
    """

    def get(name: str) -> Any:
        if name in places:
            module, _, attribute = places[name].partition(":")
            return getattr(import_module(f"{package}.{module}"), attribute or name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
