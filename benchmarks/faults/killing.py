"""Killing the processes of a run at chosen points, which are read from its events.

`benchmarks/faults/chaos.py` kills at random, `pytest -m faults` at every point of a stage in turn. Nothing in the package knows of either.
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
    """Who is to be killed, and when: `delay` seconds after an event of a run."""

    target: str
    """One of `TITLES`, `node` or `driver`."""
    kind: str
    """Kind of the event: `start` or `step` (the end of a step), `progress`, `committed`."""
    step: str
    """The step that it is about; empty for `committed`."""
    stage: int | None = None
    """Its stage; None for whichever comes next."""
    delay: float = 0.0

    def meets(self, event: dict[str, Any]) -> bool:
        """Whether this is the event."""
        stage = self.stage is None or event.get("stage") == self.stage
        return stage and event["kind"] == self.kind and event.get("step", "") == self.step


def strike(place: Place, driver: Driver, kill: Kill, seconds: float = PATIENCE) -> str | None:
    """Wait for the point of a kill and do it.

    Returns:
        What the run was doing when the signal was sent, such as `2 refine`; None where the driver ended before, or nobody was there.

    Raises:
        Stuck: the point has not come in time.
    """
    doing, until = "0 begin", time.monotonic() + seconds
    while True:
        news = driver.news()
        for at, event in enumerate(news):
            doing = _doing(event) or doing
            if kill.meets(event):
                if not _strike(place, driver, kill):
                    return None
                # What came with it, in the delay, and until the process was gone.
                return next(filter(None, map(_doing, reversed([*news[at + 1 :], *driver.news()]))), doing)
        if driver.process.poll() is not None:
            return None
        if time.monotonic() > until:
            raise Stuck(f"{driver.run}: {kill} has not come after {seconds:g} s; {driver.errors()}")
        time.sleep(0.001)


def _strike(place: Place, driver: Driver, kill: Kill) -> bool:
    until = time.monotonic() + 60
    if kill.target in ("scorer", "scoring"):  # they take their time to start, and are there for a part of a step alone
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
    found = place.processes(kill.target)
    return bool(found) and kill_process(found[-1])


def _doing(event: dict[str, Any]) -> str | None:
    """What a run does from an event on."""
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
    """Wait for a driver's end; returns its exit code.

    Raises:
        AssertionError: it was not killed, and ended otherwise than well or with one line that says what to do.
        Stuck: it does not end.
    """
    code, said = driver.wait(), driver.errors()
    if code not in (0, -signal.SIGKILL):
        assert code == 2, f"{driver.run}: exit code {code}: {said[-4000:]}"
        assert re.fullmatch("error: .*", said), f"{driver.run}: {said[-4000:]}"
    return code


def finish(driver: Driver, again: Callable[[], Driver], tries: int = 4) -> list[int]:
    """See a run to its end, resuming it where it has ended early; returns the exit codes of its drivers.

    Raises:
        AssertionError, Stuck: see `ended`, or it never comes to an end.
    """
    codes = [ended(driver)]
    while codes[-1]:
        if len(codes) == tries:
            raise Stuck(f"{driver.run}: {codes}")
        codes.append(ended(again()))
    return codes


def undisturbed(place: Place, log: Path, **cluster: Any) -> Path:
    """A run that nobody disturbs, made when first asked for: one per config, for a stage's manifest tells that, `max_failures` with it."""
    run = place.folder / "-".join(["undisturbed", *(f"{key}-{value}" for key, value in sorted(cluster.items()))])
    if not run.exists():
        assert ended(place.distil(run, log, **cluster)) == 0
    return run


def bytes_of(run: Path) -> dict[str, str]:
    """Checksum of each file of each stage of a run, and of what else lies beside them: there must be nothing."""
    stages = run / "stages"
    return {path.relative_to(stages).as_posix(): sha256(path) for path in sorted(stages.rglob("*")) if path.is_file()}
