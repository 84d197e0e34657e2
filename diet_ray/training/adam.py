"""Adam in the forms that diet_ray needs: differentiable on one flat vector, on some rows of a tensor at a time, and torch's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999
EPSILON = 1e-10
"""Adam's epsilon, inside the root so that the derivative of a step stays finite where a gradient is zero."""
TORCH_EPSILON = 1e-8
"""That of torch's own optimisers, outside the root."""


class AdamState(NamedTuple):
    """Parameters and moments after `step` steps; all `[P]`."""

    theta: Tensor
    m: Tensor
    v: Tensor
    step: int

    @staticmethod
    def start(theta: Tensor) -> AdamState:
        """The state before the first step."""
        return AdamState(theta, torch.zeros_like(theta), torch.zeros_like(theta), 0)


def adam_step(state: AdamState, gradient: Tensor, lr: float) -> AdamState:
    """One step of Adam (Kingma & Ba 2015), differentiable in the state and the gradient; epsilon is inside the root."""
    step = state.step + 1
    m = torch.lerp(state.m, gradient, 1 - BETA1)
    v = torch.addcmul(state.v * BETA2, gradient, gradient, value=1 - BETA2)
    epsilon, rate = _scaled(step, lr)
    return AdamState(torch.addcdiv(state.theta, m, torch.sqrt(v + epsilon), value=-rate), m, v, step)


def _scaled(step: int, lr: float) -> tuple[float, float]:
    """Epsilon and the learning rate, so that the moments need no correction of their own for their start from zero."""
    correction = 1 - BETA2**step
    return EPSILON * correction, lr * math.sqrt(correction) / (1 - BETA1**step)


class FlatAdam:
    """Steps of `adam_step` in place, without a graph and without new memory: the same operations in the same order, so the same bytes."""

    def __init__(self, state: AdamState) -> None:
        """Begin with copies of a state's tensors."""
        self.theta, self._m, self._v = (values.detach().clone() for values in (state.theta, state.m, state.v))
        self._gradient, self._root = torch.empty_like(self.theta), torch.empty_like(self.theta)
        self.done = state.step

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Do a step; `gradients` are those of the parts of `theta`, in order."""
        self.done += 1
        gradient, (epsilon, rate) = self._gradient, _scaled(self.done, lr)
        torch.cat([part.reshape(-1) for part in gradients], out=gradient)
        self._m.lerp_(gradient, 1 - BETA1)
        self._v.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        torch.add(self._v, epsilon, out=self._root).sqrt_()
        self.theta.addcdiv_(self._m, self._root, value=-rate)

    def state(self) -> AdamState:
        """The state now; its tensors change with further steps."""
        return AdamState(self.theta, self._m, self._v, self.done)


def adam_vjp(state: AdamState, gradient: Tensor, lr: float, by_after: AdamState) -> tuple[AdamState, Tensor]:
    """The backward pass of `adam_step`, written by hand.

    Args:
        state, gradient, lr: the arguments of the step.
        by_after: a scalar's derivative with respect to theta, m and v after the step.

    Returns:
        The scalar's derivatives with respect to the state before the step and to the gradient.
    """
    step = state.step + 1
    c1, c2 = 1 - BETA1**step, 1 - BETA2**step
    m = BETA1 * state.m + (1 - BETA1) * gradient
    v = BETA2 * state.v + (1 - BETA2) * gradient * gradient
    inverse = torch.rsqrt(v / c2 + EPSILON)
    by_update = -lr * by_after.theta * inverse
    by_m = by_after.m + by_update / c1
    by_v = by_after.v - by_update * m * inverse * inverse / (2 * c1 * c2)
    by_gradient = (1 - BETA1) * by_m + 2 * (1 - BETA2) * gradient * by_v
    return AdamState(by_after.theta, BETA1 * by_m, BETA2 * by_v, state.step), by_gradient


class RowAdam:
    """The outer optimiser: Adam with moments and a step count per row, so that a row without a gradient does not change.

    It is never differentiated, so its epsilon is outside the root, as usual.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.m, self.v = torch.zeros_like(values), torch.zeros_like(values)
        self.steps = torch.zeros(len(values))

    def step(self, rows: Tensor, gradient: Tensor, lr: float) -> None:
        """Move the rows `rows [R]` against `gradient [R, ...]`, in place."""
        self.steps[rows] += 1
        count = self.steps[rows].view(-1, *[1] * (gradient.dim() - 1))
        self.m[rows] = BETA1 * self.m[rows] + (1 - BETA1) * gradient
        self.v[rows] = BETA2 * self.v[rows] + (1 - BETA2) * gradient**2
        root = torch.sqrt(self.v[rows] / (1 - BETA2**count)) + EPSILON
        self.values[rows] -= lr * self.m[rows] / (1 - BETA1**count) / root


def _fused(
    parameters: list[Tensor],
    gradients: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    steps: list[Tensor],
    lr: float,
    epsilon: float,
) -> None:
    """Do a step by torch's fused kernel, in place; `steps` are those done with this one."""
    torch._fused_adam_(
        parameters,
        gradients,
        m,
        v,
        [],
        steps,
        lr=lr,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=0.0,
        eps=epsilon,
        amsgrad=False,
        maximize=False,
    )


