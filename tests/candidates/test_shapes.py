"""The shapes that are known without torch are those of the built nets."""

from typing import Any

import pytest

from diet_ray.candidates import CandidateSpec, architectures, build
from diet_ray.candidates.params import PARAMS
from diet_ray.candidates.shapes import parameter_shapes


@pytest.mark.parametrize(
    ("arch", "params"),
    [
        ("lr", {}),
        ("dnn", {}),
        ("dnn", {"hidden": (7,), "dropout": 0.5}),
        ("dcnv2", {}),
        ("dcnv2", {"hidden": (5, 4, 3), "rank": 0, "cross_layers": 1}),
        ("dcnv2", {"structure": "stacked", "cross_layers": 2}),
    ],
)
def test_the_shapes_are_those_of_the_built_net(arch: str, params: dict[str, Any]) -> None:
    spec = CandidateSpec(name="a", arch=arch, params=params, adapter=False)
    built = build(spec, ["a", "b", "c"], dim=4, n_tasks=2, seed=0)
    shapes = {
        f"net.{name}": shape for name, shape in (parameter_shapes(spec, n_fields=3, dim=4, n_tasks=2) or {}).items()
    }
    assert shapes == {name: list(weight.shape) for name, weight in built.named_parameters()}


def test_other_nets_must_be_built() -> None:
    assert parameter_shapes(CandidateSpec(name="a", arch="fm"), n_fields=3, dim=4, n_tasks=2) is None


def test_hyper_parameters_that_are_read_without_torch_are_those_of_the_nets() -> None:
    own = {arch: net.Params for arch, net in architectures().items() if net.__module__.startswith("diet_ray.")}
    assert own == PARAMS
