"""Killing the processes of a run at chosen events of the run.

`benchmarks/faults/chaos.py` kills at random events, `pytest -m faults` at every event of a stage in turn. The package has no code for
either.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.small_cluster import PATIENCE, Driver, Place, Stuck, kill_process
from diet_ray.storage.hashes import sha256


@dataclass(frozen=True)
class Kill:
    """A process to kill, and the moment: `delay` seconds after an event of a run."""

    target: str
    """One of `TITLES`, `node` or `driver`."""
    kind: str
    """Kind of the event: `start` or `step` (the end of a step), `progress`, `committed`."""
    step: str
    """The step of the event; empty for `committed`."""
    stage: int | None = None
    """The stage of the event; None for the next stage that has such an event."""
    delay: float = 0.0

    def meets(self, event: dict[str, Any]) -> bool:
        """Whether `event` is the event of this kill."""
        stage = self.stage is None or event.get("stage") == self.stage
        return stage and event["kind"] == self.kind and event.get("step", "") == self.step


def strike(place: Place, driver: Driver, kill: Kill, seconds: float = PATIENCE) -> str | None:
    """Wait for the event of a kill and kill the process.

    Returns:
        The stage and step of the run when the signal was sent, such as `2 refine`; None where the driver ended before, or no such process
        existed.

    Raises:
        Stuck: the event has not come in time.
    """
    doing, until = "0 begin", time.monotonic() + seconds
    while True:
        news = driver.news()
        for at, event in enumerate(news):
            doing = _doing(event) or doing
            if kill.meets(event):
                if not _strike(place, driver, kill):
                    return None
                # The last event that came with it, during the delay, or before the process was gone.
                return next(filter(None, map(_doing, reversed([*news[at + 1 :], *driver.news()]))), doing)
        if driver.process.poll() is not None:
            return None
        if time.monotonic() > until:
            raise Stuck(f"{driver.run}: {kill} has not come after {seconds:g} s; {driver.errors()}")
        time.sleep(0.001)


def _strike(place: Place, driver: Driver, kill: Kill) -> bool:
    until = time.monotonic() + 60
    if kill.target in ("scorer", "scoring"):  # they start slowly, and exist only during a part of a step
        while not place.processes(kill.target):
            if driver.news() or time.monotonic() > until or driver.process.poll() is not None:
                return False
            time.sleep(0.005)
    time.sleep(kill.delay)
    if kill.target == "node":
        return place.kill_node()
    if kill.target == "driver":
        driver.end()
        return True
    processes = place.processes(kill.target)
    return bool(processes) and kill_process(processes[-1])


def _doing(event: dict[str, Any]) -> str | None:
    """The stage and step of a run after an event, such as `2 refine`."""
    follows = {
        "reference": "score",
        "score": "select",
        "select": "align",
        "align": "fuse",
        "fuse": "refine",
        "refine": "commit",
    }
    stage = event.get("stage")
    if event["kind"] in ("start", "progress"):
        return f"{stage} {event['step']}"
    if event["kind"] == "step" and event["step"] in follows:
        return f"{stage} {follows[event['step']]}"
    return f"{stage + 1} begin" if event["kind"] == "committed" and stage is not None else None


def ended(driver: Driver) -> int:
    """Wait for the end of a driver; returns its exit code.

    Raises:
        AssertionError: it was not killed, and ended neither with exit code 0 nor with exit code 2 and a one-line error.
        Stuck: it does not end.
    """
    code, errors = driver.wait(), driver.errors()
    if code not in (0, -signal.SIGKILL):
        assert code == 2, f"{driver.run}: exit code {code}: {errors[-4000:]}"
        assert re.fullmatch("error: .*", errors), f"{driver.run}: {errors[-4000:]}"
    return code


def finish(driver: Driver, again: Callable[[], Driver], tries: int = 4) -> list[int]:
    """Wait for the end of a run and resume it where it has ended early; returns the exit codes of its drivers.

    Raises:
        AssertionError, Stuck: see `ended`; or the run is not complete after `tries` drivers.
    """
    codes = [ended(driver)]
    while codes[-1]:
        if len(codes) == tries:
            raise Stuck(f"{driver.run}: {codes}")
        codes.append(ended(again()))
    return codes


def undisturbed(place: Place, log: Path, **cluster: Any) -> Path:
    """An undisturbed run, made at the first call. There is one per config, because a stage's manifest contains the config."""
    run = place.folder / "-".join(["undisturbed", *(f"{key}-{value}" for key, value in sorted(cluster.items()))])
    if not run.exists():
        assert ended(place.distil(run, log, **cluster)) == 0
    return run


def bytes_of(run: Path) -> dict[str, str]:
    """Checksum of each file in the folder of the stages of a run, which includes files that do not belong there."""
    stages = run / "stages"
    return {path.relative_to(stages).as_posix(): sha256(path) for path in sorted(stages.rglob("*")) if path.is_file()}
