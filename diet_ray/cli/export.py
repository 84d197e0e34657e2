"""`diet-ray export`: a memory for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app


@app.command()
def export(
    ctx: typer.Context,
    memory: Annotated[
        str,
        typer.Argument(metavar="MEMORY", help="A run folder or one of its stages, or the URI of either in an archive."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make: Parquet, safetensors, a card and a manifest.")],
    units: Annotated[
        int | None,
        typer.Option(
            help="Keep only so many: each label its share, of it the units of highest influence. Default: all."
        ),
    ] = None,
    without_ids: Annotated[
        bool,
        typer.Option("--without-ids", help="Leave out ids, unit ids and the embedding table; this is no anonymity."),
    ] = False,
    fidelity: Annotated[
        Path | None, typer.Option(help="fidelity.json of a bench on the same log, for the card.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the source log, for the card.")] = None,
) -> None:
    """Write a memory as files that others can train on without diet_ray, with a card that says what they are.

    Example: diet-ray export runs/kuairand --out exports/kuairand --licence "CC BY-SA 4.0"
    """
    options: Options = ctx.obj
    from diet_ray.figures import size
    from diet_ray.judge.fidelity.words import trust_in
    from diet_ray.report.export import export_memory
    from diet_ray.report.progress import display
    from diet_ray.storage.places import is_uri

    with display(quiet=options.quiet or not is_uri(memory)) as shown:
        made = export_memory(
            memory,
            out,
            units=units,
            ids=not without_ids,
            trust=trust_in(fidelity) if fidelity else None,
            licence=licence,
            on_fetch=shown.status,
        )
    table = "no ids, no table" if without_ids else f"with a table of {made.n_ids:,} ids"
    options.result(
        json.loads(made.model_dump_json()),
        f"{out}: {made.units:,} units of {made.rows_seen:,} rows of {made.log}, {table}, "
        f"{size(sum(entry.bytes for entry in made.files))}\nWhat it is and what it reveals: {out / 'README.md'}",
    )
