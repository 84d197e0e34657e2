"""Speed of a GPU: scoring, a pass of the reference, a bi-level round and a candidate, each compared with the CPU.

    python -m benchmarks.speed.gpu
    python -m benchmarks.speed.gpu --cpu-only

Rows are simulated, F = 8; a round is that of `bilevel.py`, F = 20. Everything is measured in float32, and most work in bfloat16 too; the
resulting numbers are compared with those of the CPU in float32. Figures go to benchmarks/results/gpu.json. The benchmark takes some minutes
with a GPU; where torch can use none, it prints the reason and ends with exit code 2. `--cpu-only` runs only the CPU part, at a small size,
and writes its figures only if `--out` is given.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.machine import Machine
from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed.bilevel import NETS, Problem, ours
from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import Precision, ReferenceConfig, StudentConfig
from diet_ray.distill.el2n import el2n
from diet_ray.logs.blocks import Rows
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.labels import draw
from diet_ray.settings import Settings
from diet_ray.training.device import CPU, autocast, gpu_fault
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.student import predict, train_student
from diet_ray.training.workers import Solo

RESULT = RESULTS / "gpu.json"

CHECKPOINTS = 3
DNN = CandidateSpec(name="dnn", arch="dnn", params={"hidden": (400, 400, 400)}, adapter=False)

Ready = Callable[[torch.device], Callable[[], Tensor]]


class Part(Settings):
    """One piece of work on one device."""

    what: str
    device: str
    """`cpu` or `cuda`."""
    precision: Precision
    seconds: float
    """Wall time, median over the rounds; an earlier round, in which libraries initialise themselves, does not count."""
    rows: int | None
    """Rows processed; None where the work is not measured in rows."""
    apart: float
    """Difference of its numbers from those of the CPU in float32; see `measure`."""
    measure: str
    """The definition of `apart`."""


class GpuResult(Settings):
    """All pieces of work."""

    machine: Machine
    gpu: str | None
    """Name of the GPU; None where only the CPU part was run."""
    threads: int
    """torch threads on the CPU."""
    parts: list[Part]


class Sizes(NamedTuple):
    """Sizes of the work."""

    scored: int = 500_000
    """Rows to score."""
    learned: int = 100_000
    """Rows of a pass of the reference."""
    batches: tuple[int, ...] = (256, 8192)
    """Rows per step of the pass; the first is the default."""
    nets: tuple[str, ...] = tuple(NETS)
    """Nets of the bi-level round."""
    batch: int = 256
    """Units per step of the round and of the candidate."""
    steps: int = 200
    """T."""
    window: int = 20
    """W."""
    rounds: int = 3
    """Number of timings of each piece."""


SMALL = Sizes(scored=2000, learned=1000, batches=(256,), nets=("wukong",), batch=64, steps=10, window=4, rounds=1)


class Work(NamedTuple):
    """One piece of work."""

    what: str
    measure: str
    """The definition of `Part.apart`."""
    rows: int | None
    ready: Ready
    """Moves its data to a device and returns the function to time, which returns its numbers on the CPU."""
    apart: Callable[[Tensor, Tensor], float]
    """Difference between its numbers and the true ones."""
    bfloat16: bool = True
    """Whether it is measured in bfloat16 too."""


def largest(tensor: Tensor, true: Tensor) -> float:
    """The largest difference."""
    return float((tensor - true).abs().max())


def relative(tensor: Tensor, true: Tensor) -> float:
    """The norm of the difference divided by the norm of the true values."""
    return float((tensor - true).double().norm() / true.double().norm())


def scoring(rows: Rows, n_ids: int) -> Ready:
    """EL2N of all rows under three untrained references, whose predictions cost the same as those of trained ones."""
    schema, config = SimulateConfig().log_schema, ReferenceConfig(nets=[DNN])
    kept = [Reference(schema, [DNN], config, n_ids=n_ids, seed=k).checkpoint() for k in range(CHECKPOINTS)]

    def ready(device: torch.device) -> Callable[[], Tensor]:
        predictors = [Predictor(schema, [DNN], weights, device=device) for weights in kept]

        def score() -> Tensor:
            probabilities = torch.stack([torch.sigmoid(predictor(rows.ids)) for predictor in predictors]).float().cpu()
            return el2n(probabilities, torch.tensor(rows.labels))

        return score

    return ready


def learning(rows: Rows, n_ids: int, batch: int) -> Ready:
    """The first pass of a reference of one DNN; its number is the loss that the pass returns."""
    schema, config = SimulateConfig().log_schema, ReferenceConfig(nets=[DNN], batch_size=batch)

    def ready(device: torch.device) -> Callable[[], Tensor]:
        def learn() -> Tensor:
            reference = Reference(schema, [DNN], config, n_ids=n_ids, seed=0)
            return torch.tensor([train_pass(reference, [rows], Solo(device), rows=len(rows))])

        return learn

    return ready


def bilevel_round(net: str, size: Sizes) -> Ready:
    """The round of `bilevel.py`; its numbers are the gradient with respect to all inputs and logits."""

    def ready(device: torch.device) -> Callable[[], Tensor]:
        problem = Problem(net, size.batch, size.steps).to(device)
        start = (size.steps - size.window) // 2
        return lambda: torch.cat([part.flatten().cpu() for part in ours(problem, start, size.window)])

    return ready


def candidate(size: Sizes) -> Ready:
    """A student on the units of the round, without drawn labels; its numbers are its probabilities on the hard targets."""
    student = StudentConfig(steps=size.steps, batch_size=size.batch, draw=0.0)

    def ready(device: torch.device) -> Callable[[], Tensor]:
        problem = Problem("dnn 400x3", size.batch, size.steps).to(device)
        fields, width = problem.x.shape[1:]

        def train() -> Tensor:
            module = build(DNN, [f"f{i}" for i in range(fields)], width, 1, seed=0).to(device)
            theta = train_student(module, problem.examples(), student, seed=0)
            return torch.sigmoid(predict(module, theta, problem.hard.x).float()).cpu()

        return train

    return ready


def works(size: Sizes) -> Iterator[Work]:
    """All pieces of work to measure."""
    config = SimulateConfig(rows=size.scored, blocks=1)
    rows, n_ids = draw(config, 0, 0, size.scored), int(config.log_schema.first_static_id[-1])
    yield Work(f"score, K={CHECKPOINTS}, DNN 400x3", "largest, of EL2N", len(rows), scoring(rows, n_ids), largest)
    training_rows = rows.take(np.arange(size.learned))
    for batch in size.batches:
        what, work = f"a pass of the reference, {batch} rows a step", learning(training_rows, n_ids, batch)
        yield Work(what, "of the running loss", len(training_rows), work, largest, bfloat16=False)
    for net in size.nets:
        what = f"a bi-level round, {net}, B={size.batch}, T={size.steps}, W={size.window}"
        yield Work(what, "of the gradient, over its length", None, bilevel_round(net, size), relative)
    what = f"a candidate, DNN 400x3, B={size.batch}, {size.steps} steps"
    yield Work(what, "largest, of probabilities", None, candidate(size), largest)


def run(device: torch.device, size: Sizes) -> list[Part]:
    """Measure every piece on the CPU and, if it is another one, on the device."""
    parts = []
    for work in works(size):
        places: list[tuple[torch.device, Precision]] = [(CPU, "float32")]
        if device != CPU:
            places.append((device, "float32"))
        if work.bfloat16:
            places.append((device, "bfloat16"))
        true: Tensor | None = None
        for where, precision in places:
            do = work.ready(where)
            with autocast(where, precision):
                numbers = do()
                seconds = median(_seconds(do, where) for _ in range(size.rounds))
            true = numbers if true is None else true
            part = Part(
                what=work.what,
                device=where.type,
                precision=precision,
                seconds=seconds,
                rows=work.rows,
                apart=work.apart(numbers, true),
                measure=work.measure,
            )
            print(part, file=sys.stderr, flush=True)
            parts.append(part)
    return parts


def _seconds(do: Callable[[], Tensor], device: torch.device) -> float:
    began = time.perf_counter()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def table(result: GpuResult) -> tuple[list[str], list[list[str]]]:
    """Every piece, and its speed relative to the CPU: columns and rows."""
    rows = []
    for part in result.parts:
        (base,) = [b for b in result.parts if (b.what, b.device, b.precision) == (part.what, "cpu", "float32")]
        rate = f"{part.rows / part.seconds:,.0f}" if part.rows else ""
        times = [f"{part.seconds:.3f}", rate, f"{base.seconds / part.seconds:.1f}x"]
        apart = "" if part is base else f"{part.apart:.0e} {part.measure}"
        rows.append([part.what, part.device, part.precision, *times, apart])
    return ["what", "on", "precision", "seconds", "rows/s", "as fast as the CPU", "numbers apart"], rows


def title(result: GpuResult) -> str:
    """The GPU and the machine."""
    return f"{result.gpu or 'no GPU'}; CPU with {result.threads} threads: {result.machine}"


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-only", action="store_true", help="only the CPU part, at a small size")
    parser.add_argument("--out", type=Path, help=f"by default {RESULT.name} in benchmarks/results, only with a GPU")
    options = parser.parse_args()
    fault = None if options.cpu_only else gpu_fault("bfloat16")
    if fault:
        print(f"{fault}; or run only the CPU part with --cpu-only", file=sys.stderr)
        raise SystemExit(2)
    machine, device = Machine.here(), CPU if options.cpu_only else torch.device("cuda")
    parts = run(device, SMALL if options.cpu_only else Sizes())
    gpu = None if options.cpu_only else torch.cuda.get_device_name()
    result = GpuResult(machine=machine, gpu=gpu, threads=torch.get_num_threads(), parts=parts)
    out = options.out or (None if options.cpu_only else RESULT)
    if out:
        out.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    show(*table(result), title(result))


if __name__ == "__main__":
    main()
