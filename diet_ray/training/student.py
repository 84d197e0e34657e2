"""Training of a student on a set of examples: a fixed number of Adam steps on one flat parameter vector.

The same functions train the students that are judged, the proxies that refinement unrolls and the baselines. A memory is therefore
refined for the horizon that its students train.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates.by_hand import one_derivative
from diet_ray.config import StudentConfig
from diet_ray.seeds import derive_seed
from diet_ray.training.adam import AdamState, FlatAdam
from diet_ray.training.device import forked, generator, put

DRAWN_AT_ONCE = 64
"""Steps whose labels are drawn in one call."""

Rate = Callable[[int], float]
"""Learning rate as a function of the number of steps done."""


def cosine(config: StudentConfig, lr_scale: float = 1.0) -> Rate:
    """A student's learning rate: from `lr * lr_scale` down to 0 at the horizon along half a cosine (Loshchilov & Hutter 2017)."""
    return lambda step: config.lr * lr_scale * (1 + math.cos(math.pi * step / config.steps)) / 2


@dataclass(frozen=True)
class Examples:
    """The training set of a student: M examples over F fields of width d and T tasks."""

    x: Tensor
    """`[M, F, d]` float32 inputs."""
    logit: Tensor
    """`[M, T]` float32; the target is its sigmoid (+-inf for a hard label)."""
    weight: Tensor
    """`[M]` float32."""

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Examples:
        """A copy on a device."""
        return Examples(put(self.x, device), put(self.logit, device), put(self.weight, device))


class FlatNet:
    """A module as a function of one flat parameter vector `theta [P]`, so that a step of Adam needs only a few kernels."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]

    def initial(self) -> Tensor:
        """`[P]`: the module's own parameters."""
        return self.flatten(dict(self.module.named_parameters()))

    def flatten(self, parameters: dict[str, Tensor]) -> Tensor:
        """`[P]` from named parameters; names that the module does not have are ignored."""
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.shapes])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Named parameters as views of `theta`."""
        parts = torch.split(theta, self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @contextmanager
    def bound(self, theta: Tensor) -> Iterator[list[nn.Parameter]]:
        """Let the module's parameters be views of `theta`, so that it learns by steps on `theta` in place; its own are put back.

        Yields:
            The parameters, in the order in which `theta` has them.
        """
        parameters = list(self.module.parameters())
        own = [parameter.data for parameter in parameters]
        for parameter, view in zip(parameters, self.unflatten(theta).values(), strict=True):
            parameter.data = view
        try:
            yield parameters
        finally:
            for parameter, data in zip(parameters, own, strict=True):
                parameter.data = data

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """`[B, T]` logits of `x [B, F, d]` under the parameters `theta [P]`."""
        logits: Tensor = torch.func.functional_call(self.module, self.unflatten(theta), (x,))
        return logits


def batch_order(n: int, steps: int, batch_size: int, rng: torch.Generator) -> Tensor:
    """`[steps, batch_size]` int64: the examples of each step, from epochs of fresh permutations, concatenated without gaps."""
    total = steps * batch_size
    epochs = [torch.randperm(n, generator=rng) for _ in range(-(-total // n))]
    return torch.cat(epochs)[:total].view(steps, batch_size)


def loss(net: FlatNet, theta: Tensor, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Scalar: the binary cross entropy, mean over tasks and weighted mean over the batch (weights are not normalised)."""
    return weighted_loss(net(theta, x), target, weight)


