"""Events of a run, as lines of JSON. The progress bar, `diet-ray status` and the report read them.

The leading worker writes them next to the result, on the shared storage. The result does not depend on them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diet_ray.links import no_link


class Events:
    """Appends events to a file; without a path they are dropped."""

    INTERVAL = 0.5
    """Least seconds between two `progress` events of one step."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._last = 0.0

    def emit(self, kind: str, **values: Any) -> None:
        """Append one event of that kind, with the time in seconds since the epoch."""
        if self.path is None:
            return
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **values})
        with open(self.path, "a", encoding="utf-8", opener=no_link) as file:
            file.write(line + "\n")

    @contextmanager
    def step(self, stage: int, name: str, **values: Any) -> Iterator[None]:
        """Emit `step` when the body is done, with its wall time and the CPU time of this process, in seconds."""
        self.emit("start", stage=stage, step=name, **values)
        began, cpu_began = time.perf_counter(), time.process_time()
        yield
        seconds, cpu = round(time.perf_counter() - began, 4), round(time.process_time() - cpu_began, 4)
        self.emit("step", stage=stage, step=name, seconds=seconds, cpu=cpu, **values)

    def progress(self, stage: int, name: str, done: int, total: int) -> None:
        """Emit the progress of a step, at most once per `INTERVAL`."""
        now = time.monotonic()
        if now - self._last >= self.INTERVAL or done == total:
            self._last = now
            self.emit("progress", stage=stage, step=name, done=done, total=total)


def read_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The complete events from byte `offset` on, and the offset at which to go on reading.

    A line that is no event is skipped, such as one that a full disk or a crash of the machine has cut short: no result depends on it.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [event for line in whole.splitlines() if (event := _event(line))], offset + len(whole)


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    needed = {"time": _number, **_VALUES.get(event["kind"], {})}
    return event if all(is_valid(event.get(name)) for name, is_valid in needed.items()) else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53


def _maybe(value: Any) -> bool:
    return value is None or _number(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and _number(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


_STEP: dict[str, Callable[[Any], bool]] = {"stage": _count, "step": _text}

_VALUES: dict[str, dict[str, Callable[[Any], bool]]] = {
    "stage": {"stage": _count, "block": _text, "rows": _count},
    "start": _STEP,
    "progress": {**_STEP, "done": _count, "total": _count},
    "step": {**_STEP, "seconds": _number, "cpu": _maybe, "rows": _maybe},
    "committed": {"stage": _count, "block": _text, "units": _count, "rows_seen": _count},
}
"""What readers rely on in an event, by its kind."""
