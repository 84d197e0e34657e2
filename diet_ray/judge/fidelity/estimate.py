"""What a bench will cost, told before it starts: the missing trainings and distillations, and about how much CPU time they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diet_ray.candidates import CandidateSpec
from diet_ray.figures import duration, times
from diet_ray.judge.baselines import own_model
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.plan import FULL, LivePlan, LiveTraining
from diet_ray.judge.fidelity.plan import Bench, Training
from diet_ray.judge.fidelity.work import runs_of
from diet_ray.judge.live import rows_met
from diet_ray.judge.verdict import Clock
from diet_ray.memory.layout import stage_folder
from diet_ray.training.device import torch_threads
from diet_ray.training.reference import train_pass
from diet_ray.training.workers import Solo

BATCHES = 3
"""Batches of each candidate that are timed, after one that is not."""

DISTILLING = 4
"""A distillation takes as long as this number of trainings on its rows: two to seven on the published logs."""

ROUND_SECONDS = 1.3
"""CPU seconds of a round of refinement on the published logs."""

LAUNCHED = ("memory", "refined", "unaligned", "random", "recent", "table+recent")
"""The starts that learn as many examples as a launch."""


@dataclass(frozen=True)
class Estimate:
    """The missing work of a bench."""

    candidates: int
    trainings: int
    on_full_log: int
    """How many of them learn the full log."""
    distillations: int
    seconds: float
    """CPU seconds, roughly: from a few timed batches of each candidate."""

    @property
    def sentence(self) -> str:
        """The work in words."""
        if not self.trainings:
            return "Nothing is left to train"
        return (
            f"To do: {times(self.trainings, 'training')} ({self.on_full_log:,} on the full log) and "
            f"{times(self.distillations, 'distillation')}, about {duration(self.seconds)} of CPU time"
        )


QUICK = (
    "Quick: three trainings per candidate (full log, memory, random rows in its place; four with a refined memory), one seed, one judged "
    "block. It can show that the memory's order is no better than chance, or that the whole bench is worth its time; never that the order "
    "may be trusted"
)
"""What the quick bench can show and what not."""


def estimate(config: FidelityConfig, out: Path) -> Estimate:
    """The missing work of a bench whose folder is `out`; reads the log and times a few batches of each candidate.

    Raises:
        ConfigError: see `Bench.open` and `LivePlan.open`.
    """
    config = config.absolute()
    cache = config.cache or out.resolve() / "cache"
    bench, pairs = Bench.open(config, cache), list[tuple[CandidateSpec, float]]()
    runs: dict[Path, tuple[int, int]] = {}
    full = 0
    rows = [block.rows for block in bench.log.blocks]
    if "frozen" in config.protocols:
        todo = [training for training in bench.trainings() if not bench.keys.verdict_path(training).is_file()]
        pairs += [(training.candidate, _examples(bench, training)) for training in todo]
        full += sum(training.set.method.of_full_log for training in todo)
        runs |= {run: (bench.blocks, stream.refine.rounds) for run, stream in runs_of(bench, todo)}
    if "live" in config.protocols:
        plan = LivePlan.open(config, cache)
        missing = [training for group in plan.trainings() for training in group if not plan.is_done(training)]
        pairs += [(training.candidate, _live_examples(plan, training)) for training in missing]
        full += sum(training.start == FULL for training in missing)
        last = plan.judged[-1].index
        runs |= {
            run: (last, stream.refine.rounds)
            for run, stream in plan.runs(missing)
            if not stage_folder(run, last - 1).is_dir()
        }
    if not pairs:
        return Estimate(len(bench.pool), 0, 0, 0, 0.0)
    per_row = seconds_per_row(bench, {spec.name: spec for spec, _ in pairs})
    seconds = sum(per_row[spec.name] * examples for spec, examples in pairs)
    mean = float(np.mean([*per_row.values()]))
    seconds += sum(
        DISTILLING * mean * sum(rows[:blocks]) + ROUND_SECONDS * rounds * blocks for blocks, rounds in runs.values()
    )
    return Estimate(len(bench.pool), len(pairs), full, len(runs), seconds)


def seconds_per_row(bench: Bench, specs: dict[str, CandidateSpec]) -> dict[str, float]:
    """CPU seconds in which each candidate learns a row, from a few batches of the log's first block."""
    log, config = bench.log, bench.config.stream.reference
    block = log.blocks[0]
    first = next(iter(log.iter_block(block)))
    batch = min(config.batch_size, max(1, len(first) // 2))
    warm, timed = (
        first.take(np.arange(begin, min(end, len(first))))
        for begin, end in ((0, batch), (batch, (1 + BATCHES) * batch))
    )
    seconds = {}
    with torch_threads(1):
        for name, spec in specs.items():
            model = own_model(spec, log.schema, config, n_ids=block.n_ids, seed=0)
            train_pass(model, [warm], Solo(), rows=len(warm))
            with Clock() as clock:
                train_pass(model, [timed], Solo(), rows=len(timed))
            seconds[name] = clock.cpu / max(1, len(timed))
    return seconds


def _examples(bench: Bench, training: Training) -> float:
    """Examples that a frozen training learns."""
    if training.set.method.of_full_log:
        return sum(block.rows for block in bench.seen(training.set))
    student = bench.student(training.set)
    return student.steps * student.batch_size


def _live_examples(plan: LivePlan, training: LiveTraining) -> float:
    """Examples that a live training learns."""
    blocks = plan.bench.log.blocks
    if training.start == FULL:
        return sum(block.rows for block in blocks[: training.block + 1])
    student = plan.live.recipe.student
    launch = student.steps * student.batch_size if training.start in LAUNCHED else 0
    return launch + rows_met(blocks[training.block].rows, plan.live.shares[-1])
