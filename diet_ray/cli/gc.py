"""`diet-ray gc`: remove leftovers of interrupted runs from a run folder or an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_place
from diet_ray.errors import ConfigError
from diet_ray.storage.places import is_uri


@app.command()
def gc(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN|URI", help="A run folder, or the URI of a run's archive.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Also prune the files of the reference from all stages but the last N, whatever the run's config says.",
        ),
    ] = None,
) -> None:
    """List, and with --yes remove, the leftovers of interrupted runs in a run folder. Committed stages keep all their files, unless --keep
    says otherwise.

    It also tells how many bytes the stages keep, and how many were pruned from them (key checkpoints.keep of the run's config). In an
    archive, leftovers are the files that no manifest names.

    Example: diet-ray gc runs/kuairand --yes
    """
    options: Options = ctx.obj
    check_place(run, "run")
    if keep is not None and is_uri(run):
        raise ConfigError("--keep: is for a run folder; its archive is pruned when the run next sends a stage there")
    from rich.table import Table

    from diet_ray.figures import size
    from diet_ray.memory.archive import Archive
    from diet_ray.memory.garbage import archive_garbage, collect, collect_archive, garbage, stages_bytes

    if is_uri(run):
        archive = Archive(run)
        leftovers = collect_archive(archive) if yes else archive_garbage(archive)
        place, stages = archive.remote.uri, None
        listed = [(leftover, leftover.path.as_posix()) for leftover in leftovers]
    else:
        leftovers = collect(Path(run), keep=keep) if yes else garbage(Path(run), keep=keep)
        place, stages = run, stages_bytes(Path(run))
        listed = [(leftover, leftover.path.relative_to(run).as_posix()) for leftover in leftovers]
    total = sum(leftover.bytes for leftover in leftovers)
    table = Table("what", "where", title=f"{place}: {len(leftovers)} left over, {size(total)}")
    table.add_column("bytes", justify="right")
    for leftover, name in listed:
        table.add_row(leftover.what, name, f"{leftover.bytes:,}")
    if not leftovers:
        closing = f"{place}: nothing is left over."
    elif yes:
        closing = f"Removed: {size(total)}."
    else:
        closing = "Nothing was removed; repeat the command with --yes to remove them."
    if stages is not None:
        closing += f" Stages: {size(stages[0])} kept, {size(stages[1])} pruned."
    options.result(
        {
            "run": place,
            "removed": yes,
            "bytes": total,
            "kept_bytes": stages[0] if stages else None,
            "pruned_bytes": stages[1] if stages else None,
            "leftovers": [
                {"path": f"{place}/{name}", "what": leftover.what, "bytes": leftover.bytes} for leftover, name in listed
            ],
        },
        *([table] if leftovers else []),
        closing,
    )
