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
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Three trainings per candidate, with one seed: may show that the memory's order is no better than chance, never that "
            "it may be trusted.",
        ),
    ] = False,
) -> None:
    """Measure whether the order of candidates on a memory may be trusted. It first says how many trainings that takes.

    Finished work is kept: run the command again to continue after an interruption, or to add candidates, methods or seeds.

    Example: diet-ray fidelity --config my_fidelity.yaml --out fidelity/mine --quick
    """
    options: Options = ctx.obj
    check_exists(config)
    from diet_ray.judge.fidelity.config import FidelityConfig
    from diet_ray.report.progress import Counted
    from diet_ray.settings import load_yaml

    bench = load_yaml(FidelityConfig, config)
    bench = bench.quick() if quick else bench
    with options.working() as (shown, place):
        from diet_ray.judge.fidelity.estimate import QUICK, estimate
        from diet_ray.judge.fidelity.order import check_candidates
        from diet_ray.judge.fidelity.page import verdicts_of, write_report
        from diet_ray.judge.fidelity.terminal import to_print

        work = estimate(bench, out)
        for line in (check_candidates(work.candidates), QUICK if quick else "", work.sentence):
            if line:
                shown.line(line)
        count = Counted(shown)
        frozen = place.fidelity(bench, out, count) if "frozen" in bench.protocols else None
        live = place.live_fidelity(bench, out, count) if "live" in bench.protocols else None
        write_report(out, frozen, live)
    figures = dict(zip(("fidelity", "cost"), frozen or (), strict=False)) | dict(
        zip(("live", "live_cost"), live or (), strict=False)
    )
    files = ", ".join(str(out / f"{name}.json") for name in figures)
    said = {"verdicts": verdicts_of(frozen, live), **figures}
    options.result(said, *to_print(frozen, live), f"\nPage of plots: {out / 'fidelity.html'}\nFigures:       {files}")
