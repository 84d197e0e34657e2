"""A live student of a trial: launched from the memory, or backfilled from the log, it meets rows and is judged on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.backfill import Backfill, Backfilling
from diet_ray.judge.launch import Launching
from diet_ray.judge.live import LiveRows, go_live
from diet_ray.judge.live_state import LiveState
from diet_ray.judge.progressive import progressive, read_losses, row_losses, write_losses
from diet_ray.judge.start import Start
from diet_ray.judge.verdict import Clock, LiveVerdict, Verdict, verdict_of
from diet_ray.logs.blocks import Rows

TRAINED_ON, BACKFILLED = "memory, then live", "full log, then live"
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
    """The folder in which the losses of rows are kept, in `LOSSES`."""
    states: Path
    """The folder for where candidates stand."""
    keep: bool = False
    """Whether where they stand is kept at the end, too, for more rows later."""
    backfill: Backfill | None = None
    """The rows that candidates learn instead of the memory's units; None where they are launched from the memory."""


class LiveStudent:
    """A candidate with one seed, launched from the memory and then live, and a clock of both."""

    def __init__(self, spec: CandidateSpec, live: LiveContext, seed: int, *, key: str, scored: bool = False) -> None:
        """Start the launch.

        Args:
            spec: the candidate.
            live: what all live trials share.
            seed: of the candidate.
            key: the trial's identity, which names its files.
            scored: whether `predict` is called. Then the launch is done even where the candidate has met live rows before.
        """
        self.spec, self.live, self.seed, self.key = spec, live, seed, key
        unit_ids = None if live.backfill else live.start.ids
        self.state = LiveState(live.states / f"{key}-{seed}.safetensors", unit_ids)
        self._goes_on = self.state.exists and not scored
        with Clock() as self.clock:
            way = live.backfill.start if live.backfill else partial(Launching, live.start)
            self.launching: Launching | Backfilling = way(spec, seed=seed)

    def advance(self, step: int) -> None:
        """Learn units until `step` steps are done, or the rows of the backfill; nothing where the candidate goes on live."""
        if not self._goes_on:
            with self.clock:
                self.launching.advance(step)

    def predict(self, rows: Rows) -> np.ndarray:
        """`[N, T]` logits of rows that it does not learn."""
        parts = torch.split(torch.tensor(rows.ids), 8192)
        return torch.cat([self.launching.model.predict(ids)[0] for ids in parts]).numpy()

    def verdict(self) -> Verdict:
        """Let it meet the live rows, and measure its predictions; writes the losses of the rows."""
        live, schema, rows = self.live, self.live.start.schema, self.live.rows.rows
        with self.clock:
            model = self.launching.ready()
            logits = go_live(model, live.rows, self.state, keep=live.keep)
        file = f"{LOSSES}/{self.key}-{self.seed}.parquet"
        write_losses(live.out / file, rows.row_id, row_losses(logits, rows.labels), schema.tasks)
        measured = progressive(
            rows, logits, schema, blocks=live.rows.sizes, known_ids=live.rows.known_ids, fields=live.slices
        )
        if not live.keep:
            self.state.remove()
        parameters = sum(parameter.numel() for parameter in model.net.parameters())
        return verdict_of(
            self.spec,
            measured.whole,
            self.seed,
            BACKFILLED if live.backfill else TRAINED_ON,
            self.clock,
            parameters,
            live=LiveVerdict(losses=file, progressive=measured),
        )


def kept_losses(out: Path, verdicts: list[Verdict], tasks: list[str]) -> dict[str, np.ndarray]:
    """Per candidate `[S, N]`: the losses of the live rows with each seed, the mean over the tasks, from the files in `out`."""
    losses: dict[str, list[np.ndarray]] = {}
    for verdict in verdicts:
        assert verdict.live is not None, "all these verdicts are live"
        losses.setdefault(verdict.candidate, []).append(read_losses(out / verdict.live.losses, tasks)[1].mean(axis=1))
    return {name: np.stack(of_seeds) for name, of_seeds in losses.items()}