class _Uncompiled(torch.optim.Optimizer):
    """An optimiser that does not import torch's compiler when it is made: 800 modules, which take over a CPU second in each process."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, without the decorator that hides it from the compiler."""
        decorated = torch.optim.Optimizer.add_param_group
        getattr(decorated, "__wrapped__", decorated)(self, param_group)


class NetAdam(_Uncompiled, torch.optim.Adam):
    """torch's Adam for nets, which takes gradients rather than looks for them in the parameters.

    On the CPU a step is one call of torch's fused kernel per group, without torch's checks for what no net here has.
    """

    @torch.no_grad()
    def learn(self, gradients: Sequence[Tensor | None]) -> None:
        """Do a step with the gradients of the parameters that can learn, in order; one whose gradient is None does not change."""
        left = iter(gradients)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
            pairs = [(parameter, gradient) for parameter in parameters if (gradient := next(left)) is not None]
            if not group["fused"]:
                for parameter, gradient in pairs:
                    parameter.grad = gradient
            elif pairs:
                self._learn_fused(pairs, group)
        if not self.param_groups[0]["fused"]:
            self.step()
            self.zero_grad()

    def _learn_fused(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        states = [self.state[parameter] or self._begin(parameter) for parameter, _ in pairs]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        parameters, gradients = ([pair[number] for pair in pairs] for number in (0, 1))
        m, v = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        _fused(parameters, gradients, m, v, steps, group["lr"], TORCH_EPSILON)

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        self.state[parameter] = {"step": torch.tensor(0.0), **zeros}
        state: dict[str, Tensor] = self.state[parameter]
        return state


LANES = 16
"""Most float32 numbers in a vector of a CPU."""


class TableAdam(_Uncompiled, torch.optim.SparseAdam):
    """torch's sparse Adam for one table, which takes the rows and their gradients: other rows do not change."""

    @torch.no_grad()
    def learn(self, rows: Tensor, values: Tensor, gradient: Tensor, *, alike: bool = False) -> None:
        """Do a step.

        Args:
            rows: `[U]` int64, distinct.
            values: `[U, d]`: these rows of the table; changed, too.
            gradient: `[U, d]`.
            alike: whether a row is to round alike beside any other rows, as a table split over workers needs.
        """
        n, more = len(rows), 0
        if alike and n:
            # The kernel computes the numbers after the last whole vector in another way: let that be copies of a row.
            more = -n % (LANES // math.gcd(LANES, values.shape[1]))
        if more:
            rows, values, gradient = (
                torch.cat((one, one[:1].expand(more, *one.shape[1:]))) for one in (rows, values, gradient)
            )
        (group,) = self.param_groups
        (table,) = group["params"]
        state = self.state[table]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(table), exp_avg_sq=torch.zeros_like(table))
        state["step"] += 1
        m, v = state["exp_avg"].index_select(0, rows), state["exp_avg_sq"].index_select(0, rows)
        root = math.sqrt(1 - BETA2 ** state["step"])
        if table.is_cuda:  # where torch's fused kernel would want the number of steps on the GPU
            m.lerp_(gradient, 1 - BETA1)
            v.lerp_(gradient.square(), 1 - BETA2)
            rate = group["lr"] * root / (1 - BETA1 ** state["step"])
            values.addcdiv_(m, v.sqrt().add_(TORCH_EPSILON), value=-rate)
        else:
            # The step of torch's SparseAdam, by the fused kernel of its Adam: that one corrects v before it adds epsilon.
            steps = [torch.tensor(float(state["step"]))]
            _fused([values], [gradient], [m], [v], steps, group["lr"], TORCH_EPSILON / root)
        for whole, part in ((table, values), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
            whole.index_copy_(0, rows[:n], part[:n])


def net_adam(parameters: Iterable[Tensor] | list[dict[str, Any]]) -> NetAdam:
    """`NetAdam` for the CPU, with every setting given. Each group's `lr` must be set before a step."""
    return NetAdam(
        parameters,
        lr=0.0,
        betas=(BETA1, BETA2),
        eps=TORCH_EPSILON,
        weight_decay=0,
        amsgrad=False,
        maximize=False,
        capturable=False,
        differentiable=False,
        decoupled_weight_decay=False,
        # Each of torch's three ways to compute a step rounds in its own way; by default torch chooses one of them. This one is the fastest.
        foreach=False,
        fused=True,
    )


def on_device(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Let a `net_adam` step on a device: on a GPU as torch does there by default, with step counts on the CPU."""
    for group in optimiser.param_groups:
        group["foreach"] = device.type == "cuda"
        group["fused"] = not group["foreach"]


def table_adam(table: Tensor, lr: float) -> TableAdam:
    """`TableAdam` with every setting given."""
    return TableAdam([table], lr=lr, betas=(BETA1, BETA2), eps=TORCH_EPSILON, maximize=False)
