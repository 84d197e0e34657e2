"""The config of `diet-ray fidelity`, and the names of the training sets that it compares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Key
from pydantic import ValidatorFunctionWrapHandler, field_validator, model_serializer, model_validator

from diet_ray.candidates import CandidateFile, CandidateSpec
from diet_ray.config import StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.live.config import LiveConfig
from diet_ray.judge.fidelity.selections import SELECTIONS, Selection, selection
from diet_ray.settings import Settings, parse

MEMORIES = ("memory", "refined")
"""The synthetic memory before and after refinement."""

NAME = re.compile(r"([a-z0-9-]+)/(hard|soft|drawn)/(own|shared)(\+adapter)?")


class Method(Settings):
    """One way to make a training set; written `rows/labels/embeddings`, such as `random/soft/shared+adapter`."""

    rows: str
    """`full`, one of `SELECTIONS`, `memory`, `refined`, or a name among the config's `given`."""
    labels: Literal["hard", "soft", "drawn"]
    """`hard`: the rows' own labels; `soft`: probabilities of the reference model; `drawn`: such probabilities, but a share of them, set in
    the students' config, is drawn anew as 0 or 1 at each visit."""
    embeddings: Literal["own", "shared"]
    """`own`: learned by the candidate; `shared`: the reference model's, frozen."""
    adapter: bool = False
    """Whether a per-field map stands between shared embeddings and the net."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = NAME.fullmatch(value)
        if not match:
            raise ValueError(
                "must be written rows/hard|soft|drawn/own|shared, with +adapter at the end where one is wanted"
            )
        return dict(zip(("rows", "labels", "embeddings"), match.groups(), strict=False), adapter=bool(match[4]))

    @model_validator(mode="after")
    def _sensible(self) -> Method:
        if self.adapter and self.embeddings == "own":
            raise ValueError(f"{self}: own embeddings can learn any map in front of the net; leave +adapter out")
        if self.of_memory and self.embeddings == "own":
            raise ValueError(f"{self}: units lie in the reference's space; use shared")
        if self.labels == "drawn" and self.embeddings == "own":
            raise ValueError(f"{self}: labels are drawn for students of shared embeddings; use hard or soft")
        if self.of_full_log and self.labels != "hard":
            raise ValueError(f"{self}: soft labels stand for the full log, which has labels of its own; use hard")
        return self

    @property
    def selection(self) -> Selection | None:
        """The selection of its rows; None for the full log, a memory and given rows."""
        return selection(self.rows)

    @property
    def of_full_log(self) -> bool:
        """Whether candidates learn from all rows."""
        return self.rows == "full"

    @property
    def of_memory(self) -> bool:
        """Whether they learn from a synthetic memory."""
        return self.rows in MEMORIES

    @model_serializer
    def _write(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"{self.rows}/{self.labels}/{self.embeddings}" + ("+adapter" if self.adapter else "")


def methods(*names: str) -> list[Method]:
    """Methods from their names."""
    return [Method.model_validate(name) for name in names]


FULL = Method(rows="full", labels="hard", embeddings="own")
"""The training set with which all others are compared."""

DIET = Method(rows="memory", labels="drawn", embeddings="shared", adapter=True)
"""The unrefined synthetic memory, used as students should use it."""

BASELINE = Method(rows="random", labels="soft", embeddings="shared")
"""The baseline of a memory: the same number of random rows, with the reference's probabilities."""

DEFAULT_METHODS = methods(
    "random/hard/own",
    "random/soft/own",
    *(f"{rows}/{labels}/shared" for rows in SELECTIONS for labels in ("hard", "soft")),
    "random/drawn/shared",
    "random/hard/shared+adapter",
    "random/soft/shared+adapter",
    "random/drawn/shared+adapter",
    "memory/hard/shared",
    "memory/soft/shared",
    "memory/drawn/shared",
    "memory/drawn/shared+adapter",
    "refined/drawn/shared+adapter",
    "full/hard/shared",
    "full/hard/shared+adapter",
)

DEFAULT_DIFFERENCES = [
    (DIET, BASELINE),
    (DIET, Method.model_validate("random/drawn/shared+adapter")),
    (Method.model_validate("refined/drawn/shared+adapter"), DIET),
]


class CurveConfig(Settings):
    """Performance against the size of the reduced set."""

    ratios: list[float] = Key(default=[0.0025, 0.005, 0.02, 0.05])
    """Sizes as shares of the rows. The stream's own ratio is always included."""
    methods: list[Method] = Key(default=[BASELINE, DIET])
    """Training sets to make at each of these sizes."""


class StagesConfig(Settings):
    """Performance along the stream: candidates are trained on the set after each block and judged on the next block."""

    candidates: list[str] = Key(default=["dnn"])
    """Candidates, by name."""
    methods: list[Method] = Key(default=[FULL, BASELINE, DIET])
    """Training sets for these candidates."""


def _default_methods(known: dict[str, Any]) -> list[Method]:
    """The methods of a config whose keys so far are `known`."""
    stream = known.get("stream")  # absent where it is invalid, which is said in any case
    refines = isinstance(stream, StreamConfig) and stream.refine.rounds > 0
    return [method for method in DEFAULT_METHODS if refines or method.rows != "refined"]


