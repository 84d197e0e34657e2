"""The plan of the bench: its sets, its trainings, and the content hash under which each result is kept.

A hash covers everything on which the result depends and nothing else, so that a new candidate, method or seed runs only the new work.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diet_ray.candidates import CandidateFile, CandidateSpec, default_pool
from diet_ray.config import BudgetConfig, ClusterConfig, RefineConfig, StreamConfig, StudentConfig
from diet_ray.distill.fuse import quota
from diet_ray.distill.pipeline import check_nets
from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.config import FULL, FidelityConfig, Method
from diet_ray.judge.fidelity.result import CEILING, MadeOf
from diet_ray.logs.blocks import BlockManifest, Log, block_sha256, open_log
from diet_ray.memory.manifests import FORMAT
from diet_ray.settings import Settings, load_yaml, parse
from diet_ray.storage.hashes import content_hash, sha256, versions

RECIPE = 2
"""A version, increased whenever the same inputs would give other results, so that older results are not used."""


class TrainingSet(Settings):
    """The data that candidates learn from, and the blocks that they are judged on."""

    method: Method
    ratio: float | None
    """Its size as a share of the rows; None for sets of the full log and given ones."""
    seed: int
    """Seed of its reference, its selection and its students."""
    blocks: int
    """Number of blocks that it is made from: the first of the log."""
    judged: int
    """Number of blocks after those, to judge on."""


class Training(Settings):
    """One candidate on one set."""

    set: TrainingSet
    candidate: CandidateSpec
    student: int = 0
    """Number of the student among those of the seed, from 0."""


def log_checksums(log: Log) -> list[str]:
    """SHA-256 of a log's schema and of each of its blocks."""
    schema = hashlib.sha256(log.schema.model_dump_json().encode()).hexdigest()
    return [schema, *(block_sha256(log, block) for block in log.blocks)]


def recipe_of(stream: StreamConfig) -> dict[str, Any]:
    """The keys of a run's config that decide how its memory is made, apart from its log and its seed."""
    if not stream.refine.rounds:  # other keys of an unused refinement change nothing
        stream = stream.model_copy(update={"refine": RefineConfig(rounds=0)})
    return stream.model_dump(mode="json", include={"reference", "select", "budget", "align", "refine"})


