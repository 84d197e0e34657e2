"""The results of the protocol `live`, as `live.json` and `live_cost.json` store them. `live.json` holds nothing of the clock."""

from __future__ import annotations

from pydantic import Field as Key

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.fidelity.measures import Interval
from diet_ray.judge.fidelity.order import OrderVerdict
from diet_ray.judge.fidelity.result import MadeOf
from diet_ray.judge.launch import LaunchRecipe
from diet_ray.settings import Metric, Settings

SAME_ROWS = "full log, same rows"
"""The ceiling of so few rows: how well the full log's losses on them tell its own losses on the whole block, all seeds merged."""

OTHER_SEED = "full log, another seed"
"""One seed of the full log against the mean of the others."""

BLIND = "blind choice"
"""The chance line: what a choice without information reaches in expectation."""

Measured = dict[str, list[dict[str, Interval]]]
"""`{task: [{measure: interval}, one per share]}`; the measures are those of `diet_ray.judge.fidelity.live.measures.MEASURES`."""


class JudgingBlock(Settings):
    """A block on which candidates are judged."""

    name: str
    rows: int
    """Rows in it."""
    rows_before: int
    """Rows in all blocks before it: what a backfill learns."""
    units: int
    """Units of the memory after those blocks."""


class StartResult(Settings):
    """A start, a ceiling or the chance line."""

    name: str
    """One of `StartName`, `SAME_ROWS`, `OTHER_SEED` or `BLIND`."""
    measured: Measured
    """How well it orders the candidates."""


class StartDifference(Settings):
    """The measures of the memory minus those of another start, from the same draws."""

    first: str
    second: str
    measured: Measured


class LiveScores(Settings):
    """The losses of a candidate on a judging block."""

    start: str
    """`full` or one of `StartName`."""
    candidate: str
    """Name of the candidate."""
    block: str
    """Name of the block."""
    losses: dict[str, list[list[Metric]]]
    """`{task: [[nats per seed], one list per share]}`: the mean loss over the rows up to the share; nan where the training diverged."""


class LiveResult(Settings):
    """The part of the result that does not depend on the clock."""

    verdicts: list[OrderVerdict] = Key(default_factory=list)
    """Whether the order of the candidates after the first share may be trusted, per task; empty in a file of an earlier release."""
    made_of: MadeOf | None = None
    """Of the memory; None in a file of an earlier release."""
    log: str
    """Name of the log's schema."""
    tasks: list[str]
    """The log's tasks."""
    blocks: list[JudgingBlock]
    """The judging blocks."""
    shares: list[float]
    """Shares of a block after which candidates are compared; the report's answer is about the first."""
    ratio: float
    """Units as a share of the rows."""
    seeds: int
    """Seeds of each start, and of the full log."""
    replicates: int
    """Bootstrap replicates."""
    recipe: LaunchRecipe
    """How launched candidates learned the units."""
    candidates: list[CandidateSpec]
    """The pool, in the order of the tables."""
    noise: dict[str, Metric]
    """Per task, nats: standard deviation of one candidate's mean loss over a whole block between seeds of the full log."""
    starts: list[StartResult]
    """The ceilings first, then the starts, the chance line last."""
    differences: list[StartDifference]
    """The memory minus every other start; the refined memory, where it was measured, minus the ceiling and the main rivals."""
    scores: list[LiveScores]
    """Every candidate from every start."""


class StartCost(Settings):
    """Mean CPU seconds of one candidate from one start, over candidates, seeds and judging blocks."""

    start: str
    """`full` or one of `StartName`."""
    before: float
    """Until it is ready for the block: a backfill for `full`, a launch for a memory."""
    live: float
    """Predicting and learning the rows of the first share."""


class CandidateLiveCost(Settings):
    """CPU seconds of one candidate, means over seeds and judging blocks."""

    candidate: str
    full: float
    """Backfill of all earlier blocks, and the first share of the block."""
    memory: float
    """Launch, and the first share of the block."""


class LiveCost(Settings):
    """The part of the result that depends on the clock."""

    machine: str
    """Cores and architecture."""
    versions: dict[str, str]
    starts: list[StartCost]
    """The full log first."""
    candidates: list[CandidateLiveCost]
    """In the order of the pool."""
    memory_seconds: float
    """Wall seconds of distilling all blocks before the last judging block, on one core, the mean over seeds."""
    memory_bytes: float
    """Bytes of the memory's shards."""
    table_bytes: float
    """Bytes of the table; its moments take twice as many."""
