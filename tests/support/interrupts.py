"""Signals at each step of a command: each call of Python that opens, makes, renames or removes something is a step."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVENTS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "os.utime",
    "os.truncate",
    "shutil.rmtree",
}

_counting: list[_Counter] = []


class _Counter:
    def __init__(self, at: list[int], number: int) -> None:
        self.at, self.number, self.done = at, number, 0

    def step(self) -> None:
        self.done += 1
        if self.done in self.at:
            os.kill(os.getpid(), self.number)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _counting or event not in EVENTS or threading.current_thread() is not threading.main_thread():
        return
    if not str(arguments[0]).endswith((".py", ".pyc", "__pycache__")):  # of an import
        _counting[-1].step()


sys.addaudithook(_hook)


@contextmanager
def signals(at: list[int], number: int = signal.SIGINT) -> Iterator[_Counter]:
    """Send this process a signal at these steps of the body, counted from 1; yields the counter, whose `done` is the number of steps."""
    counter = _Counter(at, number)
    _counting.append(counter)
    try:
        yield counter
    finally:
        _counting.pop()
