"""A short step that Ctrl-C and SIGTERM do not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A Ctrl-C or SIGTERM that comes in the body has its effect at its end. The body must be short.

    Python handles signals in the main thread alone, so nothing is done in any other one. What would end the process without Python, such
    as SIGTERM by default, still does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []

    def later(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for each in before:
            signal.signal(each, later)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number, frame in received[:1]:
            before[signal.Signals(number)](number, frame)
