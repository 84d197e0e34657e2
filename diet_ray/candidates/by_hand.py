"""A layer behind an adapter, with a derivative written by hand: for steps that need one derivative and no more.

Nets use it only in the body of `one_derivative`, on the CPU and without autocast: refinement differentiates twice, and `torch.func` cannot
look into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_ENOUGH: ContextVar[bool] = ContextVar("one derivative is enough", default=False)


@contextmanager
def one_derivative() -> Iterator[None]:
    """Let nets take derivatives by hand in the body of the `with` statement."""
    before = _ENOUGH.set(True)
    try:
        yield
    finally:
        _ENOUGH.reset(before)


def by_hand(x: Tensor) -> bool:
    """Whether a net may take derivatives by hand for an input."""
    return _ENOUGH.get() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def behind_maps(x: Tensor, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer behind a linear map per field, `[B, F * d] -> [B, n]`.

    The maps are multiplied into the weight, and both gradients follow from that of the product: a step computes neither the mapped input
    nor its derivative, which would cost as much as a third of the layer.

    Args:
        x: `[B, F * d]`, without a gradient of its own.
        maps: `[F, d, d]`, as `Adapter.weight`.
        weight: `[n, F * d]`.
        bias: `[n]`.
    """
    out: Tensor = _BehindMaps.apply(x, maps, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _BehindMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, maps, weight)
        return torch.addmm(bias, x, _times(_fields(weight, maps), maps.transpose(1, 2)).t())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
        x, maps, weight = ctx.saved_tensors
        by_product = _fields(by_out.t() @ x, maps)
        by_maps = torch.bmm(by_product.transpose(1, 2), _fields(weight, maps))
        return None, by_maps, _times(by_product, maps), by_out.sum(0)


def _fields(weight: Tensor, maps: Tensor) -> Tensor:
    """`[n, F * d]` as `[F, n, d]`."""
    return weight.view(-1, *maps.shape[:2]).transpose(0, 1)


def _times(weight: Tensor, maps: Tensor) -> Tensor:
    """`[F, n, d]` times `[F, d, d]`, as `[n, F * d]`."""
    return torch.bmm(weight, maps).transpose(0, 1).flatten(1)
