"""The command line as a whole: its global options, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json
from typer.core import TyperGroup

from diet_ray.errors import ConfigError, DietError

if TYPE_CHECKING:
    from rich.table import Table

    from diet_ray.judge.workplace import Workplace
    from diet_ray.report.progress import Display
    from diet_ray.settings import Settings

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

TERMINATED = 143
"""Exit code after SIGTERM, by which schedulers, systemd and `ray job stop` end a process."""


class Commands(TyperGroup):
    """The group of commands, with the one place where an error becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. A user's error ends as one line on standard error; any other keeps its traceback."""
        with _terminable() as terminated:
            try:
                return super().invoke(ctx)
            except DietError as error:
                typer.echo("error: " + " ".join(str(error).split()), err=True)
                raise typer.Exit(error.exit_code) from None
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                where = error.filename or "what was to be written"
                typer.echo(f"error: {where}: no space left on the disk; free some and go on", err=True)
                raise typer.Exit(DietError.exit_code) from None
            except (KeyboardInterrupt, SystemExit):
                # No command of ours calls sys.exit: Ray Train does, when Ctrl-C has ended its workers.
                raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from None


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """Let SIGTERM do what Ctrl-C does for the length of the body, so that whoever can end well on one does on the other, Ray Train too.

    Yields the signals received so far.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # a shell lets what it starts in the background ignore Ctrl-C
            raise KeyboardInterrupt
        handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


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
    local: bool

    @contextmanager
    def working(self) -> Iterator[tuple[Display, Workplace]]:
        """A display, and where the work is done, for the length of the body: in this process, or on Ray."""
        from diet_ray.judge.workplace import Here
        from diet_ray.report.progress import display

        if self.local:
            for option, value in (("--address", self.address), ("--cpus", self.cpus)):
                if value is not None:
                    raise ConfigError(
                        f"{option}: is for Ray, and --local (or the variable DIET_RAY_LOCAL) does without it; leave one of the two out"
                    )
            with display(quiet=self.quiet, doing="starting") as shown:
                yield shown, Here()
            return
        from diet_ray.engine.cluster import connect
        from diet_ray.engine.workplace import OnCluster

        with display(quiet=self.quiet) as shown, connect(self.address, self.cpus):
            yield shown, OnCluster()

    def result(self, data: Settings | dict[str, Any], *readable: str | Table) -> None:
        """Print a result: as JSON on standard output (nan as null), or for a person unless they asked for quiet."""
        if self.json:
            # Not json.dumps, which writes NaN: no JSON that another program reads.
            typer.echo(to_json(data, indent=2, inf_nan_mode="null").decode())
        elif not self.quiet:
            from rich.console import Console

            # In a pipe or a file there is no width to keep to, and a broken table is hard to read.
            console = Console() if sys.stdout.isatty() else Console(width=140)
            for part in readable:
                console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))

    def log_made(self, out: Path) -> None:
        """Print what a new log holds."""
        from diet_ray.logs.blocks import open_log
        from diet_ray.logs.ingestion import quarantine

        blocks, left = open_log(out).blocks, quarantine.count(out)
        rows, shards = sum(block.rows for block in blocks), sum(len(block.shards) for block in blocks)
        self.result(
            {
                "log": str(out),
                "rows": rows,
                "ids": blocks[-1].n_ids,
                "quarantined": left,
                "blocks": [
                    {
                        "name": block.name,
                        "rows": block.rows,
                        "positives": block.positives,
                        "quarantined": block.quarantined,
                    }
                    for block in blocks
                ],
            },
            f"{out}: {rows:,} rows in {len(blocks)} blocks ({blocks[0].name} to {blocks[-1].name}), {shards} shards"
            + (f"; {left:,} rows left out, see {out / quarantine.FILE}" if left else ""),
        )


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
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            envvar="DIET_RAY_LOCAL",
            help="Do everything in this process, without Ray; the result has the same bytes.",
        ),
    ] = False,
) -> None:
    ctx.obj = Options(quiet, as_json, address, cpus, local)
