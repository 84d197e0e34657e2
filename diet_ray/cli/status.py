"""`diet-ray status`: how far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app


@app.command()
def status(ctx: typer.Context, run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Say how far a run is, from its manifests and events alone; the run is not disturbed.

    Example: diet-ray status runs/kuairand
    """
    options: Options = ctx.obj
    from diet_ray.status import status as status_of

    found = status_of(run)
    options.result(found, "\n".join(found.lines()))
