"""The manifests of a run, for code that only displays them. They are read without torch, which a whole config needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic import Field as Key

from diet_ray.figures import number
from diet_ray.memory.layout import stage_manifest
from diet_ray.schema import Schema
from diet_ray.settings import Metric, Settings, parse_json
from diet_ray.storage.entries import Count, FileEntry

NO_DIFFERENCE = "no difference"


def effect(kept: bool, before: float, after: float) -> str:
    """What refinement did, in words: `kept`, `not kept`, or `no difference` where four digits of the guard's losses do not show one."""
    if math.isfinite(before) and number(before, 4) == number(after, 4):
        return NO_DIFFERENCE
    return "kept" if kept else "not kept"


class RefineReport(Settings):
    """The effect of refinement on the memory in one stage."""

    skipped: int
    """Rounds without effect because their meta-gradient was not finite."""
    meta_loss: list[Metric]
    """Meta-loss of each round, nats; nan where the unrolled proxy diverged."""
    guard_before: Metric
    """Mean logloss on the guard rows of fresh students of the unrefined memory, one per proxy."""
    guard_after: Metric
    """The same for the refined memory; nan where its students diverged."""
    kept: bool
    """Whether the refined memory was no worse and therefore kept."""

    @property
    def effect(self) -> str:
        """What refinement did, in words."""
        return effect(self.kept, self.guard_before, self.guard_after)


class ConfigFacts(Settings):
    """The keys of a run's config that are read here."""

    model_config = ConfigDict(extra="ignore")

    log: Path
    """Folder of the log."""
    blocks: int | None
    """Blocks to distil; None for all but the last."""
    seed: int = 0
    """Of all random draws."""


class RunFacts(Settings):
    """The keys of `run.json` that are read here."""

    model_config = ConfigDict(extra="ignore")

    config: ConfigFacts


class MadeWith(Settings):
    """What computed a stage."""

    versions: dict[str, str]
    """Versions of the packages on which bytes depend."""
    cpu: str
    """Instruction set that torch uses on the CPU of the first worker, such as AVX2 or AVX512."""
    gpu: str | None = None
    """Name of the first worker's GPU; None where it has none."""
    arithmetic: int = 1
    """Which sums a pass of the reference is made of: `diet_ray.memory.same_bytes.ARITHMETIC` of the build. 1 where a build did not say."""


class StageFacts(Settings):
    """One committed stage: the memory M_t and the reference phi_t. `StageManifest` is the same with its config parsed and checked."""

    model_config = ConfigDict(extra="ignore")

    index: int = Key(ge=0)
    """Position in the stream; the block's index in the log."""
    block: str
    """Name of the block that the stage took in."""
    block_sha256: str
    """Checksum of the block's manifest: the rows from which the stage came."""
    parent_sha256: str | None
    """Checksum of the previous stage's manifest; None for the first."""
    rows_seen: Count
    """Rows of all blocks so far."""
    n_ids: Count
    """Rows of the embedding table."""
    units: Count
    """Units in the memory."""
    config: Any
    """The run's config, as plain data."""
    log_schema: Schema
    """The log's schema."""
    reference_logloss: float
    """Mean loss of the block's rows just before the reference learned from them, nats."""
    refine: RefineReport | None
    """The effect of refinement; None where there was none."""
    memory: list[FileEntry] = Key(min_length=1)
    """The memory's shards."""
    checkpoints: list[FileEntry] = Key(min_length=1)
    """The K checkpoints, oldest first; only the last of them where `checkpoints.keep` is a number."""
    optimiser: FileEntry
    """Moments of the reference's optimisers."""
    whole: int | None = Key(default=None, ge=0)
    """Index of the last stage before with a whole table, where this one has only the rows that changed since (`tables.py`)."""
    made_with: MadeWith | None = None
    """What computed the stage; None in stages of earlier releases."""

    @model_validator(mode="after")
    def _whole_before(self) -> StageFacts:
        if self.whole is not None and self.whole >= self.index:
            raise ValueError(f"stage {self.index} cannot build on the table of stage {self.whole}")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where they say nothing: the manifest of an earlier release is what it always was.
        newer = ("made_with", "whole")
        return {name: value for name, value in write(self).items() if name not in newer or value is not None}

    @property
    def weights(self) -> list[FileEntry]:
        """The files of the reference: its checkpoints and moments."""
        return [*self.checkpoints, self.optimiser]

    @property
    def files(self) -> list[FileEntry]:
        """All files of the stage, as it was committed, but the manifest itself."""
        return [*self.memory, *self.weights]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory's shards."""
        return sum(entry.bytes for entry in self.memory)

    @property
    def table_bytes(self) -> int:
        """Bytes of the last checkpoint: the embedding table and the nets; of the table alone where only changed rows are in the file."""
        try:
            return (
                self.checkpoints[-1].bytes
                if self.whole is None
                else 4 * self.n_ids * int(self.config["reference"]["dim"])
            )
        except (KeyError, TypeError, ValueError):  # a damaged config, which verify names
            return self.checkpoints[-1].bytes


def stage_facts(run: Path, index: int) -> StageFacts:
    """The facts of a committed stage. Raises CorruptArtefactError where its manifest is missing or damaged."""
    return parse_json(StageFacts, stage_manifest(run, index))
