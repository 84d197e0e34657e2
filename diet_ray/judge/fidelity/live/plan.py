"""The trainings of the protocol `live`, and the place where the result of each is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diet_ray.candidates import CandidateSpec
from diet_ray.config import AlignConfig, StreamConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.config import FidelityConfig, Method
from diet_ray.judge.fidelity.live.config import LiveConfig
from diet_ray.judge.fidelity.plan import Bench, TrainingSet
from diet_ray.logs.blocks import BlockManifest
from diet_ray.settings import Settings
from diet_ray.storage.hashes import content_hash

RECIPE = 1
"""A version, increased whenever the same inputs would give other results, so that older results are not used."""

FULL = "full"
"""The start of the truth: a pass over every earlier block."""

OF_A_RUN = ("memory", "refined", "unaligned", "random", "table", "table+recent")
"""The starts that need the table of a run."""


class LiveTraining(Settings):
    """One candidate with one seed from one start, live on a judging block; from the full log, on all judging blocks."""

    start: str
    """`full` or one of `StartName`."""
    candidate: CandidateSpec
    seed: int
    block: int
    """Index of the judging block; from the full log, of the last one."""


@dataclass(frozen=True)
class LivePlan:
    """A bench with its judging blocks and its trainings; every worker has its own."""

    bench: Bench
    judged: list[BlockManifest]
    """The judging blocks, in order of time."""

    @staticmethod
    def open(config: FidelityConfig, cache: Path) -> LivePlan:
        """Read the log and the candidates that the config names.

        Raises:
            ConfigError: there are too few blocks, or see `Bench.open`.
        """
        bench, live = Bench.open(config, cache), config.live
        number = live.blocks or min(3, 1 + (bench.blocks - 1) // live.every)
        indices = [bench.blocks - live.every * back for back in reversed(range(number))]
        if indices[0] < 1:
            raise ConfigError(
                f"key 'live': {number} judging blocks, {live.every} apart, that end with block {bench.blocks} of {bench.log.path} "
                f"({bench.log.blocks[bench.blocks].name!r}) begin before its second block; ask for fewer or ingest more"
            )
        return LivePlan(bench, [bench.log.blocks[index] for index in indices])

    @property
    def live(self) -> LiveConfig:
        """The protocol's own config."""
        return self.bench.config.live

    def trainings(self) -> list[list[LiveTraining]]:
        """All trainings in groups that share a start: the full log first, one candidate each, then start by start."""
        bench, groups = self.bench, []
        for spec in bench.pool:
            groups += [
                [LiveTraining(start=FULL, candidate=spec, seed=seed, block=self.judged[-1].index)]
                for seed in bench.seeds
            ]
        for start in self.live.starts:
            for seed in bench.seeds:
                for block in self.judged:
                    groups.append(
                        [LiveTraining(start=start, candidate=spec, seed=seed, block=block.index) for spec in bench.pool]
                    )
        return groups

    def rows_of(self, start: str, seed: int, block: int) -> TrainingSet:
        """The set of units or rows that a start learns before it goes live on a block."""
        rows = start if start in ("memory", "refined", "random") else "memory"
        method = Method(rows=rows, labels="soft", embeddings="shared")
        return TrainingSet(method=method, ratio=self.bench.ratio, seed=seed, blocks=block, judged=1)

    def distillation(self, start: str, seed: int) -> StreamConfig:
        """The config of the run that a start needs."""
        stream = self.bench.distillation(self.rows_of(start, seed, self.judged[-1].index))
        if start == "unaligned":
            return stream.model_copy(update={"align": AlignConfig(method="none", relabel=0.0)})
        return stream

    def runs(self, todo: list[LiveTraining]) -> list[tuple[Path, StreamConfig]]:
        """The runs that some trainings need, each once, complete or not."""
        needed = {(training.start, training.seed): None for training in todo if training.start in OF_A_RUN}
        streams = [self.distillation(start, seed) for start, seed in needed]
        return list({run: (run, stream) for stream in streams for run in [self.bench.keys.run_folder(stream)]}.values())

    def folder(self, training: LiveTraining) -> Path:
        """The folder in which the result of a training is kept."""
        bench = self.bench
        body: dict[str, Any] = {
            "live_recipe": RECIPE,
            "candidate": bench.keys.candidate(training.candidate),
            "start": training.start,
            "seed": training.seed,
            **bench.keys.identity(training.block + 1),
        }
        if training.start == FULL:
            body |= {"reference": bench.keys.full_log(), "judged": [block.index for block in self.judged]}
        else:
            body |= {
                "block": training.block,
                "share": self.live.shares[-1],
                "recipe": self.live.recipe.model_dump(mode="json"),
                "stream": self.distillation(training.start, training.seed).model_dump(
                    mode="json", exclude={"log", "blocks"}
                ),
            }
        key = content_hash(body)[:24]
        return bench.cache / "live" / key[:2] / key

    def is_done(self, training: LiveTraining) -> bool:
        """Whether the result of a training is kept."""
        return (self.folder(training) / "kept.json").is_file()
