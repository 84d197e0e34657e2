"""One trial, run so that it cannot spoil the others: whatever a candidate's code raises is a line of text, what it changes in the process
is put back after each step, and it may have a limit of time."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.candidates.process_state import ProcessState, seed_all
from diet_ray.errors import DietError, one_line
from diet_ray.judge.sweep_plan import Work
from diet_ray.judge.trial import Report, TrialContext, run_trial
from diet_ray.seeds import derive_seed
from diet_ray.settings import parse

_TORCH = Path(torch.__file__).parent

Limit = Callable[[float], AbstractContextManager[None]]
"""Ends the body of a `with` statement, or the process, after so many seconds."""


class TimeUp(BaseException):
    """The time of a trial is up. It is no `Exception`, so that few candidates catch it."""


def attempt(
    work: Work,
    context: TrialContext,
    device: torch.device,
    *,
    key: str,
    threads: int,
    seconds: float | None,
    limit: Limit | None = None,
) -> Iterator[Report | str]:
    """Run a trial; yields its reports, and where it fails why, in one line.

    Args:
        work: the candidate and its seeds.
        context: what the trials share.
        device: where students train.
        key: the trial's identity, which names the files that it writes.
        threads: of torch, while the trial runs.
        seconds: wall time after which the trial fails; None for no limit.
        limit: how it is then ended; by default by an `alarm`.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came, even if the candidate's code has caught it.
    """

    def reports() -> Iterator[Report]:
        torch.set_num_threads(threads)
        spec = parse(CandidateSpec, work.spec, where="drawn")
        yield from run_trial(spec, work.seeds, context, device, key=key)

    try:
        yield from guarded(reports(), derive_seed(work.seeds[0], "global"), seconds, limit or alarm)
    except Exception as error:  # a candidate's own code may raise anything; the other candidates continue
        yield reason(error).removeprefix(f"candidate {work.name!r}, ")  # who shows it names the candidate


def guarded(reports: Iterator[Report], seed: int, seconds: float | None, limit: Limit) -> Iterator[Report]:
    """The reports of a trial. Between two of them the process is as it was before; within, as the trial has left it."""
    inside, left = None, seconds
    while True:
        outside, began = ProcessState.now(), time.monotonic()
        failure, report = None, None
        with _interrupts() as interrupts:
            try:
                if inside is None:
                    seed_all(seed)
                else:
                    inside.restore()
                with nullcontext() if left is None else limit(left):
                    report = next(reports, None)
            except BaseException as error:
                failure = error
            finally:
                inside = ProcessState.now()
                outside.restore()
        if interrupts:
            raise KeyboardInterrupt
        if isinstance(failure, TimeUp):
            raise DietError(hanging(seconds or 0.0)) from failure
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            raise DietError(f"{reason(failure)}: the code of a candidate must not end the process") from failure
        if report is None:
            return
        if left is not None:
            left = max(left - (time.monotonic() - began), 1e-3)
        yield report


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in the body after so many seconds, and again each second, in case that the code of the body catches it.

    It needs the main thread. Code that never returns to Python, such as a loop in C, goes on: only the end of its process ends it.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The Ctrl-Cs and SIGTERMs that come in the body; they have their usual effect. A `KeyboardInterrupt` without one is the candidate's.

    In any other thread than the main one there are none. The handlers are put back, whatever the body has set.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(before[number]):
            signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def hanging(seconds: float) -> str:
    """Why a trial failed whose time was up."""
    return f"hangs, or is too slow: not done after {seconds:g} s (key 'resources.timeout')"


def reason(error: BaseException) -> str:
    """Why a trial failed, in one line. An error of a candidate's own code has its file and line at the end."""
    if isinstance(error, DietError):
        return one_line(error)
    frames = traceback.extract_tb(error.__traceback__)
    # What torch refuses was asked for by a line of the candidate's file: its author can change that line.
    last = next((frame for frame in reversed(frames) if _TORCH not in Path(frame.filename).parents), None)
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last else ""
    return f"{type(error).__name__}: {one_line(error)}{where}"
