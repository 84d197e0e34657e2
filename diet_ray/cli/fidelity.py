"""`diet-ray fidelity`: measure how far to trust a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_exists


@app.command()
def fidelity(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option(help="The bench's config, YAML: key 'stream' is a run's config.")],
    out: Annotated[Path, typer.Option(help="Folder for fidelity.html, its plots and its figures as JSON.")],
) -> None:
    """Measure how well candidates' ranks on reduced sets predict their ranks on the full log.

    Finished work is kept: run the command again to continue after an interruption, or to add candidates, methods or seeds.

    Example: diet-ray fidelity --config my_fidelity.yaml --out fidelity/mine
    """
    options: Options = ctx.obj
    check_exists(config)
    from diet_ray.judge.fidelity.config import FidelityConfig
    from diet_ray.report.progress import Counted
    from diet_ray.settings import load_yaml

    bench = load_yaml(FidelityConfig, config)
    with options.working() as (shown, place):
        from diet_ray.judge.fidelity.live.page import live_tables_to_print
        from diet_ray.judge.fidelity.page import tables_to_print, write_report

        count = Counted(shown)
        frozen = place.fidelity(bench, out, count) if "frozen" in bench.protocols else None
        live = place.live_fidelity(bench, out, count) if "live" in bench.protocols else None
        write_report(out, frozen, live)
    figures = dict(zip(("fidelity", "cost"), frozen or (), strict=False)) | dict(
        zip(("live", "live_cost"), live or (), strict=False)
    )
    tables = [*(live_tables_to_print(*live) if live else []), *(tables_to_print(*frozen) if frozen else [])]
    files = ", ".join(str(out / f"{name}.json") for name in figures)
    options.result(figures, *tables, f"\nPage of plots: {out / 'fidelity.html'}\nFigures:       {files}")
