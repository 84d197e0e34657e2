"""`diet-ray simulate`: a log of any size with known true probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app
from diet_ray.cli.ingest import next_step
from diet_ray.errors import ConfigError


@app.command()
def simulate(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(metavar="LOG", help="Folder to make for the log.")],
    config: Annotated[
        Path | None,
        typer.Option(help="Config of the simulation, YAML. Default: a small log of eight fields and one task."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Rows per block, instead of the config's.")] = None,
    blocks: Annotated[int | None, typer.Option(help="Number of blocks, instead of the config's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the config's.")] = None,
) -> None:
    """Generate a log with long tails, drift, cold start and known true probabilities.

    Example: diet-ray simulate --out logs/simulated --rows 1000000 --blocks 30
    """
    options: Options = ctx.obj
    from diet_ray.logs.simulation.config import SimulateConfig
    from diet_ray.report.progress import Counted
    from diet_ray.settings import load_yaml, parse

    if out.exists():
        raise ConfigError(f"{out}: exists already; remove it or choose another folder for the log")
    overrides = {"rows": rows, "blocks": blocks, "seed": seed}
    changes = {key: value for key, value in overrides.items() if value is not None}
    settings = (
        load_yaml(SimulateConfig, config, **changes) if config else parse(SimulateConfig, changes, where="simulate")
    )
    with options.working(out) as (shown, place):
        from diet_ray.logs.simulation.simulate import simulate as run_simulate

        run_simulate(settings, out, on_progress=Counted(shown), each=place.each)
    options.show_log(out, next_step(out))
