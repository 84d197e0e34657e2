"""The display of progress while diet_ray works.

The display reads only the events file of a run (`diet_ray.memory.events`), so it cannot disturb the run and works wherever that file is
readable. `StreamState` is a pure function of the events; a `Display` only shows lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from diet_ray.figures import duration, size
from diet_ray.memory.events import read_events
from diet_ray.memory.facts import stage_facts
from diet_ray.memory.layout import count_committed, events_file
from diet_ray.storage.background import repeating

POLL_SECONDS = 0.25
"""Seconds between two reads of the events file."""

LINE_SECONDS = 5.0
"""Minimum seconds between two status lines where a line cannot be replaced, and of a step that gets a line of its own."""

SAME_SECONDS = 60.0
"""The same, where the second says what the first said."""


class Display(Protocol):
    """Where progress is shown."""

    def line(self, text: str) -> None:
        """Report something that is done; the line stays."""
        ...

    def status(self, text: str) -> None:
        """Report the progress; the next status replaces it."""
        ...


class Silent:
    """Shows nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def status(self, text: str) -> None:
        """Nothing."""


class Lines:
    """Timestamped lines, for a pipe or a log file."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self._last, self._status = clock(), ""

    def line(self, text: str) -> None:
        """Write the line."""
        self._last = self.clock()
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self.stream, flush=True)

    def status(self, text: str) -> None:
        """Write the line unless another line was written less than `LINE_SECONDS` ago, or `SAME_SECONDS` where the status is the last."""
        if self.clock() - self._last >= (SAME_SECONDS if text == self._status else LINE_SECONDS):
            self.line(text)
            self._status = text


class Terminal:
    """Permanent lines above one status line that changes."""

    def __init__(self, live: Live, doing: str) -> None:
        self.live, self._spinner = live, Spinner("dots", text=Text(doing))
        live.update(self._spinner)

    def line(self, text: str) -> None:
        """Print above the status line."""
        self.live.console.print(text)

    def status(self, text: str) -> None:
        """Replace the status line."""
        self._spinner.update(text=Text(text))


@contextmanager
def display(*, quiet: bool, doing: str = "starting Ray") -> Iterator[Display]:
    """The display for standard error: live on a terminal, lines elsewhere, nothing where `quiet`; `doing` is its first status."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if quiet:
        yield Silent()
    elif console.is_terminal:
        # Redirection by `Live` would also capture standard output, which is reserved for the result.
        with Live(console=console, transient=True, refresh_per_second=8, redirect_stdout=False) as live:
            yield Terminal(live, doing)
    else:
        yield Lines(sys.stderr)


@dataclass
class StreamState:
    """The state of a run after the events read so far."""

    blocks: list[tuple[str, int]]
    """Name and rows of each block to distil."""
    began: float
    """When this attempt began, seconds since the epoch; from its first stage on, when that began, because the start of Ray is no work."""
    before: int = 0
    """Stages that were committed before this attempt."""
    committed: int = 0
    """All stages committed so far."""
    units: int = 0
    """Units of the last committed memory."""
    memory_bytes: int = 0
    """Bytes of its shards."""
    now: float = 0.0
    """Time of the last event."""
    _step: str = field(default="starting")
    _share: str = ""
    _until: float = 0.0

    @property
    def rate(self) -> float | None:
        """Rows per second over the stages that this attempt committed; None before the first."""
        rows = sum(rows for _, rows in self.blocks[self.before : self.committed])
        return rows / (self._until - self.began) if rows and self._until > self.began else None

    @property
    def eta(self) -> float | None:
        """Seconds from the last event until the last block is done, at the current rate."""
        rate = self.rate
        if rate is None:
            return None
        left = sum(rows for _, rows in self.blocks[self.committed :])
        return max(left / rate - (self.now - self._until), 0.0)

    def apply(self, event: dict[str, Any], memory_bytes: Callable[[int], int] = lambda stage: 0) -> str | None:
        """Update the state by an event; returns the line to show, if any. `memory_bytes(t)` is the size of stage t's memory in bytes."""
        kind, self.now = event["kind"], event["time"]
        if kind == "stage" and self.committed == self.before:
            self.began = event["time"]
        elif kind in ("start", "progress"):
            self._step = event["step"]
            self._share = f" {event['done']}/{event['total']}" if kind == "progress" else ""
        elif kind == "step":
            if event["seconds"] < LINE_SECONDS:  # the status has told it; short blocks would fill a log with such lines
                return None
            rows = event.get("rows")
            speed = f", {rows / event['seconds']:,.0f} rows/s" if rows else ""
            return f"{self._where(event['stage'])}: {event['step']} {event['seconds']:.2f} s{speed}"
        elif kind == "committed":
            stage = event["stage"]
            self.committed, self.units, self._until = stage + 1, event["units"], event["time"]
            self.memory_bytes = memory_bytes(stage)
            return ", ".join([f"{self._where(stage)}: committed", self._memory(), *self._speed()])
        return None

    def status(self) -> str:
        """The progress of the run, in one line."""
        if self.committed == len(self.blocks):
            return f"all {len(self.blocks)} blocks done, {self._memory()}"
        parts = [f"{self._where(self.committed)}: {self._step}{self._share}", *self._speed()]
        return ", ".join([*parts, self._memory()] if self.units else parts)

    def _speed(self) -> list[str]:
        """Rows per second and the time left, where they are known."""
        if self.rate is None or self.eta is None:
            return []
        left = [f"{duration(self.eta)} left"] if self.committed < len(self.blocks) else []
        return [f"{self.rate:,.0f} rows/s", *left]

    def _where(self, stage: int) -> str:
        name = self.blocks[stage][0] if stage < len(self.blocks) else "?"
        return f"block {name} ({stage + 1}/{len(self.blocks)})"

    def _memory(self) -> str:
        return f"memory {self.units:,} units, {size(self.memory_bytes)}"


