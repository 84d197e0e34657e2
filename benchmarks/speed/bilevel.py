"""Speed of a bi-level step, compared with the same maths in `higher` and in plain autograd.

    pip install higher==0.2.1
    python -m benchmarks.speed.bilevel

A round is the work of refinement with one proxy: untracked steps up to a window, the window, the loss on the hard targets, and its gradient
with respect to the units that the window used. Each contender runs in its own process, so that its peak memory can be measured. A table
is printed, and the figures go to benchmarks/results/bilevel.json.
"""

from __future__ import annotations

import argparse
import copy
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.common.machine import Machine
from benchmarks.common.tables import show
from diet_ray.candidates import Candidate, CandidateSpec, build
from diet_ray.distill.bilevel import HardTargets, meta_gradient
from diet_ray.settings import Settings
from diet_ray.training.adam import AdamState, adam_step
from diet_ray.training.student import Examples, FlatNet, batch_order, loss, run_steps

RESULT = Path(__file__).parents[1] / "results" / "bilevel.json"
NETS = {
    "dnn 400x3": CandidateSpec(name="dnn", arch="dnn", params={"hidden": (400, 400, 400)}, adapter=False),
    "wukong": CandidateSpec(name="wukong", arch="wukong", adapter=False),
}
FIELDS, WIDTH, UNITS, HARD, HORIZON = 20, 16, 4096, 1024, 200
LR = 1e-3


class Figures(Settings):
    """One contender on one net and window."""

    net: str
    window: int
    by: str
    seconds: float
    """Median wall seconds of a round."""
    window_seconds: float
    """Median wall seconds of a round without untracked steps."""
    peak: int
    """Largest growth of the process in bytes, in a round without untracked steps."""
    apart: float
    """Largest difference of its gradients from those of this package, divided by the largest gradient."""


class Result(Settings):
    """All contenders."""

    machine: Machine
    batch_size: int
    steps: int
    figures: list[Figures]


class Problem:
    """Units, hard targets and batches: the same for every contender."""

    def __init__(self, net: str, batch_size: int, steps: int) -> None:
        rng = torch.Generator().manual_seed(0)
        self.module: Candidate = build(NETS[net], [f"f{i}" for i in range(FIELDS)], WIDTH, 1, seed=0)
        self.x = torch.randn(UNITS, FIELDS, WIDTH, generator=rng) * 0.1
        self.logit = torch.randn(UNITS, 1, generator=rng)
        self.weight = torch.ones(UNITS)
        self.hard = HardTargets(
            torch.randn(HARD, FIELDS, WIDTH, generator=rng) * 0.1, torch.randint(0, 2, (HARD, 1), generator=rng).float()
        )
        self.order = batch_order(UNITS, steps, batch_size, rng)

    def examples(self) -> Examples:
        """The units as examples for a student."""
        return Examples(self.x, self.logit, self.weight)

    def to(self, device: torch.device) -> Problem:
        """Move everything except the order to a device; returns itself."""
        self.module.to(device)
        units = self.examples().to(device)
        self.x, self.logit, self.weight, self.hard = units.x, units.logit, units.weight, self.hard.to(device)
        return self


Gradient = tuple[Tensor, Tensor]
"""`[M, F, d]` and `[M, T]`, zero for units that the window did not use."""


def ours(problem: Problem, start: int, window: int) -> Gradient:
    """This package."""
    net = FlatNet(problem.module)
    examples = problem.examples()
    how: dict[str, Any] = {"rate": lambda step: LR, "draw": 0.0, "rng": torch.Generator()}
    state = run_steps(net, AdamState.start(net.initial()), examples, problem.order[:start], **how)
    meta = meta_gradient(net, state, examples, problem.order[start : start + window], problem.hard, **how)
    by_x, by_logit = torch.zeros_like(problem.x), torch.zeros_like(problem.logit)
    by_x[meta.rows], by_logit[meta.rows] = meta.delta, meta.logit
    return by_x, by_logit


def autograd(problem: Problem, start: int, window: int) -> Gradient:
    """The window as one graph that includes Adam's arithmetic, differentiated in one call."""
    net = FlatNet(problem.module)
    examples = problem.examples()
    state = AdamState.start(net.initial())
    state = run_steps(net, state, examples, problem.order[:start], lambda step: LR, draw=0.0, rng=torch.Generator())
    x, logit = problem.x.clone().requires_grad_(), problem.logit.clone().requires_grad_()
    state = state._replace(theta=state.theta.detach().requires_grad_())
    for batch in problem.order[start : start + window]:
        value = loss(net, state.theta, x[batch], torch.sigmoid(logit[batch]), problem.weight[batch])
        (gradient,) = torch.autograd.grad(value, state.theta, create_graph=True)
        state = adam_step(state, gradient, LR)
    meta = binary_cross_entropy_with_logits(net(state.theta, problem.hard.x), problem.hard.labels)
    by_x, by_logit = torch.autograd.grad(meta, (x, logit))
    return by_x, by_logit


