"""Tests do not depend on what the process that starts them leaves to its children."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_the_parent_ignores_still_ends_what_a_test_starts(number: signal.Signals) -> None:
    child = f"import signal, time; signal.raise_signal({int(number)}); time.sleep(60)"
    code = f"import tests.conftest, subprocess, sys; sys.exit(-subprocess.call([sys.executable, '-c', {child!r}]))"

    def ignore() -> None:
        signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})

    done = subprocess.run([sys.executable, "-c", code], preexec_fn=ignore, timeout=60, capture_output=True, text=True)
    assert done.returncode == number
