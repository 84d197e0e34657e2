"""`diet-ray race`: find the best candidate, with a stated confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_exists, check_place


@app.command()
def race(
    ctx: typer.Context,
    memory: Annotated[
        str,
        typer.Option(metavar="RUN|URI", help="A run folder or one of its stages, or the URI of either in an archive."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the result, as a page, JSON, CSV and Parquet.")],
    candidates: Annotated[
        Path | None,
        typer.Option(help="The candidates and the search settings, YAML. Default: the packaged pool of 24 candidates."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per candidate, 2 or more.")] = 2,
    log: Annotated[Path | None, typer.Option(help="The ingested log. Default: the one that was distilled.")] = None,
    block: Annotated[
        str | None, typer.Option(help="Block to meet first. Default: the one after the memory's last block.")
    ] = None,
    rungs: Annotated[
        str | None,
        typer.Option(
            metavar="BLOCKS,...",
            help="After how many blocks candidates are compared and the worse ones leave. Default: 0.02,0.1,0.25,1; on a block of a few "
            "batches those of them that differ.",
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of every statement, over all comparisons together.")] = 0.95,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="COST",
            help="What the race may cost: CPU seconds (900s), or full trainings of a candidate, counted in examples learned (1.5x).",
        ),
    ] = None,
    confirm: Annotated[
        int, typer.Option(metavar="K", help="Train the last K candidates on the full log, too, and compare them again.")
    ] = 0,
    fidelity: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of a fidelity bench of this log and memory; its verdict on the order is shown."
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Continue the race in OUT: finished trials are not repeated.")
    ] = False,
) -> None:
    """Find the best candidate: all start from the memory and meet live rows, and those that are worse beyond doubt leave.

    Example: diet-ray race --memory runs/kuairand --candidates my_candidates.yaml --out races/first
    """
    options: Options = ctx.obj
    check_exists(memory, candidates, log, fidelity)
    check_place(memory, "run", "stage")
    check_place(log, "log")
    # Before the imports that take seconds: a mistake is told at once.
    from diet_ray.judge.early import check_block, check_out

    check_out(out, "race", restore=restore)
    check_block(memory, log, block)
    from diet_ray.candidates import default_pool
    from diet_ray.errors import ConfigError
    from diet_ray.judge.race_rules import Budget
    from diet_ray.judge.search import SweepConfig
    from diet_ray.report.progress import Counted
    from diet_ray.settings import load_yaml

    try:
        shares = None if rungs is None else [float(part) for part in rungs.split(",")]
    except ValueError:
        raise ConfigError(f"--rungs {rungs}: must be numbers of blocks, such as 0.02,0.1,0.25,1") from None
    cost = Budget.read(budget) if budget is not None else None
    config = load_yaml(SweepConfig, candidates) if candidates else SweepConfig.of(default_pool())
    with options.working() as (shown, place):
        result = place.race(
            memory,
            config,
            out=out,
            log=log,
            block=block,
            rungs=shares,
            confidence=confidence,
            budget=cost,
            seeds=seeds,
            confirm=confirm,
            restore=restore,
            fidelity=fidelity,
            on_progress=Counted(shown),
            on_line=shown.line,
            on_fetch=shown.status,
        )
    options.result(result, result.table(), result.sentence, *result.remarks(), f"Page: {out / 'race.html'}")
    result.check()
