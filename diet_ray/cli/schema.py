"""`diet-ray schema`: a first schema for files that nobody has described."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diet_ray.cli.group import Options, app
from diet_ray.errors import ConfigError


@app.command()
def schema(
    ctx: typer.Context,
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Parquet, CSV, ORC or Avro file, a folder of them, or a Delta or Iceberg table."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="SCHEMA.yaml", help="File to write. Default: print the schema.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the log. Default: that of the first source.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to read, from all over the files.")] = 100_000,
) -> None:
    """Read some rows of a log's files and write a first schema, with the reason of each guess and a mark where it is unsure.

    Example: diet-ray schema events/ --out my_schema.yaml
    """
    options: Options = ctx.obj
    from diet_ray.logs.guess.columns import columns_of
    from diet_ray.logs.guess.roles import guess
    from diet_ray.logs.guess.sample import read_sample
    from diet_ray.logs.guess.text import block_length, doubts, schema_text

    if out is not None and out.exists():
        raise ConfigError(f"--out: {out} exists already; choose another file, or remove it")
    sample = read_sample(source, rows)
    guessed = guess(columns_of(sample.table), rows=sample.rows)
    text = schema_text(name or source[0].resolve().name.split(".")[0] or "log", guessed, sample)
    unsure = doubts(guessed)
    if out is None:
        options.result({"schema": text, "unsure": unsure}, text)
        return
    out.write_text(text, encoding="utf-8")
    log = f"logs/{out.stem.removesuffix('_schema')}"
    given = " ".join(f"--from {path}" for path in source)
    options.result(
        {"schema": str(out), "unsure": unsure},
        f"{out}: {len(guessed.fields)} fields, guessed from {sample.table.num_rows:,} rows",
        *(f"unsure: {line}" for line in unsure),
        f"Look at the file, then: diet-ray ingest {out} {given} --out {log} --by {block_length(guessed, sample)}",
    )