@dataclass(frozen=True)
class Bench:
    """A config with its log, its candidates and the folder of the results so far; every worker has its own `Bench`."""

    config: FidelityConfig
    log: Log
    pool: list[CandidateSpec]
    cache: Path

    @staticmethod
    def open(config: FidelityConfig, cache: Path) -> Bench:
        """Read the log and the candidates that the config names.

        Raises:
            ConfigError: the log has too few blocks, a candidate is given twice or drops an unknown field, a net of the stream does not
                fit the log, or a name is unknown.
        """
        log = open_log(config.stream.log)
        check_nets(log.schema, config.stream)
        named = config.candidates if config.candidates is not None else default_pool().candidates
        pool = load_yaml(CandidateFile, named).candidates if isinstance(named, Path) else named
        whole = {"candidates": [*pool, *config.more_candidates]}
        pool = parse(CandidateFile, whole, where="keys 'candidates' and 'more_candidates'").candidates
        for spec in pool:
            spec.kept_fields(log.schema.field_names)
        for name in config.stages.candidates:
            if name not in [spec.name for spec in pool]:
                raise ConfigError(f"key 'stages.candidates': no candidate is called {name!r}")
        bench = Bench(config, log, pool, cache)
        if not 1 <= bench.blocks <= len(log.blocks) - config.test_blocks:
            raise ConfigError(
                f"key 'stream.blocks': {bench.blocks} blocks to learn from and {config.test_blocks} to judge on, "
                f"{log.path} has {len(log.blocks)}; ask for fewer or ingest more"
            )
        return bench

    @property
    def blocks(self) -> int:
        """Number of blocks learned from."""
        return self.config.stream.blocks or len(self.log.blocks) - self.config.test_blocks

    @property
    def ratio(self) -> float:
        """The stream's own ratio."""
        assert self.config.stream.budget.ratio is not None, "the config has been checked"
        return self.config.stream.budget.ratio

    @property
    def seeds(self) -> list[int]:
        """The S seeds; those of the noise ceiling are the next S."""
        return [self.config.stream.seed + number for number in range(self.config.seeds)]

    def seen(self, training_set: TrainingSet) -> list[BlockManifest]:
        """The blocks from which a set is made."""
        return self.log.blocks[: training_set.blocks]

    def judges(self, training_set: TrainingSet) -> list[BlockManifest]:
        """The blocks that a set is judged on."""
        return self.log.blocks[training_set.blocks : training_set.blocks + training_set.judged]

    def units(self, training_set: TrainingSet) -> list[int]:
        """The number of rows or units of a set from each block, by the rule of the stream's own budget."""
        counts: list[int] = []
        budget, before = BudgetConfig(ratio=training_set.ratio), 0
        for block in self.seen(training_set):
            counts.append(quota(budget, block_rows=block.rows, rows_before=before, units_before=sum(counts)))
            before += block.rows
        return counts

    def sets(self, method: Method, *, ratio: float | None = None, seeds: list[int] | None = None) -> list[TrainingSet]:
        """One set per seed, made from all blocks and judged on the test blocks."""
        sized = not method.of_full_log and method.rows not in self.config.given
        return [
            TrainingSet(
                method=method,
                ratio=(ratio or self.ratio) if sized else None,
                seed=seed,
                blocks=self.blocks,
                judged=self.config.test_blocks,
            )
            for seed in seeds or self.seeds
        ]

    def main_sets(self) -> list[tuple[str, list[TrainingSet]]]:
        """Every set to be measured, by the name it has in the result: the noise ceiling, the methods, the curve."""
        ceiling_seeds = [seed + self.config.seeds for seed in self.seeds]
        named = [(CEILING, self.sets(FULL, seeds=ceiling_seeds))]
        named += [(str(method), self.sets(method)) for method in self.config.methods]
        for ratio in sorted({*self.config.curve.ratios} - {self.ratio}):
            named += [
                (f"{method} @ {ratio:.2%}", self.sets(method, ratio=ratio)) for method in self.config.curve.methods
            ]
        return named

    def stage_sets(self) -> list[tuple[Method, int, list[TrainingSet]]]:
        """Every set along the stream: made from the first t blocks, judged on the next."""
        return [
            (
                method,
                t,
                [training_set.model_copy(update={"blocks": t, "judged": 1}) for training_set in self.sets(method)],
            )
            for method in self.config.stages.methods
            for t in range(1, self.blocks + 1)
        ]

    def trainings(self) -> list[Training]:
        """All trainings, those on the full log first, each once."""
        stage_pool = [spec for spec in self.pool if spec.name in self.config.stages.candidates]
        sets = [(training_set, self.pool) for training_set in self.sets(FULL)]
        sets += [(training_set, self.pool) for _, group in self.main_sets() for training_set in group]
        sets += [(training_set, stage_pool) for _, _, group in self.stage_sets() for training_set in group]
        work = [
            Training(set=training_set, candidate=spec, student=student)
            for training_set, specs in sorted(sets, key=lambda pair: not pair[0].method.of_full_log)
            for spec in specs
            for student in self.students(training_set)
        ]
        return list({self.keys.of(training): training for training in work}.values())

    def students(self, training_set: TrainingSet) -> range:
        """The students per candidate on a set: one on the full log."""
        return range(1 if training_set.method.of_full_log else self.config.students)

    def student(self, training_set: TrainingSet) -> StudentConfig:
        """How students of a set are trained: labels are drawn only where the method says `drawn`."""
        student = self.config.stream.student
        return student if training_set.method.labels == "drawn" else student.model_copy(update={"draw": 0.0})

    def distillation(self, training_set: TrainingSet) -> StreamConfig:
        """The config of the run that a set needs, for its memory, or for the reference that labels and embeds it."""
        stream = self.config.stream
        refined = training_set.method.rows == "refined"
        ratio = training_set.ratio if training_set.method.of_memory else self.ratio
        changes: dict[str, Any] = {
            "seed": training_set.seed,
            "blocks": self.blocks,
            "budget": BudgetConfig(ratio=ratio),
            "cluster": ClusterConfig(memory_shards=stream.cluster.memory_shards),
        }
        if not refined:  # keys that only refinement reads must not change the hash of the run
            changes |= {"refine": RefineConfig(rounds=0), "student": StudentConfig()}
        return stream.model_copy(update=changes)

    def needs_run(self, training_set: TrainingSet) -> bool:
        """Whether a set needs the reference of a run."""
        method = training_set.method
        chosen = method.of_memory or (method.selection is not None and method.selection.needs_reference)
        return chosen or method.embeddings == "shared" or method.labels == "soft"

    def made_of(self, stream: StreamConfig, blocks: int) -> MadeOf:
        """What a memory of this config, judged within the first `blocks` blocks, is made of."""
        return MadeOf(log=self.keys.checksums[: blocks + 1], stream=recipe_of(stream))

    @cached_property
    def keys(self) -> Keys:
        """The places of the results in the cache."""
        return Keys(self)


