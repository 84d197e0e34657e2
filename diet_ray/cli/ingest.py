"""`diet-ray ingest`: files to a log of blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diet_ray.cli.group import Options, app, check_exists
from diet_ray.errors import ConfigError, did_you_mean, nearest

if TYPE_CHECKING:
    from diet_ray.report.progress import Display
    from diet_ray.schema import Schema


def _published(beginning: str) -> list[str]:
    """The names of published logs, for a shell that completes one."""
    from diet_ray.logs.readers import READERS

    return [name for name in READERS if name.startswith(beginning)]


def _lengths(beginning: str) -> list[str]:
    """The lengths of blocks that have a name, for a shell."""
    return [name for name in ("day", "week") if name.startswith(beginning)]


@app.command()
def ingest(
    ctx: typer.Context,
    name_or_schema: Annotated[
        str,
        typer.Argument(
            metavar="NAME|SCHEMA.yaml",
            help="A published log (docs/logs.md), or a schema file.",
            autocompletion=_published,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make for the log; with --append, the log.")],
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Parquet, CSV, ORC or Avro file, a folder of them, or a Delta or Iceberg table; repeatable. Some published logs do "
            "not need it.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Length of a block: day, week, or a number of rows. A published log has its own default.",
            autocompletion=_lengths,
        ),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Keep only the first N blocks; with --append, the first N new blocks.")
    ] = None,
    append: Annotated[
        bool,
        typer.Option(
            "--append", help="Add new blocks after the last one of the log, but only blocks whose time is over."
        ),
    ] = False,
    max_quarantined_rows: Annotated[
        int,
        typer.Option(
            help="Leave out up to N invalid rows, and list them in quarantine.parquet of the log.",
            show_default="0: the first invalid row is an error",
        ),
    ] = 0,
) -> None:
    """Turn Parquet or CSV files into a log of blocks.

    Example: diet-ray ingest my_schema.yaml --from events/ --out logs/mine --by day
    """
    options: Options = ctx.obj
    from diet_ray.report.progress import Counted

    if out.exists() and not append:
        raise ConfigError(
            f"{out}: exists already; add to it with --append, remove it or choose another folder for the log"
        )
    if append and max_quarantined_rows:
        raise ConfigError("--max-quarantined-rows: not with --append; correct the rows, or ingest all files together")
    default_length, schema = _schema(name_or_schema)
    check_exists(*(source or []))
    if default_length is None and not source:
        raise ConfigError("--from: missing; name the Parquet or CSV files, or folders of them")
    length = _block_length(by or default_length)
    with options.working(out) as (shown, place), _sources(name_or_schema, source or [], out, shown) as sources:
        from diet_ray.logs.ingestion.append import append as run_append
        from diet_ray.logs.ingestion.ingest import ingest as run_ingest

        if append:
            appended = run_append(
                schema,
                sources,
                out,
                by=length,
                now=time.time(),
                blocks=blocks,
                on_progress=Counted(shown),
                each=place.each,
            )
            options.result(appended, str(appended))
            return
        run_ingest(
            schema,
            sources,
            out,
            by=length,
            blocks=blocks,
            max_quarantined_rows=max_quarantined_rows,
            on_progress=Counted(shown),
            each=place.each,
        )
    options.show_log(out, next_step(out))


def next_step(log: Path) -> str:
    """The commands that distil a new log."""
    from shlex import quote

    config = quote(f"{log.name}_run.yaml")
    return (
        f"Log: {log}. To distil it: echo {quote(f'log: {log}')} > {config} && "
        f"diet-ray distill --config {config} --out {quote(f'runs/{log.name}')}"
    )


def _schema(name_or_schema: str) -> tuple[str | None, Schema]:
    """The default block length, if any, and the schema of a published log or of a schema file."""
    from diet_ray.logs.readers import READERS
    from diet_ray.schema import Schema
    from diet_ray.settings import load_yaml

    if name_or_schema in READERS:
        return READERS[name_or_schema].by, READERS[name_or_schema].schema
    if not Path(name_or_schema).suffix:
        near = nearest(name_or_schema, READERS)
        hint = f"did you mean {near!r}?" if near else "give one of these names or a .yaml file"
        raise ConfigError(
            f"{name_or_schema!r} is neither a published log with a reader ({', '.join(READERS)}) nor a schema file; {hint}"
        )
    check_exists(name_or_schema)
    return None, load_yaml(Schema, name_or_schema)


def _block_length(by: str | None) -> Any:
    if by is None:
        raise ConfigError("--by: missing; give day, week or a number of rows")
    if by.isdecimal():
        return int(by)
    if by not in ("day", "week"):
        hint = did_you_mean(by, ("day", "week"), cutoff=0.4)
        raise ConfigError(f"--by: must be day, week or a number of rows, not {by!r}{hint}")
    return by


@contextmanager
def _sources(name_or_schema: str, given: list[Path], out: Path, shown: Display) -> Iterator[list[Path]]:
    """The files to ingest; those of a published log are prepared beside `out`, where all nodes can read them, and removed afterwards."""
    from diet_ray.logs.readers import READERS

    if name_or_schema not in READERS:
        yield given
        return
    if len(given) > 1:
        raise ConfigError(f"--from: {name_or_schema} takes one folder or file, not {len(given)}")
    from diet_ray.storage.whole_folder import draft

    with draft(out, "prepared", "log") as folder:
        shown.status(f"reading the files of {name_or_schema}")
        yield READERS[name_or_schema].prepare(given[0] if given else None, folder / "files")
