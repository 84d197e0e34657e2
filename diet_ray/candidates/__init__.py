"""Candidates: the architectures to compare. Each is one file of this package that calls `@register("arch")`.

A candidate gets `x: [B, F, d]` float32, the embedded fields of B rows, and returns `[B, T]` logits, one per task. It
never gets ids: the embedding table is shared (`diet_ray.training.embedding`). All nets support `torch.func` transforms, `vmap`
over stacked parameters and double backward: no in-place operation, no batch statistics, no control flow that depends
on data.

spec         specification of a candidate, and pools of them
params       hyper-parameters of the nets
registry     interface of a net, and the names of all
candidate    a net with its adapter, built from its specification
layers       layers that nets share
adapter      linear map per field in front of a net
user_code    the user's own modules
process_state  what a user's net may change in its process
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.candidates.candidate import Candidate as Candidate
    from diet_ray.candidates.candidate import build as build
    from diet_ray.candidates.registry import Net as Net
    from diet_ray.candidates.registry import Shape as Shape
    from diet_ray.candidates.registry import architectures as architectures
    from diet_ray.candidates.registry import register as register
    from diet_ray.candidates.spec import EMBEDDING_KEYS as EMBEDDING_KEYS
    from diet_ray.candidates.spec import CandidateFile as CandidateFile
    from diet_ray.candidates.spec import CandidateSpec as CandidateSpec
    from diet_ray.candidates.spec import default_pool as default_pool
    from diet_ray.candidates.user_code import import_modules as import_modules
    from diet_ray.candidates.user_code import sources as sources

_PLACES = {
    "EMBEDDING_KEYS": "spec",
    "Candidate": "candidate",
    "CandidateFile": "spec",
    "CandidateSpec": "spec",
    "Net": "registry",
    "Shape": "registry",
    "architectures": "registry",
    "build": "candidate",
    "default_pool": "spec",
    "import_modules": "user_code",
    "register": "registry",
    "sources": "user_code",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
