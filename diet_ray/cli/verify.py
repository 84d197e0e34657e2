"""`diet-ray verify`: find all faults of a run, its archive or a log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_place
from diet_ray.errors import CorruptArtefactError


@app.command()
def verify(
    ctx: typer.Context,
    path: Annotated[
        str, typer.Argument(metavar="RUN|LOG|URI", help="A run folder, or a log's, or the URI of a run's archive.")
    ],
    log: Annotated[
        Path | None,
        typer.Option(help="The log to compare a run with. Default: the one that was distilled, if it is there."),
    ] = None,
) -> None:
    """Check every file, number and checksum of a run or a log, and list all faults. The exit code is 2 if there is a fault.

    An archive is downloaded to a temporary folder below $TMPDIR for the check.

    Example: diet-ray verify runs/kuairand
    """
    options: Options = ctx.obj
    check_place(path, "run", "log")
    check_place(log, "log")
    from rich.table import Table

    from diet_ray.memory.verification import is_log, log_of, notes
    from diet_ray.memory.verification import verify as look
    from diet_ray.storage.places import is_uri
    from diet_ray.storage.remote import Remote

    faults, told = look(path, log=log), notes(path)
    kind = "archive" if is_uri(path) else "log" if is_log(Path(path)) else "run"
    shown = Remote(path).uri if kind == "archive" else path
    compared = (log or log_of(path)) if kind != "log" else None
    against = f", compared with the log {compared}" if compared else ", without its log" if kind != "log" else ""
    readable: list[str | Table] = [f"{shown}: {kind}{against}: {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}"]
    readable += [f"note: {note}" for note in told]
    if faults:
        table = Table("where", "what", "remedy")
        for fault in faults:
            table.add_row(fault.where, fault.what, fault.remedy)
        readable.append(table)
    options.result(
        {
            "path": shown,
            "kind": kind,
            "log": str(compared) if compared else None,
            "faults": [asdict(fault) for fault in faults],
            "notes": told,
        },
        *readable,
    )
    if faults:
        first = faults[0]
        raise CorruptArtefactError(f"{shown}: faults found: {len(faults)}; the first: {first.where}: {first.what}")
