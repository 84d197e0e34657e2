"""`diet-ray gc`: a run folder without what interrupted runs left in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app


@app.command()
def gc(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
) -> None:
    """List, and with --yes remove, what interrupted runs left in a run folder. Committed stages are never touched.

    Example: diet-ray gc runs/kuairand --yes
    """
    options: Options = ctx.obj
    from rich.table import Table

    from diet_ray.garbage import collect, garbage
    from diet_ray.summary import size

    found = collect(run) if yes else garbage(run)
    total = sum(one.bytes for one in found)
    table = Table("what", "where", title=f"{run}: {len(found)} left over, {size(total)}")
    table.add_column("bytes", justify="right")
    for one in found:
        table.add_row(one.what, str(one.path.relative_to(run)), f"{one.bytes:,}")
    listed = [{"path": str(one.path), "what": one.what, "bytes": one.bytes} for one in found]
    if not found:
        closing = f"{run}: nothing is left over."
    elif yes:
        closing = f"Removed: {size(total)}."
    else:
        closing = "Nothing was removed; --yes does it."
    options.result(
        {"run": str(run), "removed": yes, "bytes": total, "leftovers": listed}, *([table] if found else []), closing
    )