Hear = Callable[[list[dict[str, Any]], StreamState], None]
"""Called as `hear(events, state)` after each read of the events file, with the list of new events (may be empty) and the new state."""


@contextmanager
def show_progress(run: Path, blocks: list[tuple[str, int]], shown: Display, hear: Hear | None = None) -> Iterator[None]:
    """Show the progress of a run while the body of the `with` statement executes it.

    Args:
        run: the run folder; it need not exist yet. Events that it already holds are not shown again.
        blocks: name and rows of each block to distil.
        shown: the display.
        hear: another receiver of the events, such as `diet_ray.engine.telemetry`.
    """
    path, committed = events_file(run), count_committed(run)
    state = StreamState(blocks, time.time(), before=committed, committed=committed)
    if committed:
        last = stage_facts(run, committed - 1)
        state.units, state.memory_bytes = last.units, last.memory_bytes
    offset = path.stat().st_size if path.exists() else 0

    def look() -> None:
        nonlocal offset
        events, offset = read_events(path, offset)
        for event in events:
            text = state.apply(event, lambda stage: _memory_bytes(run, stage))
            if text:
                shown.line(text)
        shown.status(state.status())
        if hear is not None:
            hear(events, state)

    with repeating(POLL_SECONDS, look, "progress", at_end=True):
        yield


class Counted:
    """Progress as a count, for commands such as `ingest` and `sweep`. The rate is that of the current stage."""

    def __init__(self, shown: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self.shown, self.clock = shown, clock
        self._stage, self._began, self._last = "", clock(), clock()
        self._first: tuple[float, int] | None = None
        """Time and count of the first call, where Ray may have started before it: then its seconds say nothing of a piece's."""

    def __call__(self, stage: str, done: int, total: int, rows: int | None = None) -> None:
        """Report that `done` of `total` pieces of a stage are done, with `rows` rows in them."""
        now = self.clock()
        if stage != self._stage:
            # A stage begins at the end of the one before, because its first call comes after its first piece is done.
            self._first = None if self._stage or not done else (now, done)
            self._stage, self._began = stage, now if not done else self._last
        seconds, self._last = now - self._began, now
        text = f"{stage} {done}/{total}"
        if rows is not None:
            text += f", {rows:,} rows" + (f", {rows / seconds:,.0f} rows/s" if seconds > 0 else "")
        if done == total:
            self.shown.line(f"{text}, {seconds:.2f} s")
        else:
            left = self._left(now, done, total)
            self.shown.status(text if left is None else f"{text}, {duration(left)} left")

    def _left(self, now: float, done: int, total: int) -> float | None:
        """Seconds that the stage still takes; None where too little is known."""
        if not done:
            return None
        if self._first is None:
            return (now - self._began) * (total - done) / done
        first, already = self._first
        # Pieces run side by side, and the first ones end together: only after as long again has each place done another.
        if done == already or now - first < first - self._began:
            return None
        return (now - first) * (total - done) / (done - already)


def _memory_bytes(run: Path, stage: int) -> int:
    return stage_facts(run, stage).memory_bytes
