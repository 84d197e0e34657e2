"""A thread that calls a function repeatedly while the main work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(seconds: float, do: Callable[[], bool | None], name: str, *, at_end: bool = False) -> Iterator[None]:
    """Call `do` every so many seconds in a thread, until it returns False or the body ends.

    Args:
        seconds: from one call to the next.
        do: what to call.
        name: of the thread.
        at_end: whether to call it once more when the body has ended.
    """
    end = threading.Event()

    def work() -> None:
        while not end.wait(seconds):
            if do() is False:
                return
        if at_end:
            do()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
