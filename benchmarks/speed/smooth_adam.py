"""The Adam of this package, with epsilon inside the root, as an optimizer for torch and as one for `higher`.

The Adam of `higher` has epsilon outside the root and masks its derivative where a second moment is 0, which is different maths.
"""

from __future__ import annotations

from typing import Any

import higher
import torch
from torch import Tensor

from diet_ray.training.adam import BETA1, BETA2, EPSILON


class SmoothAdam(torch.optim.Optimizer):
    """The torch optimizer, for the steps before the window."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(_moved(p, p.grad, self.state[p], group["lr"]))


class Unrolled(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
    """The differentiable optimizer of `higher`, for the steps of the window."""

    def _update(self, grouped_grads: Any, **unused: Any) -> None:
        for number, (group, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            for i, (p, g) in enumerate(zip(group["params"], grads, strict=True)):
                group["params"][i] = _moved(p, g, self.state[number][i], group["lr"])


def _moved(p: Tensor, g: Tensor, state: dict[str, Any], lr: float) -> Tensor:
    if not state:
        state |= {"step": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
    state["step"] += 1
    state["m"] = BETA1 * state["m"] + (1 - BETA1) * g
    state["v"] = BETA2 * state["v"] + (1 - BETA2) * g * g
    moved: Tensor = p - lr * (state["m"] / (1 - BETA1 ** state["step"])) / torch.sqrt(
        state["v"] / (1 - BETA2 ** state["step"]) + EPSILON
    )
    return moved


higher.register_optim(SmoothAdam, Unrolled)
