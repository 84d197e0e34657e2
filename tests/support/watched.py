"""Waiting in tests: as long as something moves, however slow the machine; not for what has stopped."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

PATIENCE = 120.0
"""Seconds after which what shows no sign of life is given up."""


def run(
    command: list[str | Path], *, env: dict[str, str] | None = None, merged: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises TimeoutExpired where it has printed nothing for `PATIENCE` seconds.

    Args:
        command: what to run; it prints something now and then.
        env: its environment; by default this process's.
        merged: whether what it prints on standard error comes with standard output.
    """
    told: dict[str, list[str]] = {"out": [], "err": []}
    heard = [time.monotonic()]

    def hear(stream: IO[str], where: str) -> None:
        for line in stream:
            told[where].append(line)
            heard[0] = time.monotonic()

    with subprocess.Popen(
        [str(word) for word in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
    ) as process:
        streams = [(process.stdout, "out"), (process.stderr, "err")]
        ears = [threading.Thread(target=hear, args=pair, daemon=True) for pair in streams if pair[0]]
        for ear in ears:
            ear.start()
        while process.poll() is None:
            if time.monotonic() - heard[0] > PATIENCE:
                process.kill()
                said = "".join(told["out"] + told["err"])[-3000:]
                raise subprocess.TimeoutExpired(process.args, PATIENCE, said)
            time.sleep(0.05)
        for ear in ears:  # what it has started, and left running, may hold the pipes
            ear.join(timeout=5)
    return subprocess.CompletedProcess(process.args, process.returncode, "".join(told["out"]), "".join(told["err"]))


def wait_for(what: Callable[[], bool], why: Callable[[], str] = lambda: "it did not come") -> None:
    """Wait until something is so; where it does not come to that within `PATIENCE` seconds, fail and say why."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, why()
        time.sleep(0.1)