def weighted_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`loss` of logits `[B, T]`."""
    per_example = binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    return (weight * per_example).mean()


def drawn(soft_label: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """`[..., T]`: `(1 - share) * soft_label + share * y`, `y` drawn as 0 or 1 with the soft label's probability.

    The labels of a log are such draws, and the effect of their noise on an architecture is part of its quality. A student that trains
    only on probabilities never meets this noise; one that trains on a fixed draw memorises the draw. A new draw at every visit gives the
    noise of new rows.
    """
    if share == 0:
        return soft_label
    return torch.lerp(soft_label, torch.bernoulli(soft_label, generator=rng), share)


def run_steps(
    net: FlatNet,
    state: AdamState,
    examples: Examples,
    order: Tensor,
    rate: Rate,
    *,
    draw: float,
    rng: torch.Generator,
) -> AdamState:
    """Train along `order [steps, B]` without a graph; returns the state after the last step.

    Args:
        net: the net to train.
        state: its initial state.
        examples: the training set.
        order: the examples of each step.
        rate: Adam's learning rate.
        draw: share of the target that is drawn anew at each visit (`drawn`).
        rng: generator of those draws; like the net and the state, it must be on the examples' device.
    """
    target = torch.sigmoid(examples.logit)
    adam = FlatAdam(state)
    weight = examples.weight[:, None] / (order.shape[1] * target.shape[1])
    with net.bound(adam.theta) as parameters, one_derivative():
        # A GPU's generator gives other numbers to a larger draw, and then pauses would change the result.
        for some in put(order, examples.x.device).split(1 if examples.x.is_cuda else DRAWN_AT_ONCE):
            for batch, label, scale in zip(some, drawn(target[some], draw, rng), weight[some], strict=True):
                logits = net.module(examples.x.index_select(0, batch))
                # The derivative of the cross entropy by hand: a graph of it would cost more than its numbers.
                by_logits = torch.sigmoid(logits.detach()).sub_(label).mul_(scale).to(logits.dtype)
                gradients = torch.autograd.grad(
                    logits, parameters, by_logits, allow_unused=True, materialize_grads=True
                )
                adam.step(gradients, rate(adam.done))
                torch.clear_autocast_cache()  # where the caller has entered autocast, it keeps the parameters of before the step
    return adam.state()


def student_order(n: int, config: StudentConfig, seed: int) -> Tensor:
    """`[steps, batch_size]` int64: the batches of the student `seed` on `n` examples."""
    return batch_order(n, config.steps, config.batch_size, generator(seed, "order"))


class Student:
    """A candidate in training on examples. It may train in several calls; pauses between them do not change the result.

    Its random state is saved between two calls, so that students may alternate in one process.

    Attributes:
        state: its parameters and moments, and the number of steps done.
    """

    def __init__(
        self,
        module: nn.Module,
        examples: Examples,
        config: StudentConfig,
        *,
        seed: int,
        lr_scale: float = 1.0,
        order: Tensor | None = None,
    ) -> None:
        """Start from the module's own parameters.

        Args:
            module: `[B, F, d]` -> `[B, T]`, on the examples' device; its parameters are read, not changed.
            examples: the training set.
            config: the horizon, the batch size, the learning rate and the share of drawn labels.
            seed: of the batch order, of the draws of labels, and of dropout.
            lr_scale: the candidate's factor on `config.lr`.
            order: the batches; needed where `examples` are only those that occur in them. By default the student's own (`student_order`).
        """
        self.examples, self.config, self.rate = examples, config, cosine(config, lr_scale)
        self.device = examples.x.device
        self.net = FlatNet(module)
        self.order = student_order(len(examples), config, seed) if order is None else order
        self.state = AdamState.start(self.net.initial())
        self._labels = generator(seed, "labels", device=self.device)
        with torch.random.fork_rng(devices=forked(self.device)):
            torch.manual_seed(derive_seed(seed, "dropout"))
            self._dropout = self._random_state()

    @property
    def theta(self) -> Tensor:
        """`[P]`: its current parameters."""
        return self.state.theta

    def advance(self, to: int) -> None:
        """Train until `to` steps are done, of at most `config.steps`."""
        self.net.module.to(self.device).train()
        with torch.random.fork_rng(devices=forked(self.device)):
            torch.set_rng_state(self._dropout[0])
            for device, random_state in zip(forked(self.device), self._dropout[1:], strict=True):
                torch.cuda.set_rng_state(random_state, device)
            self.state = run_steps(
                self.net,
                self.state,
                self.examples,
                self.order[self.state.step : to],
                self.rate,
                draw=self.config.draw,
                rng=self._labels,
            )
            self._dropout = self._random_state()

    def _random_state(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in forked(self.device))]


def train_student(
    module: nn.Module,
    examples: Examples,
    config: StudentConfig,
    *,
    seed: int,
    lr_scale: float = 1.0,
    order: Tensor | None = None,
) -> Tensor:
    """Train a candidate from its own initial parameters for exactly `config.steps` steps; returns `theta [P]` (see `Student`)."""
    student = Student(module, examples, config, seed=seed, lr_scale=lr_scale, order=order)
    student.advance(config.steps)
    return student.theta


@torch.no_grad()
def predict(module: nn.Module, theta: Tensor, x: Tensor, *, batch_size: int = 8192) -> Tensor:
    """`[N, T]` logits of `x [N, F, d]` in evaluation mode."""
    net = FlatNet(module.eval())
    return torch.cat([net(theta, part) for part in torch.split(x, batch_size)])
