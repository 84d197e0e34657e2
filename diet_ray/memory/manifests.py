"""What a run folder's manifests say: of the run, and of each committed stage."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field as Key

from diet_ray.config import StreamConfig
from diet_ray.schema import Schema
from diet_ray.settings import Metric, Settings
from diet_ray.storage.entries import Count, FileEntry

FORMAT: Final = 2
"""Version of the run folder's layout; a reader refuses any other."""


class RunManifest(Settings):
    """What a run was asked to do, and by which versions."""

    format: Literal[2] = FORMAT
    """Version of the layout."""
    config: StreamConfig
    """The whole config, defaults filled in."""
    versions: dict[str, str]
    """Versions of the packages on which the bytes of the result depend."""


class RefineReport(Settings):
    """What refinement did to the memory in one stage."""

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


class StageManifest(Settings):
    """One committed stage: the memory M_t and the reference phi_t."""

    format: Literal[2] = FORMAT
    """Version of the layout."""
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
    config: StreamConfig
    """The run's config, with the horizon for which the memory was refined (`student`)."""
    log_schema: Schema
    """The log's schema."""
    reference_logloss: float
    """Mean loss of the block's rows just before the reference learned from them, nats."""
    refine: RefineReport | None
    """What refinement did; None where there was none."""
    memory: list[FileEntry] = Key(min_length=1)
    """The memory's shards."""
    checkpoints: list[FileEntry] = Key(min_length=1)
    """The K checkpoints, oldest first."""
    optimiser: FileEntry
    """Moments of the reference's optimisers."""

    @property
    def files(self) -> list[FileEntry]:
        """All files of the stage but the manifest itself."""
        return [*self.memory, *self.checkpoints, self.optimiser]
