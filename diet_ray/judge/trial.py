"""One trial of a sweep: it trains students of a candidate, scores them on held-out rows meanwhile, and judges them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import StudentConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.live_trial import LiveContext, LiveStudent
from diet_ray.judge.metrics import auc
from diet_ray.judge.verdict import Clock, Verdict, predict_rows, verdict
from diet_ray.logs.blocks import Log, Rows
from diet_ray.memory.dataset import Memory
from diet_ray.memory.same_log import check_same_log
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings
from diet_ray.training.holdout import count_guard, held_out
from diet_ray.training.student import Examples, Student

LAST_SHARE = 0.1
"""Where the run held no rows out, this share of the last block gives the scores: its latest rows."""


class Score(Settings):
    """A candidate's score on the held-out rows after some steps."""

    step: int
    score: float
    """Mean AUC over tasks and seeds; 0 where a student diverged."""


class Outcome(Settings):
    """The outcome of a trial, as a sweep keeps it."""

    scores: list[Score]
    """Its scores, where the sweep has any."""
    verdicts: list[Verdict]
    """One per seed; empty where the trial was stopped early."""


@dataclass(frozen=True)
class TrialContext:
    """The data that all trials of a sweep share."""

    examples: Examples
    table: Tensor
    """`[U, d]`: the rows of the memory's table that the ids of `rows` and `held` name by their places; live candidates do not read it."""
    rows: Rows
    """The rows to judge on."""
    held: Rows | None
    """The rows to score on during the training; None where no scores are needed."""
    schema: Schema
    student: StudentConfig
    steps: list[int]
    """The steps at which a trial reports, ascending; the last is the horizon."""
    live: LiveContext | None = None
    """The rows that candidates meet live, and what they start from; None where candidates are judged frozen."""


@dataclass(frozen=True)
class Report:
    """The report of a trial after some steps."""

    step: int
    score: float
    """See `Score`; nan where there are no held-out rows."""
    verdicts: list[Verdict]
    """One per seed at the horizon, empty before."""


def run_trial(
    spec: CandidateSpec, seeds: list[int], context: TrialContext, device: torch.device, *, key: str
) -> Iterator[Report]:
    """Train one student per seed side by side, and report at each of the context's steps; live, these are steps of the launch.

    On the CPU a verdict equals that of `judge`, however many reports come before it; a GPU draws labels and dropout from other numbers.

    Args:
        spec: the candidate.
        seeds: of its students.
        context: what the trials share.
        device: where students train; a live candidate is on the CPU.
        key: the trial's identity, which names the files that it writes.
    """
    students: list[LiveStudent] | list[_TimedStudent]
    if context.live is not None:
        scored = context.held is not None
        students = [LiveStudent(spec, context.live, seed, key=key, scored=scored) for seed in seeds]
    else:
        examples = context.examples.to(device)
        students = [_TimedStudent(spec, examples, context, seed, device) for seed in seeds]
    for step in context.steps:
        for student in students:
            student.advance(step)
        score, verdicts = float("nan"), []
        if context.held is not None:
            score = float(np.mean([held_score(student.predict(context.held), context.held) for student in students]))
        if step == context.steps[-1]:
            verdicts = [student.verdict() for student in students]
        yield Report(step, score, verdicts)


def held_score(logits: np.ndarray, rows: Rows) -> float:
    """Mean AUC over the tasks of which the rows have both labels; 0 where a logit is not finite."""
    if not np.isfinite(logits).all():
        return 0.0
    return float(np.mean([auc(rows.labels[:, t], logits[:, t]) for t in _scored(rows)]))


def held_rows(memory: Memory, log: Log) -> Rows:
    """The rows to score candidates on during a trial: rows of the last block that the memory has learned from, never of a later block.

    The last reference did not learn from these rows, they are no units of the memory, and refinement did not train on them (they are the
    guard's). Where the run held no rows out, they are the latest tenth of the block, from which the reference has learned.

    Raises:
        ConfigError: the log is not the one that was distilled, or no task has both labels among these rows.
    """
    stage = memory.stage
    check_same_log(log, [stage], remedy="name the log that was distilled")
    block = log.blocks[stage.index]
    rows = log.read_block(block)
    share = stage.config.reference.holdout
    if share:
        rows = rows.take(held_out(rows.row_id, share, stage.config.seed))
        if stage.refine is not None:
            rows = rows.take(np.arange(len(rows) - count_guard(len(rows)), len(rows)))
    else:
        rows = rows.take(np.arange(len(rows) - int(np.ceil(len(rows) * LAST_SHARE)), len(rows)))
    rows = rows.take(~np.isin(rows.row_id, memory.units.unit_id))
    if not _scored(rows):
        raise ConfigError(
            f"key 'search': {len(rows)} rows of block {block.name!r} are left to score candidates on, and no task has both labels "
            "among them; leave the search out, or distil larger blocks"
        )
    return rows


def _scored(rows: Rows) -> list[int]:
    return [t for t in range(rows.labels.shape[1]) if len(np.unique(rows.labels[:, t])) == 2]


class _TimedStudent:
    """A student of a candidate, judged on the rows of the context, and a clock of its training."""

    def __init__(
        self, spec: CandidateSpec, examples: Examples, context: TrialContext, seed: int, device: torch.device
    ) -> None:
        self.spec, self.context, self.seed = spec, context, seed
        dim, n_tasks = context.table.shape[1], context.schema.n_tasks
        self.module = build(spec, context.schema.field_names, dim, n_tasks, derive_seed(seed, "candidate"))
        self.student = Student(
            self.module.to(device), examples, context.student, seed=derive_seed(seed, "train"), lr_scale=spec.lr_scale
        )
        self.clock = Clock()

    def advance(self, step: int) -> None:
        """Train until `step` steps are done."""
        with self.clock:
            self.student.advance(step)

    def predict(self, rows: Rows) -> np.ndarray:
        """`[N, T]` logits, on the CPU, where the rows and the table are."""
        theta, context = self.student.theta.cpu(), self.context
        return predict_rows(self.module.cpu(), theta, context.table, rows, context.schema)

    def verdict(self) -> Verdict:
        """Its verdict on the rows to judge on."""
        rows, schema = self.context.rows, self.context.schema
        n_parameters = self.student.theta.numel()
        return verdict(self.spec, self.predict(rows), rows, schema, self.seed, "memory", self.clock, n_parameters)
