"""`diet-ray sweep`: candidates judged on a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app


@app.command()
def sweep(
    ctx: typer.Context,
    memory: Annotated[Path, typer.Option(help="A run folder, or one of its stages.")],
    out: Annotated[Path, typer.Option(help="Folder for leaderboard.json and leaderboard.csv.")],
    candidates: Annotated[
        Path | None, typer.Option(help="The candidates, YAML. Default: the packaged pool of 24.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per candidate.")] = 2,
    log: Annotated[Path | None, typer.Option(help="The ingested log. Default: the one that was distilled.")] = None,
    block: Annotated[
        str | None, typer.Option(help="Block to judge on. Default: the one after the memory's last.")
    ] = None,
) -> None:
    """Train candidates on a memory and rank them on a block that it has not seen.

    Example: diet-ray sweep --memory runs/kuairand --candidates my_candidates.yaml --out sweeps/first
    """
    options: Options = ctx.obj
    from diet_ray.candidates import CandidateFile, default_pool
    from diet_ray.progress import Counted
    from diet_ray.settings import load_yaml

    pool = load_yaml(CandidateFile, candidates) if candidates else default_pool()
    with options.working() as shown:
        from diet_ray.sweep import sweep as run_sweep

        count = Counted(shown)
        board = run_sweep(
            memory,
            pool,
            out=out,
            log=log,
            block=block,
            seeds=seeds,
            on_progress=lambda done, total: count("trials", done, total),
        )
    options.result(board, board.table())
