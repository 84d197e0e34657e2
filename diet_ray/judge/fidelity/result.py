"""The result of the bench, as `fidelity.json` and `cost.json` store it.

`fidelity.json` holds nothing that depends on the clock: the same config and log give the same bytes, in one run or after a restart.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field as Key

from diet_ray.candidates import CandidateSpec
from diet_ray.config import StudentConfig
from diet_ray.judge.fidelity.config import Method
from diet_ray.judge.fidelity.measures import Interval
from diet_ray.judge.fidelity.order import OrderVerdict
from diet_ray.settings import Metric, Settings

CEILING = "full log, other seeds"
"""The noise ceiling: the full log compared with itself, so that only chance makes a difference."""

GROUPS = ("all", "architectures")
"""All candidates, and those that use every field and the run's own learning rate."""

Values = dict[str, dict[str, list[Metric]]]
"""`{task: {auc | logloss (nats) | gauc | calibration: [one per seed, the mean of its students]}}`."""

Measured = dict[str, dict[str, dict[str, Interval]]]
"""`{task: {group: {measure: interval}}}`; the measures are those of `diet_ray.judge.fidelity.measures.MEASURES`."""


class MadeOf(Settings):
    """The log and the memory that a bench judged, by which a sweep knows whether the bench speaks for it."""

    log: list[str]
    """SHA-256 of the schema, and of each block up to the last one judged on."""
    stream: dict[str, Any]
    """The keys of the run's config that decide how a memory is made."""


class Scores(Settings):
    """A candidate on a training set."""

    set: str
    """Name of the set."""
    candidate: str
    """Name of the candidate."""
    values: Values
    """Its metrics."""


class SetResult(Settings):
    """A training set compared with the full log."""

    name: str
    """The method's name, followed by the ratio where that is not the stream's own."""
    method: Method | None
    """How it was made; None for the noise ceiling."""
    ratio: float | None
    """Its size as a share of the rows; None for sets of the full log and given ones."""
    units: int
    """Rows or units in it; the smallest where seeds differ."""
    fidelity: Measured
    """How well results on it predict those on the full log."""


class StagePoint(Settings):
    """A candidate trained on the set after some blocks, judged on the next block."""

    set: str
    """The method's name."""
    candidate: str
    """Name of the candidate."""
    stage: int
    """Blocks learned from."""
    block: str
    """The block judged on."""
    values: Values
    """Its metrics."""


class Difference(Settings):
    """The measures of one set minus those of another, from the same bootstrap draws."""

    first: str
    second: str
    fidelity: Measured


class FidelityResult(Settings):
    """The part of the result that does not depend on the clock."""

    verdicts: list[OrderVerdict] = Key(default_factory=list)
    """Whether the order of the candidates may be trusted, per task; empty where no memory was measured, and in a file of an earlier
    release."""
    made_of: MadeOf | None = None
    """Of the set that stands for the memory; None where there is none, or in a file of an earlier release."""
    log: str
    """Name of the log's schema."""
    tasks: list[str]
    """The log's tasks."""
    blocks: list[str]
    """Blocks learned from."""
    rows: int
    """Rows in them."""
    test_blocks: list[str]
    """Blocks judged on."""
    test_rows: int
    """Rows in them."""
    seeds: int
    """Seeds of each set."""
    students: int
    """Students per candidate and seed."""
    student: StudentConfig
    """How students of reduced sets are trained."""
    ratio: float
    """The stream's own ratio."""
    replicates: int
    """Bootstrap replicates."""
    candidates: list[CandidateSpec]
    """The pool, in the order of the tables."""
    noise: dict[str, Metric]
    """Per task: standard deviation of one candidate's full-log AUC over seeds, pooled over candidates."""
    full: list[Scores]
    """Each candidate on the full log."""
    sets: list[SetResult]
    """The sets, the noise ceiling first."""
    scores: list[Scores]
    """Each candidate on each set."""
    stages: list[StagePoint]
    """Performance along the stream."""
    differences: list[Difference]
    """Sets compared with each other."""
    pooled_pearson: dict[str, tuple[Metric, Metric]]
    """Per set: Pearson over all (task, candidate) points, raw and after centring each task. One task gives the same twice."""


class CandidateCost(Settings):
    """Mean seconds of one training of a candidate."""

    candidate: str
    full_cpu: float
    """CPU seconds on the full log with embeddings of its own."""
    full_wall: float
    memory_cpu: float
    """CPU seconds on the memory, with an adapter where `memory_set` has one."""
    memory_wall: float
    parameters: int
    """Number of trained parameters of the student, without the embedding table."""


class Distillation(Settings):
    """The cost of making a memory, mean over seeds."""

    set: str
    """`memory` or `refined`."""
    reference_seconds: float
    """Wall seconds in the reference's passes, on one core."""
    seconds: float
    """Wall seconds of all steps, the reference's passes among them, on one core."""
    units: int
    bytes: int
    """Bytes of the memory's shards."""
    pays_after: Metric
    """Candidates after which distilling and training on the memory is cheaper than training on the full log; nan for never."""


class CostResult(Settings):
    """The part of the result that depends on the clock."""

    machine: str
    """Cores and architecture."""
    versions: dict[str, str]
    memory_set: str
    """The set that stands for the memory."""
    candidates: list[CandidateCost]
    distillations: list[Distillation]
    log_bytes: int
    """Bytes of the blocks' shards (Parquet)."""
    table_bytes: int
    """Bytes of the shared embedding table, float32."""
