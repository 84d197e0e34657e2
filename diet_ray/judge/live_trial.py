"""A live trial: a candidate is launched from the memory, meets the rows of a block live, and is judged by progressive validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.launch import Start, launch
from diet_ray.judge.live import LiveRows, go_live
from diet_ray.judge.progressive import progressive, row_losses, write_losses
from diet_ray.judge.verdict import Clock, LiveVerdict, Verdict, verdict

TRAINED_ON = "memory, then live"
"""The training set of a live candidate, as verdicts name it."""

LOSSES = "losses"
"""The folder of a sweep that holds the losses of single rows."""


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


def judge_live(spec: CandidateSpec, live: LiveContext, *, seed: int, key: str) -> Verdict:
    """Launch a candidate, let it meet the rows, and measure its predictions; writes the losses of the rows.

    Args:
        spec: the candidate.
        live: what the trials share.
        seed: of the launch.
        key: of the trial; names the file of the losses.
    """
    schema, rows = live.start.schema, live.rows.rows
    with Clock() as clock:
        model = launch(live.start, spec, seed=seed)
        logits = go_live(model, live.rows)
    file = f"{LOSSES}/{key}-{seed}.parquet"
    write_losses(live.out / file, rows.row_id, row_losses(logits, rows.labels), schema.tasks)
    measured = progressive(
        rows, logits, schema, blocks=live.rows.sizes, known_ids=live.rows.known_ids, fields=live.slices
    )
    parameters = sum(parameter.numel() for parameter in model.net.parameters())
    plain = verdict(spec, logits, rows, schema, seed, TRAINED_ON, clock, parameters)
    return plain.model_copy(update={"live": LiveVerdict(losses=file, progressive=measured)})
