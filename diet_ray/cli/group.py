"""The group of all commands: the global options, and the only place that turns an error into a message and an exit code."""

from __future__ import annotations

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
from typer.core import TyperGroup

from diet_ray.errors import ConfigError, users_error
from diet_ray.kinds import place_of, told
from diet_ray.storage.places import is_uri

if TYPE_CHECKING:
    from rich.table import Table

    from diet_ray.judge.workplace import Workplace
    from diet_ray.report.progress import Display
    from diet_ray.settings import Settings

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

TERMINATED = 143
"""Exit code after SIGTERM, with which schedulers, systemd and `ray job stop` end a process."""


class Commands(TyperGroup):
    """The group of commands; it turns an error into a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take global options after the command, too."""
        return super().parse_args(ctx, _global_first(args))

    def invoke(self, ctx: Any) -> Any:
        """Run a command. A user's error is printed as one line on standard error; any other error keeps its traceback."""
        with _terminable() as terminated:
            try:
                return super().invoke(ctx)
            except (KeyboardInterrupt, SystemExit):
                # SystemExit comes only from Ray Train, when Ctrl-C has ended its workers; no command of diet_ray calls sys.exit.
                raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from None
            except Exception as error:
                if _after_interrupt(error):
                    raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from None
                known = users_error(error)
                if known is None:
                    raise
                typer.echo("error: " + " ".join(str(known).split()), err=True)
                raise typer.Exit(known.exit_code) from None


def _after_interrupt(error: BaseException | None) -> bool:
    """Whether an error came up while Ctrl-C or SIGTERM was ending the command: what fails then is no news."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


_FLAGS, _WITH_VALUE = ("--json", "--quiet", "--local"), ("--address", "--cpus")
"""The global options; no command has one of these names."""


def _global_first(args: list[str]) -> list[str]:
    """The arguments, with the global options first; what follows `--` stays."""
    first, rest, left = list[str](), list[str](), iter(args)
    for arg in left:
        if arg == "--":
            rest += [arg, *left]
        elif arg in _FLAGS or arg.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            first.append(arg)
        elif arg in _WITH_VALUE:
            first += [arg, *([value] if (value := next(left, None)) is not None else [])]
        else:
            rest.append(arg)
    return first + rest


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """In the body of the `with` statement, SIGTERM has the effect of Ctrl-C, so that code that handles Ctrl-C, such as Ray Train, also
    handles SIGTERM.

    Yields the list of signals received so far.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # a process that a shell starts in the background ignores Ctrl-C
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
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil a growing click log into a synthetic memory of 1-2 % of its size, and judge candidate models on that memory.",
)


def check_exists(*places: str | Path | None) -> None:
    """Raise ConfigError for the first path that does not exist, before anything is imported that takes seconds; a URI passes."""
    for place in places:
        if place is not None and not is_uri(str(place)) and not Path(place).exists():
            raise ConfigError(f"{place}: no such file or folder; correct the path")


def check_place(place: str | Path | None, *kinds: str) -> None:
    """Raise ConfigError where a path does not exist, or is a place of ours or raw data, but of none of these kinds (`diet_ray.kinds`)."""
    check_exists(place)
    if place is None or is_uri(str(place)):
        return
    kind = place_of(Path(place))
    if kind is not None and kind not in kinds:
        raise ConfigError(f"{place}: is no {' or '.join(kinds)}; it is {told(Path(place), kind)}")


def clear_drafts(making: Path | None, shown: Display) -> None:
    """Remove, and say, what killed commands have left beside the folder that this command is to make."""
    from diet_ray.storage.whole_folder import remove_forsaken

    for line in remove_forsaken(making) if making else []:
        shown.line(line)


@dataclass(frozen=True)
class Options:
    """The global options."""

    quiet: bool
    json: bool
    address: str | None
    cpus: int | None
    local: bool

    @contextmanager
    def working(self, making: Path | None = None) -> Iterator[tuple[Display, Workplace]]:
        """A display, and the place where the work is done, for the body of the `with` statement: this process, or Ray, which is connected
        when the first work is to be done. Drafts of `making` that killed commands have left are removed before."""
        from diet_ray.judge.workplace import Here
        from diet_ray.report.progress import display

        if self.local:
            for option, value in (("--address", self.address), ("--cpus", self.cpus)):
                if value is not None:
                    raise ConfigError(
                        f"{option}: is for Ray, and --local (or the variable DIET_RAY_LOCAL) does not use Ray; leave out one of the two"
                    )
            with display(quiet=self.quiet, doing="starting") as shown:
                clear_drafts(making, shown)
                yield shown, Here()
            return
        from diet_ray.engine.workplace import OnCluster

        with (
            display(quiet=self.quiet) as shown,
            OnCluster(self.address, self.cpus, on_trouble=shown.line) as place,
        ):
            clear_drafts(making, shown)
            yield shown, place

    def result(self, data: Settings | dict[str, Any], *readable: str | Table) -> None:
        """Print a result: with --json as JSON on standard output (nan as null), otherwise as text unless --quiet is given."""
        if self.json:
            from pydantic_core import to_json

            # Not json.dumps: it writes NaN, which is not valid JSON.
            typer.echo(to_json(data, indent=2, inf_nan_mode="null").decode())
        elif not self.quiet:
            for part in readable:
                if isinstance(part, str):
                    typer.echo(part)
                else:
                    _show_table(part)

    def show_log(self, path: Path, *more: str) -> None:
        """Print the contents of a log, and more lines."""
        from diet_ray.report.log_report import lines_to_print, report_log

        report = report_log(path)
        self.result(report, *lines_to_print(report), *more)


def _show_table(table: Table) -> None:
    # Imported here: it takes a tenth of the time of a command that prints lines only.
    from rich.console import Console

    # A pipe or a file has no width; a fixed wide one avoids broken lines in tables.
    width = None if sys.stdout.isatty() else 140
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def _print_version(asked: bool) -> None:
    if asked:
        from diet_ray.storage.hashes import versions_of

        typer.echo(f"diet_ray {versions_of(('diet_ray',))['diet_ray']}")
        raise typer.Exit()


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version of diet_ray and exit."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress and no tables; errors are still shown.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the result as JSON on standard output; other output goes to standard error."
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of a running Ray cluster, or 'auto'. Default: $RAY_ADDRESS, else a private Ray on this machine."
        ),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(help="Logical CPUs of the private Ray. Default: all CPUs of this machine.")
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
