"""Judges a candidate: trains it for the horizon on a set of examples and measures it on real rows."""

from __future__ import annotations

import time

import numpy as np
import torch
from pydantic import Field as Key
from torch import Tensor, nn

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import StudentConfig
from diet_ray.judge.progressive import Measured, Progressive, measure
from diet_ray.logs.blocks import Rows
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.settings import Metric, Settings
from diet_ray.training.embedding import lookup
from diet_ray.training.student import Examples, predict, train_student


class LiveVerdict(Settings):
    """The results of a live candidate beyond the metrics of a verdict."""

    losses: str
    """The file of the losses of single rows (`diet_ray.judge.progressive.read_losses`), in the sweep's folder."""
    progressive: Progressive
    """Progressive validation of all rows and of parts of them."""


class Verdict(Settings):
    """The metrics of one candidate, trained with one seed on one training set."""

    candidate: str
    """Name of the candidate."""
    arch: str
    """Its architecture."""
    trained_on: str
    """The training set, such as `memory` or `full log`."""
    seed: int
    """Seed of initial parameters and batch order."""
    memory: int = 0
    """Number of the memory, where there are several, from 0."""
    metrics: dict[str, dict[str, Metric]]
    """`{task: {auc, logloss (nats), gauc, calibration}}` on the rows that it was judged on; nan where undefined."""
    undefined: dict[str, dict[str, str]] = Key(default_factory=dict)
    """`{task: {metric: reason}}` of the metrics that are nan."""
    train_seconds: float
    """CPU seconds of the training."""
    train_wall_seconds: float
    """Wall seconds of the training."""
    parameters: int
    """Number of trained parameters of the candidate, without the embedding table."""
    live: LiveVerdict | None = None
    """More results of a candidate that was judged live; None for one that was judged frozen."""


class Clock:
    """CPU and wall seconds of all `with` bodies so far."""

    def __init__(self) -> None:
        self.cpu, self.wall = 0.0, 0.0

    def __enter__(self) -> Clock:
        self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu += time.process_time() - self._began[0]
        self.wall += time.perf_counter() - self._began[1]


def judge(
    spec: CandidateSpec,
    examples: Examples,
    table: Tensor,
    rows: Rows,
    schema: Schema,
    student: StudentConfig,
    *,
    seed: int,
    trained_on: str,
) -> Verdict:
    """Train `spec` on `examples` and measure it on `rows`, embedded by `table`.

    Args:
        spec: the candidate.
        examples: M units or rows, already as inputs.
        table: `[n_ids, d]`, the shared embedding table in whose space the examples are.
        rows: real rows to judge on.
        schema: the schema of the log.
        student: the settings of the training; `steps` is the horizon.
        seed: seed of the candidate's initial parameters and batch order.
        trained_on: the name of the training set, for the verdict.
    """
    module = build(spec, schema.field_names, table.shape[1], schema.n_tasks, derive_seed(seed, "candidate"))
    with Clock() as clock:
        theta = train_student(module, examples, student, seed=derive_seed(seed, "train"), lr_scale=spec.lr_scale)
    logits = predict_rows(module, theta, table, rows, schema)
    return verdict(spec, logits, rows, schema, seed, trained_on, clock, theta.numel())


def predict_rows(module: nn.Module, theta: Tensor, table: Tensor, rows: Rows, schema: Schema) -> np.ndarray:
    """`[N, T]` float32 logits of real rows that the shared `table` embeds; computed in batches."""
    field_of_slot = torch.tensor(schema.field_of_slot)
    ids = torch.split(torch.tensor(rows.ids), 8192)
    return torch.cat([predict(module, theta, lookup(table, part, field_of_slot)) for part in ids]).numpy()


def verdict(
    spec: CandidateSpec,
    logits: np.ndarray,
    rows: Rows,
    schema: Schema,
    seed: int,
    trained_on: str,
    clock: Clock,
    parameters: int,
) -> Verdict:
    """Measure logits `[N, T]` of a trained candidate on the N rows."""
    return verdict_of(spec, measure(rows, logits, schema.tasks), seed, trained_on, clock, parameters)


def verdict_of(
    spec: CandidateSpec,
    measured: Measured,
    seed: int,
    trained_on: str,
    clock: Clock,
    parameters: int,
    *,
    live: LiveVerdict | None = None,
) -> Verdict:
    """The verdict from the metrics of the rows that a candidate was judged on."""
    return Verdict(
        candidate=spec.name,
        arch=spec.arch,
        trained_on=trained_on,
        seed=seed,
        metrics=measured.metrics,
        undefined=measured.undefined,
        train_seconds=round(clock.cpu, 4),
        train_wall_seconds=round(clock.wall, 4),
        parameters=parameters,
        live=live,
    )
