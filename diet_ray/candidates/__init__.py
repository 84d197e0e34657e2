"""Candidates: the architectures to compare. Each is one file of this package that calls `@register("arch")`.

A candidate gets `x: [B, F, d]` float32, the embedded fields of B rows, and returns `[B, T]` logits, one per task. It
never gets ids: the embedding table is shared (`diet_ray.training.embedding`). All nets support `torch.func` transforms, `vmap`
over stacked parameters and double backward: no in-place operation, no batch statistics, no control flow that depends
on data.
"""

import importlib
import pkgutil

from diet_ray.candidates.registry import Net, Shape, architectures, register
from diet_ray.candidates.spec import EMBEDDING_KEYS, Candidate, CandidateFile, CandidateSpec, build, default_pool
from diet_ray.candidates.user_code import import_modules, sources

__all__ = [
    "EMBEDDING_KEYS",
    "Candidate",
    "CandidateFile",
    "CandidateSpec",
    "Net",
    "Shape",
    "architectures",
    "build",
    "default_pool",
    "import_modules",
    "register",
    "sources",
]

# Importing a file registers its architecture, so that a new one needs no entry in any list.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