class Keys:
    """The content hash under which each result of a bench is kept, and so its place in the cache."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.config, self.log, self.cache = bench, bench.config, bench.log, bench.cache

    def run_folder(self, stream: StreamConfig) -> Path:
        """Where a distillation is kept."""
        body = stream.model_dump(mode="json", exclude={"log"})
        return (
            self.cache
            / "runs"
            / content_hash({"stream": body, "format": FORMAT, **self.identity(self.bench.blocks)})[:24]
        )

    def rows_path(self, training_set: TrainingSet) -> Path:
        """Where the row ids of a selected set are kept; they do not depend on labels and embeddings."""
        body = {
            "rows": training_set.method.rows,
            "ratio": training_set.ratio,
            "seed": training_set.seed,
            "reference": self.config.stream.reference.model_dump(mode="json"),
            "select": self.config.stream.select.model_dump(mode="json"),
            **self._selection_recipe(training_set),
            **self.identity(training_set.blocks),
        }
        return self.cache / "rows" / f"{content_hash(body)[:24]}.parquet"

    def of(self, training: Training) -> str:
        """The content hash of a training's result."""
        training_set, stream = training.set, self.config.stream
        body = {
            "candidate": self.candidate(training.candidate),
            "student": training.student,
            "set": training_set.model_dump(mode="json"),
            "reference": stream.reference.model_dump(mode="json"),
            **self._selection_recipe(training_set),
            **self.identity(training_set.blocks + training_set.judged),
        }
        if training_set.method == FULL:  # trained as the reference is, on all rows, and without the reference
            body["reference"] = self.full_log()
        elif not training_set.method.of_full_log:
            body["horizon"] = self.bench.student(training_set).model_dump(mode="json")
        if training_set.method.of_memory:
            body["stream"] = self.bench.distillation(training_set).model_dump(mode="json", exclude={"log", "blocks"})
        elif training_set.method.rows in self.config.given:
            body["given"] = sha256(self.config.given[training_set.method.rows])
        elif training_set.method.rows == "ccs":
            body["select"] = stream.select.model_dump(mode="json", exclude={"strategy"})
        return content_hash(body)

    def verdict_path(self, training: Training) -> Path:
        """Where the verdict of a training is kept."""
        key = self.of(training)
        return self.cache / "verdicts" / key[:2] / f"{key}.json"

    @staticmethod
    def _selection_recipe(training_set: TrainingSet) -> dict[str, int]:
        selection = training_set.method.selection
        return {} if selection is None or selection.recipe is None else {"selection_recipe": selection.recipe}

    @staticmethod
    def candidate(spec: CandidateSpec) -> dict[str, Any]:
        """What matters of a candidate: not its name, nor its own `adapter`, because the method decides on that, or it owns its table."""
        body = spec.model_dump(mode="json", exclude={"name", "adapter"})
        return body | {"params": spec.hyper_parameters().model_dump(mode="json")}

    def full_log(self) -> dict[str, Any]:
        """What matters of the reference's config where a candidate learns all rows as the reference does, without it."""
        return self.config.stream.reference.model_dump(mode="json", exclude={"nets", "checkpoints", "holdout"})

    def identity(self, blocks: int) -> dict[str, Any]:
        """The rows and the code behind a result."""
        return {"recipe": RECIPE, "log": self.checksums[: blocks + 1], "versions": versions()}

    @cached_property
    def checksums(self) -> list[str]:
        """Of the log's schema and of its blocks."""
        return log_checksums(self.log)
