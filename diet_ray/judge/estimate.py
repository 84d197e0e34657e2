"""What a memory would cost on a log that is only described, from rows per second that were measured or are given."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from rich.table import Column, Table

from diet_ray.config import StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.errors import CorruptArtefactError
from diet_ray.figures import duration, times
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.memory.run_folder import committed_stages
from diet_ray.report.cost import OF_REFERENCE, Cost, Making, cost_ahead, making
from diet_ray.report.tables import narrow_table
from diet_ray.settings import Settings

PROBE = SimulateConfig(rows=4000, blocks=2)
"""The log of the probe: a few seconds of work."""


class Estimate(Settings):
    """What a memory would cost."""

    rows: int
    """Rows of all blocks."""
    blocks: int
    rows_per_second: float
    """Rows that a training of the default pool's mean cost learns in a CPU second."""
    source: Literal["given", "run", "simulated log"]
    """Where this figure is from."""
    cost: Cost

    def table(self) -> Table:
        """The estimate for a terminal."""
        cost, memory = self.cost, self.cost.memory or 0.0
        source = {"given": "as given", "run": "as in this run", "simulated log": "as on a simulated log"}[self.source]
        rate = f"a training learns {self.rows_per_second:,.0f} rows per CPU s, {source}"
        title = f"{self.rows:,} rows in {times(self.blocks, 'block')}; {rate}"
        columns = [
            Column("estimated", no_wrap=True),
            Column("CPU s", justify="right"),
            Column("h:mm:ss", justify="right"),
        ]
        table = narrow_table(*columns, title=title)
        lines = {
            "making the memory, once": memory,
            f"judging {times(cost.candidates, 'candidate')} in {times(cost.trainings, 'training')}": cost.judged,
            "both": memory + cost.judged,
            "training all on the full log": cost.full,
        }
        for name, seconds in lines.items():
            table.add_row(name, f"{seconds:,.1f}", duration(seconds))
        return table


def estimate(
    rows_per_day: int | None,
    blocks: int,
    *,
    candidates: int,
    seeds: int,
    run: Path | None = None,
    rows_per_second: float | None = None,
) -> Estimate:
    """Estimate what a memory would cost, by shipped defaults.

    Args:
        rows_per_day: rows of a block; None for those of the run.
        blocks: to distil.
        candidates: to judge.
        seeds: per candidate.
        run: whose measured figures are taken; by default a small log is simulated and distilled.
        rows_per_second: that a training learns in a CPU second, in place of those measured; making is scaled alike.

    Raises:
        CorruptArtefactError: the run has no committed stage, or no record of the time that its stages took.
    """
    made = _of_run(run) if run is not None else probe()
    if rows_per_day is None:
        assert run is not None, "one of the two says how many rows a block has"
        rows_per_day = round(made.rows / len(committed_stages(run)))
    rows = rows_per_day * blocks
    measured = made.rows / (made.reference * OF_REFERENCE)
    rate = rows_per_second or measured
    scaled = made.of_rows(rows, faster=rate / measured)
    return Estimate(
        rows=rows,
        blocks=blocks,
        rows_per_second=round(rate, 1),
        source="given" if rows_per_second else "run" if run else "simulated log",
        cost=cost_ahead(scaled, blocks=blocks, candidates=candidates, seeds=seeds),
    )


def probe() -> Making:
    """Simulate a small log and distil it with the shipped defaults in this process."""
    with tempfile.TemporaryDirectory(prefix="diet-ray-") as folder:
        log, run = Path(folder) / "log", Path(folder) / "run"
        simulate(PROBE, log)
        distil_locally(run, StreamConfig(log=log, blocks=PROBE.blocks))
        return _of_run(run)


def _of_run(run: Path) -> Making:
    stages = committed_stages(run)
    made = making(run, len(stages) - 1, stages[-1].config.cluster.model_dump()) if stages else None
    if made is None or made.reference <= 0:
        raise CorruptArtefactError(
            f"{run}: has no record of the time that its stages took; name another run, or leave out --memory"
        )
    return made