def with_higher(problem: Problem, start: int, window: int) -> Gradient:
    """`higher`: a torch optimizer before the window, and its differentiable counterpart in the window."""
    import higher

    from benchmarks.speed.smooth_adam import SmoothAdam

    module = copy.deepcopy(problem.module)
    optimizer = SmoothAdam(module.parameters(), lr=LR)
    x, logit = problem.x.clone().requires_grad_(), problem.logit.clone().requires_grad_()
    for batch in problem.order[:start]:
        optimizer.zero_grad()
        _loss(module(problem.x[batch]), torch.sigmoid(problem.logit[batch])).backward()
        optimizer.step()
    with higher.innerloop_ctx(module, optimizer) as (unrolled, steps):
        for batch in problem.order[start : start + window]:
            steps.step(_loss(unrolled(x[batch]), torch.sigmoid(logit[batch])))
        meta = binary_cross_entropy_with_logits(unrolled(problem.hard.x), problem.hard.labels)
        by_x, by_logit = torch.autograd.grad(meta, (x, logit))
    return by_x, by_logit


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, target)  # all weights are 1


CONTENDERS: dict[str, Callable[[Problem, int, int], Gradient]] = {
    "diet_ray": ours,
    "higher": with_higher,
    "autograd": autograd,
}


def alone(net: str, window: int, by: str, batch_size: int, steps: int, rounds: int) -> Figures:
    """Measure one contender in this process, which must be a fresh one."""
    problem, contender = Problem(net, batch_size, steps), CONTENDERS[by]
    ours(problem, 0, 1)  # the initialisation of torch at its first use is not measured
    before = _resident()
    gradient = contender(problem, 0, window)
    peak = _resident() - before
    # A window may be anywhere in the horizon; on average, half of the remaining steps are before it.
    starts = {"window_seconds": 0, "seconds": (steps - window) // 2}
    times = {
        name: median(_seconds(contender, problem, start, window) for _ in range(rounds))
        for name, start in starts.items()
    }
    true = ours(problem, 0, window)
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradient, true, strict=True))
    return Figures(net=net, window=window, by=by, peak=peak, apart=apart, **times)


def _seconds(contender: Callable[[Problem, int, int], Gradient], problem: Problem, start: int, window: int) -> float:
    began = time.perf_counter()
    contender(problem, start, window)
    return time.perf_counter() - began


def _resident() -> int:
    """The largest resident size of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(nets: list[str], windows: list[int], batch_size: int, steps: int, rounds: int) -> Result:
    """Every contender on every net and window."""
    machine, figures = Machine.here(), []
    for net, window, by in product(nets, windows, CONTENDERS):
        arguments = [net, str(window), by, str(batch_size), str(steps), str(rounds)]
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.bilevel", "--alone", *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        figures.append(Figures.model_validate_json(out.stdout))
        print(figures[-1], file=sys.stderr)
    return Result(machine=machine, batch_size=batch_size, steps=steps, figures=figures)


def table(result: Result) -> tuple[list[str], list[list[str]]]:
    """The figures, and their ratios to those of this package: columns and rows."""
    rows = []
    for figure in result.figures:
        (base,) = [b for b in result.figures if (b.net, b.window, b.by) == (figure.net, figure.window, "diet_ray")]
        pairs = [
            (f"{figure.seconds:.2f}", figure.seconds / base.seconds),
            (f"{figure.window_seconds:.2f}", figure.window_seconds / base.window_seconds),
            (f"{figure.peak / 1e6:.0f}", figure.peak / max(base.peak, 1)),
        ]
        measured = [cell for value, ratio in pairs for cell in (value, f"{ratio:.2f}")]
        rows.append([figure.net, str(figure.window), figure.by, *measured, f"{figure.apart:.0e}"])
    columns = ["net", "W", "by", "round, s", "times ours", "window alone, s", "times ours", "peak, MB", "times ours"]
    return [*columns, "gradients apart"], rows


def title(result: Result) -> str:
    """The description of a round and of the machine."""
    return f"A round: F={FIELDS}, d={WIDTH}, batch {result.batch_size}, T={result.steps}. {result.machine}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--windows", nargs="+", type=int, default=[20, 40])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--alone", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        net, window, by, *sizes = options.alone
        print(alone(net, int(window), by, *(int(size) for size in sizes)).model_dump_json())
        return
    result = run(options.nets, options.windows, options.batch_size, options.steps, options.rounds)
    options.out.write_text(result.model_dump_json() + "\n", encoding="utf-8")
    show(*table(result), title(result))


if __name__ == "__main__":
    main()
