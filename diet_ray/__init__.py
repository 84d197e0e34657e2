"""diet_ray: streaming dataset distillation for recommender systems, on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Memory", "Net", "Settings", "Shape", "load_memory", "register_candidate"]

if TYPE_CHECKING:
    from diet_ray.candidates import Net, Shape
    from diet_ray.candidates import register as register_candidate
    from diet_ray.memory.dataset import Memory, load_memory
    from diet_ray.settings import Settings

_PLACES = {
    "Memory": ("diet_ray.memory.dataset", "Memory"),
    "Net": ("diet_ray.candidates", "Net"),
    "Settings": ("diet_ray.settings", "Settings"),
    "Shape": ("diet_ray.candidates", "Shape"),
    "load_memory": ("diet_ray.memory.dataset", "load_memory"),
    "register_candidate": ("diet_ray.candidates", "register"),
}


def __getattr__(name: str) -> Any:
    # Late, so that the command line answers at once and only what needs torch imports it.
    if name in _PLACES:
        from importlib import import_module

        module, attribute = _PLACES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
