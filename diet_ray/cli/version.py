"""`diet-ray version`: the versions on which results depend."""

from __future__ import annotations

from importlib.metadata import version as version_of

import typer

from diet_ray.cli.group import Options, app
from diet_ray.storage.hashes import PACKAGES


@app.command()
def version(ctx: typer.Context) -> None:
    """Print the versions on which results depend.

    Example: diet-ray --json version
    """
    versions = {name: version_of(name) for name in PACKAGES}
    options: Options = ctx.obj
    options.result(versions, "\n".join(f"{name} {number}" for name, number in versions.items()))
