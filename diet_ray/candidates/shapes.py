"""Shapes of the parameters of some nets, those of the default reference, so that its files are verified without torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from diet_ray.candidates.params import DCNv2Params, DeepParams
from diet_ray.candidates.spec import CandidateSpec

Shapes = dict[str, list[int]]
"""Shape of each parameter, by its name in the net."""


def parameter_shapes(spec: CandidateSpec, *, n_fields: int, dim: int, n_tasks: int) -> Shapes | None:
    """The shapes of the parameters of a net without adapter that gets all fields.

    Returns:
        Names and shapes as the built net has them; None where the net must be built to know them.
    """
    find = _NETS.get(spec.arch)
    return find(spec.hyper_parameters(), n_fields * dim, n_tasks) if find else None


def _linear(name: str, n_in: int, n_out: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": [n_out, n_in]} | ({f"{name}.bias": [n_out]} if bias else {})


def _lr(params: Any, width: int, n_tasks: int) -> Shapes:
    return _linear("out", width, n_tasks)


def _dnn(params: DeepParams, width: int, n_tasks: int) -> Shapes:
    shapes = _linear("mlp.out", params.hidden[-1], n_tasks)
    for i, (n_in, n_out) in enumerate(pairwise((width, *params.hidden))):
        shapes |= _linear(f"mlp.hidden.{i}", n_in, n_out)
    return shapes


def _dcnv2(params: DCNv2Params, width: int, n_tasks: int) -> Shapes:
    shapes = _dnn(params, width, n_tasks)
    for i in range(params.cross_layers):
        if params.rank:
            shapes |= _linear(f"cross.{i}.down", width, params.rank, bias=False)
        shapes |= _linear(f"cross.{i}.up", params.rank or width, width)
    if params.structure == "parallel":
        shapes |= _linear("out", width, n_tasks, bias=False)
    return shapes


_NETS: dict[str, Callable[[Any, int, int], Shapes]] = {"lr": _lr, "dnn": _dnn, "dcnv2": _dcnv2}
