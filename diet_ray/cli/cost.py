"""`diet-ray cost`: what a memory would cost, and after how many candidates it would pay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_place
from diet_ray.errors import ConfigError


@app.command()
def cost(
    ctx: typer.Context,
    rows_per_day: Annotated[
        int | None, typer.Option(min=1, help="Rows of a block. Default: those of the run that --memory names.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks to distil.")] = 14,
    candidates: Annotated[
        int, typer.Option(min=1, help="Candidates to judge. Default: as many as the packaged pool.")
    ] = 24,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per candidate.")] = 2,
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A run whose measured figures hold for your log. Default: a small log is simulated and distilled.",
        ),
    ] = None,
    rows_per_second: Annotated[
        float | None,
        typer.Option(
            help="Rows that a training learns in a CPU second on your log, where you know it. Default: measured."
        ),
    ] = None,
) -> None:
    """Estimate what making a memory and judging candidates on it would cost, against training them all on the full log.

    Example: diet-ray cost --rows-per-day 1000000 --blocks 30
    """
    options: Options = ctx.obj
    check_place(memory, "run")
    if rows_per_day is None and memory is None:
        raise ConfigError("--rows-per-day: say how many rows a block has, or name a run with --memory")
    if rows_per_second is not None and not 0 < rows_per_second < float("inf"):
        raise ConfigError(f"--rows-per-second {rows_per_second:g}: must be above 0")
    from diet_ray.judge.estimate import estimate

    found = estimate(
        rows_per_day, blocks, candidates=candidates, seeds=seeds, run=memory, rows_per_second=rows_per_second
    )
    options.result(found, found.table(), found.cost.sentence())
