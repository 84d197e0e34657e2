"""`diet-ray distill`: distil a log into a synthetic memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_exists, check_place
from diet_ray.errors import BrokenOffError, ConfigError, DietError, LockedError
from diet_ray.memory.layout import check_vacant, count_committed, run_manifest, stage_folder


@app.command()
def distill(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option(help="The run's config, YAML.")],
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder. Default: key 'out' of the config.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last committed stage of RUN.")] = False,
    allow_different_bytes: Annotated[
        bool,
        typer.Option(
            "--allow-different-bytes",
            help="Continue RUN although later stages will have other bytes: with another processor, other package versions, or other "
            "workers, threads_per_worker, memory_shards, precision or use of GPUs. The stages record it.",
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            "--follow",
            metavar="LOG",
            help="Begin or continue RUN on this log instead of the config's, and wait for its next blocks until Ctrl-C or SIGTERM.",
        ),
    ] = None,
) -> None:
    """Distil a log, block by block, into a synthetic memory.

    The exit code is 130 after Ctrl-C and 143 after SIGTERM; an interrupted stage is repeated when the run continues.

    Example: diet-ray distill --config jobs/configs/kuairand.yaml --out runs/kuairand
    """
    options: Options = ctx.obj
    check_exists(config, log)
    from diet_ray.config import read_launch
    from diet_ray.logs.blocks import open_log

    if allow_different_bytes and not resume and log is None:
        raise ConfigError("--allow-different-bytes: a new run has no earlier bytes; give it with --resume or --follow")
    run, stream, uri = read_launch(config, out)
    if (log or stream.log).exists():
        check_place(log or stream.log, "log")
    opened = open_log(log or stream.log)
    if log is None and not resume and uri is None:
        check_vacant(run)
    # Torch is imported only now: a mistake in the config, the log or the place of the run is told at once.
    from diet_ray.distill.follow import follow_log
    from diet_ray.distill.pipeline import blocks_to_distil, check_nets
    from diet_ray.memory.archive import Archive, archived
    from diet_ray.memory.run_folder import check_begin
    from diet_ray.report.progress import show_progress
    from diet_ray.report.summary import summarise

    archive = Archive(uri) if uri is not None else None
    if log is not None:
        stream = stream.model_copy(update={"log": log})
    check_nets(opened.schema, stream)
    if log is None:
        blocks_to_distil(opened, stream)
        if archive is None:  # a run may be resumed from its archive alone
            check_begin(run, resume=resume)
    with options.working() as (shown, place):

        def distil_new_blocks(resume: bool) -> None:
            blocks = [(block.name, block.rows) for block in blocks_to_distil(open_log(stream.log), stream)]
            with _gone_unless_begun(run), show_progress(run, blocks, shown, hear):
                place.distil(run, stream, resume=resume, allow_different_bytes=allow_different_bytes)

        copying = (
            archived(
                archive,
                run,
                stream,
                resume=resume or log is not None,
                on_trouble=shown.line,
                allow_different_bytes=allow_different_bytes,
            )
            if archive
            else nullcontext()
        )
        with _how_to_go_on(ctx, config, run), place.telemetry(run, stream) as hear, copying:
            if log is None:
                distil_new_blocks(resume)
            else:
                follow_log(run, stream, distil_new_blocks, on_wait=shown.line)
    summary = summarise(run)
    cost = [summary.cost.sentence()] if summary.cost else []
    options.result(
        summary, summary.table(), *cost, _next_step(run, left=len(open_log(stream.log).blocks) > len(summary.stages))
    )


def _next_step(run: Path, *, left: bool) -> str:
    """Where the memory is, and the command to judge candidates on it, if the log has a block `left` for that."""
    out = quote(f"sweeps/{run.name}")
    judge = f"diet-ray sweep --memory {quote(str(run))} --out {out}"
    where = f"Memory: {run}."
    if left:
        return f"{where} To judge a pool of 24 candidates on the block after it: {judge} (--candidates POOL.yaml judges yours)"
    return f"{where} All blocks are in it, so append one to the log to judge candidates on; then: {judge}"


@contextmanager
def _how_to_go_on(ctx: typer.Context, config: Path, run: Path) -> Iterator[None]:
    """Where the body is interrupted, print the command that continues the run."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if run_manifest(run).exists():
            follow = f"--follow {ctx.params['log']}" if ctx.params["log"] else "--resume"
            command = f"diet-ray distill --config {config} --out {run} {follow}"
            typer.echo(f"stopped; {count_committed(run)} blocks are done. Continue with: {command}", err=True)
        raise


@contextmanager
def _gone_unless_begun(run: Path) -> Iterator[None]:
    """Remove a run folder that the body made, if a user's error ended the run before its first stage was committed."""
    existed = run.exists()
    try:
        yield
    except (LockedError, BrokenOffError):  # another process made it at the same time, or it is kept for --resume
        raise
    except DietError:
        if not existed and not stage_folder(run, 0).exists():
            shutil.rmtree(run, ignore_errors=True)
        raise
