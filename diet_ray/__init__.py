"""diet_ray: streaming dataset distillation for recommender systems, on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Memory", "load_memory"]

if TYPE_CHECKING:
    from diet_ray.dataset import Memory, load_memory


def __getattr__(name: str) -> Any:
    # Late, so that the command line answers at once and only what needs torch imports it.
    if name in __all__:
        from diet_ray import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
