"""Derivatives by hand: those of a graph, and only where one derivative is enough."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diet_ray.candidates import CandidateSpec, build
from diet_ray.candidates import by_hand as module
from diet_ray.candidates.by_hand import one_derivative
from diet_ray.candidates.candidate import Candidate

FIELDS, DIM, TASKS = ["a", "b", "c"], 4, 2
DEEP: dict[str, dict[str, Any]] = {
    "dnn": {"hidden": [8, 6]},
    "dcnv2": {"hidden": [8], "rank": 2},
    "deepfm": {"hidden": [8], "activation": "gelu"},
    "autoint": {"hidden": [8, 6], "head_dim": 2, "dropout": 0.5},
}
"""Nets whose deep part can stand behind an adapter by hand."""


def candidate(arch: str) -> Candidate:
    """With an adapter that is not the identity."""
    net = build(CandidateSpec(name="net", arch=arch, params=DEEP[arch]), FIELDS, DIM, TASKS, seed=0).double()
    assert net.adapter is not None
    with torch.no_grad():
        net.adapter.weight.add_(0.1 * torch.randn(len(FIELDS), DIM, DIM, generator=torch.Generator().manual_seed(1)))
    return net


def derivatives(net: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The logits, and the derivative of a sum of them by each parameter."""
    torch.manual_seed(3)
    logits: Tensor = net(x)
    by_logits = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=logits.dtype)
    return logits, *torch.autograd.grad(logits, list(net.parameters()), by_logits)


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(7, len(FIELDS), DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry per layer that took its derivative by hand."""
    calls, original = [], module._BehindMaps.forward

    def counted(*arguments: Any) -> Tensor:
        calls.append(True)
        return original(*arguments)

    monkeypatch.setattr(module._BehindMaps, "forward", staticmethod(counted))
    return calls


@pytest.mark.parametrize("arch", DEEP)
def test_derivatives_by_hand_are_those_of_a_graph(arch: str, inputs: Tensor, used: list[bool]) -> None:
    net = candidate(arch)
    expected = derivatives(net, inputs)
    assert not used
    with one_derivative():
        found = derivatives(net, inputs)
    assert len(used) == 1
    torch.testing.assert_close(found, expected)


def test_under_autocast_a_graph_is_kept(inputs: Tensor, used: list[bool]) -> None:
    net = candidate("dnn").float()
    with torch.autocast("cpu", torch.bfloat16), one_derivative():
        net(inputs.float())
    assert not used


def test_a_second_derivative_is_refused(inputs: Tensor) -> None:
    net = candidate("dnn")
    with one_derivative():
        logits = net(inputs)
    first, *_ = torch.autograd.grad(logits.square().sum(), list(net.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
