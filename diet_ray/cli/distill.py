"""`diet-ray distill`: a log to a synthetic memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app
from diet_ray.errors import DietError


@app.command()
def distill(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option(help="The run's config, YAML.")],
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder. Default: key 'out' of the config.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last committed stage of RUN.")] = False,
) -> None:
    """Distil a log, block by block, into a synthetic memory.

    Example: diet-ray distill --config jobs/configs/kuairand.yaml --out runs/kuairand
    """
    options: Options = ctx.obj
    from diet_ray.blocks import open_log
    from diet_ray.launch import read_launch
    from diet_ray.pipeline import blocks_to_distil
    from diet_ray.progress import follow
    from diet_ray.summary import summarise

    run, stream = read_launch(config, out)
    blocks = [(block.name, block.rows) for block in blocks_to_distil(open_log(stream.log), stream)]
    with options.working() as shown:
        from diet_ray.engine import distil

        with _gone_unless_begun(run), follow(run, blocks, shown):
            distil(run, stream, resume=resume)
    summary = summarise(run)
    options.result(summary, summary.table())


@contextmanager
def _gone_unless_begun(run: Path) -> Iterator[None]:
    """Remove a run folder that the body made, if a user's error ended it before its first stage was committed."""
    from diet_ray.errors import LockedError

    existed = run.exists()
    try:
        yield
    except LockedError:  # then another process made it, at the same time
        raise
    except DietError:
        if not existed and not (run / "stages" / "0000").exists():
            shutil.rmtree(run, ignore_errors=True)
        raise
