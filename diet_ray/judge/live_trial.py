"""A live student of a trial: it is launched from the memory, meets the rows of a block, and is judged by progressive validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.launch import Launching
from diet_ray.judge.live import LiveRows, go_live
from diet_ray.judge.live_state import LiveState
from diet_ray.judge.progressive import progressive, row_losses, write_losses
from diet_ray.judge.start import Start
from diet_ray.judge.verdict import Clock, LiveVerdict, Verdict, verdict_of
from diet_ray.logs.blocks import Rows

TRAINED_ON = "memory, then live"
"""The training set of a live candidate, as verdicts name it."""

LOSSES = "losses"
"""The folder of a sweep that holds the losses of single rows."""

STATES = "live"
"""The folder of a sweep that holds where trials stand that have met some of several blocks."""


@dataclass(frozen=True)
class LiveContext:
    """What all live trials of a sweep share."""

    start: Start
    """The units, the table and its moments."""
    rows: LiveRows
    """The rows that each candidate meets."""
    slices: list[str]
    """Fields by whose values the rows are divided."""
    out: Path
    """The sweep's folder."""


class LiveStudent:
    """A candidate with one seed, launched from the memory and then live, and a clock of both."""

    def __init__(self, spec: CandidateSpec, live: LiveContext, seed: int, *, key: str) -> None:
        """Start the launch; `key` is the trial's identity, which names the file of the losses."""
        self.spec, self.live, self.seed, self.key = spec, live, seed, key
        with Clock() as self.clock:
            self.launching = Launching(live.start, spec, seed=seed)

    def advance(self, step: int) -> None:
        """Learn units until `step` steps are done."""
        with self.clock:
            self.launching.advance(step)

    def predict(self, rows: Rows) -> np.ndarray:
        """`[N, T]` logits of rows that it does not learn."""
        parts = torch.split(torch.tensor(rows.ids), 8192)
        return torch.cat([self.launching.model.predict(ids)[0] for ids in parts]).numpy()

    def verdict(self) -> Verdict:
        """Let it meet the live rows, and measure its predictions; writes the losses of the rows."""
        live, schema, rows = self.live, self.live.start.schema, self.live.rows.rows
        state = LiveState(live.out / STATES / f"{self.key}-{self.seed}.safetensors")
        with self.clock:
            model = self.launching.ready()
            logits = go_live(model, live.rows, state)
        file = f"{LOSSES}/{self.key}-{self.seed}.parquet"
        write_losses(live.out / file, rows.row_id, row_losses(logits, rows.labels), schema.tasks)
        measured = progressive(
            rows, logits, schema, blocks=live.rows.sizes, known_ids=live.rows.known_ids, fields=live.slices
        )
        state.remove()
        parameters = sum(parameter.numel() for parameter in model.net.parameters())
        return verdict_of(
            self.spec,
            measured.whole,
            self.seed,
            TRAINED_ON,
            self.clock,
            parameters,
            live=LiveVerdict(losses=file, progressive=measured),
        )
