"""Connecting to Ray: to a cluster that is named, or to a private one on this machine; and Ray's temper, its chatter and the signals that it
takes over, tamed here for all of `engine/`.

What a run does is told by its events (`diet_ray.report.progress`), and what goes wrong by exceptions. Ray's own log lines stay in its log
files: `/tmp/ray/session_latest/logs` for a private Ray, the dashboard for a cluster.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diet_ray.errors import ConfigError, ResourceError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The coming default; unset, every worker of Ray warns about it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # How often Ray Train looks at its workers. On one machine its 2 s are most of what starting and ending a group costs.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}

RAYLET_SECONDS = 30
"""How long Ray waits for a private node to come up; fixed in Ray 2.60."""

KNOCK_SECONDS = 5.0
"""How long the head of a cluster may take to accept a connection."""


def address_of(address: str | None) -> str | None:
    """The cluster meant: the address given, else `RAY_ADDRESS` (which `ray job submit` sets), else None, a private Ray."""
    return address or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def connect(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Connect this process to Ray for the length of the body. A process that is connected already stays as it is.

    Args:
        address: of a running cluster, as `ray.init` takes it (`HOST:PORT`, `auto`); see `address_of` for None.
        cpus: logical CPUs of a private Ray; None for all of the machine.

    Raises:
        ConfigError: `cpus` for a cluster that runs already, or fewer than 1.
        ResourceError: the cluster does not answer, or no private one can be started.
    """
    address = address_of(address)
    if cpus is not None and address is not None:
        raise ConfigError(f"--cpus: the cluster at {address} runs already and has the CPUs that it has; leave it out")
    if cpus is not None and cpus < 1:
        raise ConfigError(f"--cpus: must be at least 1, not {cpus}")
    if address is None:
        _keep_private()
    import ray

    if ray.is_initialized():
        yield
        return
    with own_signals(signal.SIGTERM):  # Ray's own handler, in C++, aborts the process
        _start(address, cpus)
    try:
        with own_signals(signal.SIGINT):
            yield
    finally:
        ray.shutdown()


@contextmanager
def own_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Put the handlers of these signals back after the body. Ray, Ray Train and Tune leave theirs behind, which ask what has ended already.

    In another than the main thread nobody can set a handler, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def hush(level: int, *loggers: str) -> None:
    """Let these loggers of Ray say nothing below a level: what a run does is told by its events, what goes wrong by exceptions."""
    for name in loggers:
        logging.getLogger(name).setLevel(level)


def _keep_private() -> None:
    """Let a private Ray be reached from this machine alone, and only with a token that nobody else has.

    Otherwise Ray would listen on every interface, with a token that it writes, readable by all, into the home folder. Who set
    `RAY_AUTH_MODE` has decided about the token. Ray reads these when it is imported: they stay, and afterwards it is too late.
    """
    if "ray" in sys.modules:
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Despite its name it counts on every system: 0 keeps all of Ray on 127.0.0.1.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _start(address: str | None, cpus: int | None) -> None:
    import ray

    hush(logging.ERROR, "ray", "ray.data", "ray.train", "ray.tune")
    # Ray reports the death of a worker on our standard output, `log_to_driver` or not: no place for it, least of all under --json.
    ray._private.worker.print_to_stdstream = _unsaid
    if address is not None:
        _knock(address)
    try:
        # Without a dashboard Ray Train complains in each worker's log, every second, that it cannot ask it something; not forwarding the
        # workers' logs keeps that, and every other worker's line, in Ray's log files. An error reaches us as an exception.
        options: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray 2.60 raises a bare one where its node does not come up in time
        reason = " ".join(str(error).split())
        if address is None:
            raise ResourceError(
                f"no private Ray came up on this machine, for which Ray waits {RAYLET_SECONDS} s: {reason}; do without one by --local, "
                "name a running cluster by --address, or try again when the machine is less busy"
            ) from error
        raise ResourceError(_nobody(address, reason)) from error


def _unsaid(*_: object, **__: object) -> None:
    """Say nothing."""


def _knock(address: str) -> None:
    """Find out in seconds that nobody listens at `HOST:PORT`: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal()) or "/" in host:
        if address == "auto":
            return
        raise ConfigError(
            f"--address {address}: must be HOST:PORT of the cluster's head (usually port 6379) or 'auto'; a URL is for `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(_nobody(address, str(error))) from error


def _nobody(address: str, reason: str) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({reason}); start it, or leave out --address and RAY_ADDRESS "
        "to use a private Ray on this machine"
    )
