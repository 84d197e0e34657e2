"""`diet-ray inspect`: the contents of a memory, or of a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_place


@app.command()
def inspect(
    ctx: typer.Context,
    memory: Annotated[
        str,
        typer.Argument(
            metavar="MEMORY|LOG",
            help="A run folder or one of its stages, or the URI of either in an archive; or a log.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Also write a page with plots, and the plots as SVG beside it."),
    ] = None,
) -> None:
    """Show the composition of a memory, how far its units were moved, and the most influential units.

    Of a log: rows and labels by block, values by field, and what looks wrong.

    Example: diet-ray inspect runs/kuairand --out kuairand.html
    """
    options: Options = ctx.obj
    check_place(memory, "run", "stage", "log")

    from diet_ray.errors import ConfigError
    from diet_ray.logs.layout import log_manifest_file
    from diet_ray.storage.places import is_uri

    if not is_uri(memory) and log_manifest_file(Path(memory)).is_file():
        if out is not None:
            raise ConfigError("--out: a log has no page; leave it out, or use --json")
        options.show_log(Path(memory))
        return
    from diet_ray.report.inspection import inspect as inspect_memory
    from diet_ray.report.inspection_page import tables_to_print, write_inspection
    from diet_ray.report.progress import display

    if out is not None and out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; name the page itself, such as {out / 'memory.html'}")
    with display(quiet=options.quiet or not is_uri(memory)) as shown:
        inspection = inspect_memory(memory, on_fetch=shown.status)
    readable = tables_to_print(inspection)
    if out is not None:
        readable.append(f"\nPage of plots: {write_inspection(out, inspection)[0]}")
    options.result(inspection, *readable)
