"""`diet-ray export`: a memory as files for use without diet_ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app, check_place, clear_drafts


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
            help="Keep only N units: each label keeps its share, and the units of highest influence stay. Default: all."
        ),
    ] = None,
    without_ids: Annotated[
        bool,
        typer.Option(
            "--without-ids", help="Leave out ids, unit ids and the embedding table; this does not anonymise the rows."
        ),
    ] = False,
    moments: Annotated[
        bool,
        typer.Option(
            "--moments",
            help="Add Adam's moments of the table, twice its bytes, so that candidates can be launched from the export.",
        ),
    ] = False,
    fidelity: Annotated[
        Path | None, typer.Option(help="fidelity.json of a bench on the same log, for the card.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the source log, for the card.")] = None,
) -> None:
    """Write a memory as files for training without diet_ray, with a card that describes them.

    Example: diet-ray export runs/kuairand --out exports/kuairand --licence "CC BY-SA 4.0"
    """
    options: Options = ctx.obj
    check_place(memory, "run", "stage")
    from diet_ray.figures import size
    from diet_ray.judge.fidelity.words import trust_in
    from diet_ray.report.export import export_memory
    from diet_ray.report.export_manifest import MOMENTS
    from diet_ray.report.progress import display
    from diet_ray.storage.places import is_uri

    with display(quiet=options.quiet or not is_uri(memory)) as shown:
        clear_drafts(out, shown)
        manifest = export_memory(
            memory,
            out,
            units=units,
            ids=not without_ids,
            moments=moments,
            trust=trust_in(fidelity) if fidelity else None,
            licence=licence,
            on_fetch=shown.status,
        )
    table = "no ids, no table" if without_ids else f"with a table of {manifest.n_ids:,} ids"
    sizes = {entry.path: entry.bytes for entry in manifest.files}
    if MOMENTS in sizes:
        table += f" and its moments ({size(sizes[MOMENTS])})"
    options.result(
        json.loads(manifest.model_dump_json()),
        f"{out}: {manifest.units:,} units of {manifest.rows_seen:,} rows of {manifest.log}, {table}, "
        f"{size(sum(entry.bytes for entry in manifest.files))}\nContents and privacy: {out / 'README.md'}",
    )
