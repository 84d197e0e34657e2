"""`diet-ray fidelity`: measure how far to trust a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app


@app.command()
def fidelity(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option(help="The bench's config, YAML: key 'stream' is a run's config.")],
    out: Annotated[Path, typer.Option(help="Folder for fidelity.html, its plots, fidelity.json and cost.json.")],
) -> None:
    """Measure how well candidates' ranks on reduced sets predict their ranks on the full log.

    Finished work is kept: run the command again to continue after an interruption, or to add candidates, methods or seeds.

    Example: diet-ray fidelity --config my_fidelity.yaml --out fidelity/mine
    """
    options: Options = ctx.obj
    from diet_ray.judge.fidelity.config import FidelityConfig
    from diet_ray.report.progress import Counted
    from diet_ray.settings import load_yaml

    bench = load_yaml(FidelityConfig, config)
    with options.working() as (shown, place):
        from diet_ray.judge.fidelity.page import tables_to_print, write_report

        result, cost = place.fidelity(bench, out, Counted(shown))
        write_report(out, result, cost)
    options.result(
        {"fidelity": result, "cost": cost},
        *tables_to_print(result, cost),
        f"\nPage of plots: {out / 'fidelity.html'}\nFigures:       {out / 'fidelity.json'}, {out / 'cost.json'}",
    )
