"""`diet-ray status`: the progress of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_place
from diet_ray.errors import ConfigError


@app.command()
def status(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the URI of a run's archive.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Also write a page with the time of each step of each stage."),
    ] = None,
) -> None:
    """Show the progress of a run. Only its manifests and events are read, so the run is not disturbed.

    Example: diet-ray status runs/kuairand
    """
    options: Options = ctx.obj
    check_place(run, "run")
    from diet_ray.report.status import run_status as status_of
    from diet_ray.storage.places import is_uri

    if out is not None and out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; name the page itself, such as {out / 'status.html'}")
    if out is not None and is_uri(run):
        raise ConfigError("--out: an archive has no times of steps; write the page from the run folder instead")
    progress = status_of(run)
    readable = ["\n".join(progress.lines())]
    if out is not None:
        from diet_ray.report.timeline import write_timeline

        write_timeline(out, Path(run), progress)
        readable.append(f"Page: {out}")
    options.result(progress, *readable)
