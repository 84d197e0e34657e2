"""`diet-ray version`: the versions on which results depend."""

from __future__ import annotations

import typer

from diet_ray.cli.group import Options, app


@app.command()
def version(ctx: typer.Context) -> None:
    """Print the versions on which results depend.

    Example: diet-ray --json version
    """
    from diet_ray.storage.hashes import PACKAGES, versions_of

    versions = versions_of(PACKAGES)
    options: Options = ctx.obj
    options.result(versions, "\n".join(f"{name} {number}" for name, number in versions.items()))