class FidelityConfig(Settings):
    """Which candidates, reduced sets and seeds the bench compares."""

    stream: StreamConfig
    """How a memory is distilled. Its `log` is the log, its `blocks` are learned from (default: all but the test blocks), its `seed` is the
    first seed."""
    test_blocks: int = Key(default=1, ge=1)
    """Number of blocks after those, on whose rows every candidate is judged."""
    candidates: list[CandidateSpec] | Path | None = None
    """The candidates, written as in a pool, or the file of a pool; None for the default pool."""
    more_candidates: list[CandidateSpec] = Key(default=[])
    """Candidates in addition to the pool, such as some with fields of this log dropped."""
    methods: list[Method] = Key(default_factory=_default_methods, min_length=1)
    """Reduced sets to compare at the stream's ratio. The default has the refined memory only where the stream refines."""
    curve: CurveConfig = CurveConfig()
    stages: StagesConfig = StagesConfig()
    differences: list[tuple[Method, Method]] | None = None
    """Pairs of methods whose measures are subtracted, first minus second, with an interval from the same draws. By default the memory
    minus random rows with soft or drawn labels, and refined minus unrefined, where both are among the methods."""
    given: dict[str, Path] = Key(default={})
    """Reduced sets made elsewhere: Parquet files with a column `row_id` and, where labels differ from the log's, one column per task."""
    seeds: int = Key(default=3, ge=1)
    """S: seeds of every reduced set, each with a reference, a selection and students of its own, and of the full log."""
    students: int = Key(default=1, ge=1)
    """Students per candidate and seed on a reduced set."""
    replicates: int = Key(default=2000, ge=100)
    """Bootstrap replicates behind each interval."""
    protocols: list[Literal["frozen", "live"]] = Key(default=["frozen", "live"], min_length=1)
    """`frozen`: candidates learn from a set, then predict later blocks without learning (the paper's protocol). `live`: candidates start
    from a memory, and are judged by rows that they predict, then learn."""
    live: LiveConfig = LiveConfig()
    """The protocol `live`."""
    cpus_per_trial: float = Key(default=1, gt=0, allow_inf_nan=False)
    """Logical CPUs of each trial. They limit how many trials run at once; a training uses one thread."""
    cache: Path | None = None
    """Folder of the results so far, which several benches may share; None for a folder in the bench's own folder."""

    @field_validator("candidates", mode="wrap")
    @classmethod
    def _as_in_a_pool(cls, raw: Any, read: ValidatorFunctionWrapHandler) -> Any:
        if raw is None or isinstance(raw, str | Path):
            return read(raw)
        try:
            return parse(CandidateFile, {"candidates": raw}, where="as in a pool").candidates
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _known(self) -> FidelityConfig:
        ratio = self.stream.budget.ratio
        if ratio is None:
            raise ValueError("stream.budget: the bench compares sets as shares of the rows; give ratio")
        known_rows = ("full", *SELECTIONS, *MEMORIES, *self.given)
        pairs = [method for pair in self.differences or [] for method in pair]
        for method in [*self.methods, *self.curve.methods, *self.stages.methods, *pairs]:
            if method.rows not in known_rows:
                raise ValueError(f"method {method}: unknown rows {method.rows!r}; known: {', '.join(known_rows)}")
        for method in pairs:
            if method not in self.methods:
                raise ValueError(f"differences: {method} is not among the methods")
        if FULL in self.methods:
            raise ValueError(
                f"methods: {FULL} is always there, twice: as the truth and, with other seeds, as the noise ceiling"
            )
        for method in self.curve.methods:
            if method.of_full_log or method.rows in self.given:
                raise ValueError(f"curve.methods: {method} has no ratio")
        for method in self.stages.methods:
            if method.rows in self.given:
                raise ValueError(f"stages.methods: {method} has no stages")
        if self.stream.refine.rounds == 0 and any(method.rows == "refined" for method in self.methods):
            raise ValueError("methods: refined needs stream.refine.rounds > 0")
        if self.stream.refine.rounds == 0 and "refined" in self.live.starts:
            raise ValueError("live.starts: refined needs stream.refine.rounds > 0")
        return self

    @property
    def compared(self) -> list[tuple[Method, Method]]:
        """The pairs whose measures are subtracted."""
        if self.differences is not None:
            return self.differences
        return [(first, second) for first, second in DEFAULT_DIFFERENCES if {first, second} <= {*self.methods}]

    @property
    def memory_set(self) -> Method:
        """The set that stands for the memory where only one set is shown: the last method of the best kind among the methods."""
        for rows in ("refined", "memory", "random"):
            alike = [method for method in self.methods if method.rows == rows]
            if alike:
                return alike[-1]
        return self.methods[-1]

    def quick(self) -> FidelityConfig:
        """The cheapest bench that can still refute a memory: live, one judging block, one seed, three trainings per candidate.

        They are a full backfill, a launch from the memory, and one from as many random rows; four where the stream refines. With one seed
        no order is called trusted.
        """
        starts = ["memory", *(["refined"] if self.stream.refine.rounds else []), "random"]
        live = self.live.model_copy(update={"blocks": 1, "shares": self.live.shares[:1], "starts": starts})
        return self.model_copy(update={"protocols": ["live"], "seeds": 1, "live": live})

    def absolute(self) -> FidelityConfig:
        """The same with absolute paths, for workers with another working directory."""
        return self.model_copy(
            update={
                "stream": self.stream.model_copy(update={"log": self.stream.log.resolve()}),
                "candidates": self.candidates.resolve() if isinstance(self.candidates, Path) else self.candidates,
                "given": {name: path.resolve() for name, path in self.given.items()},
                "cache": self.cache and self.cache.resolve(),
            }
        )
