"""Backfill: a candidate learns every row of the log once, as a model of production has; the costly way to get ready for live rows."""

from __future__ import annotations

from dataclasses import dataclass

from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig
from diet_ray.judge.baselines import learn_blocks, own_model
from diet_ray.logs.blocks import BlockManifest, Log
from diet_ray.training.reference import Reference


@dataclass(frozen=True)
class Backfill:
    """The rows that candidates are backfilled with."""

    log: Log
    blocks: list[BlockManifest]
    """In order of time, from the log's first."""
    config: ReferenceConfig
    """Of the passes."""

    @property
    def rows(self) -> int:
        """Number of the rows."""
        return sum(block.rows for block in self.blocks)

    def start(self, spec: CandidateSpec, *, seed: int) -> Backfilling:
        """A candidate that has learned nothing yet."""
        return Backfilling(self, spec, seed=seed)


class Backfilling:
    """A candidate on its way; the interface is that of `diet_ray.judge.launch.Launching`.

    Attributes:
        model: the candidate as it is now.
    """

    def __init__(self, backfill: Backfill, spec: CandidateSpec, *, seed: int) -> None:
        """See `Backfill.start`."""
        log, blocks = backfill.log, backfill.blocks
        self.backfill, self._done = backfill, False
        self.model = own_model(spec, log.schema, backfill.config, n_ids=blocks[0].n_ids, seed=seed)

    def advance(self, to: int) -> None:
        """Learn all rows at the first call; `to` counts steps of a launch and means nothing here."""
        if not self._done:
            learn_blocks(self.model, self.backfill.log, self.backfill.blocks)
        self._done = True

    def ready(self) -> Reference:
        """The candidate, ready for live rows."""
        return self.model
