"""`diet-ray sweep`: train and rank candidates on a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_exists, check_place


@app.command()
def sweep(
    ctx: typer.Context,
    memory: Annotated[
        list[str],
        typer.Option(
            metavar="RUN|URI",
            help="A run folder or one of its stages, or the URI of either in an archive. May be repeated, with runs of the same log and "
            "config and other seeds: candidates are then judged on each memory.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the leaderboard, as a page, JSON, CSV and Parquet.")],
    candidates: Annotated[
        Path | None,
        typer.Option(help="The candidates and the search settings, YAML. Default: the packaged pool of 24 candidates."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per candidate.")] = 2,
    log: Annotated[Path | None, typer.Option(help="The ingested log. Default: the one that was distilled.")] = None,
    block: Annotated[
        str | None, typer.Option(help="Block to judge on. Default: the one after the memory's last block.")
    ] = None,
    live: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="BLOCKS",
            help="Launch candidates from the memory, and judge them live on this number of blocks: each batch is predicted, then learned. "
            "0 judges frozen students.",
        ),
    ] = 0.1,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice", metavar="FIELD", help="Measure live rows by values of this field too. May be repeated."
        ),
    ] = None,
    fidelity: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of a fidelity bench of this log and memory; its verdict on the order is shown."
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Continue the sweep in OUT: finished trials are not repeated.")
    ] = False,
) -> None:
    """Train candidates on a memory and rank them on a later block of the log.

    Example: diet-ray sweep --memory runs/kuairand --candidates my_candidates.yaml --out sweeps/first
    """
    options: Options = ctx.obj
    check_exists(*memory, candidates, log, fidelity)
    for one in memory:
        check_place(one, "run", "stage")
    check_place(log, "log")
    # Before the imports that take seconds: a mistake is told at once.
    from diet_ray.judge.early import check_block, check_out

    check_out(out, "sweep", restore=restore)
    for one in memory:
        check_block(one, log, block)
    from diet_ray.candidates import default_pool
    from diet_ray.judge.search import SweepConfig
    from diet_ray.report.progress import Counted
    from diet_ray.settings import load_yaml

    config = load_yaml(SweepConfig, candidates) if candidates else SweepConfig.of(default_pool())
    with options.working() as (shown, place):
        count = Counted(shown)
        board = place.sweep(
            memory,
            config,
            out=out,
            log=log,
            block=block,
            live=live,
            slices=slices or [],
            seeds=seeds,
            restore=restore,
            fidelity=fidelity,
            on_progress=lambda done, total: count("trials", done, total),
            on_fetch=shown.status,
        )
    options.result(board, *board.tables(), *board.remarks(), f"Page: {out / 'leaderboard.html'}")
    board.check()
