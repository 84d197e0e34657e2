"""Connects to Ray: to a named cluster, or to a private one on this machine.

For all of `engine/`, it also limits Ray's output and restores the signal handlers that Ray replaces. A run reports its progress by events
(`diet_ray.report.progress`) and its faults by exceptions. Ray's own log lines stay in its log files: `/tmp/ray/session_latest/logs` for a
private Ray, the dashboard for a cluster.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diet_ray.errors import ConfigError, ResourceError, one_line

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The future default of Ray. Where it is unset, every worker of Ray prints a warning.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # How often Ray Train checks its workers. On one machine its default of 2 s is most of the time to start and end a group.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Whether Ray Train watches for nodes that a cloud takes back: an actor of its own, which takes 4 s of CPU to start. Nobody takes this
    # machine back by way of a private Ray.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}

RAYLET_SECONDS = 30
"""How long Ray waits for the start of a private node; fixed in Ray 2.60."""

KNOCK_SECONDS = 5.0
"""How long the head of a cluster may take to accept a connection."""


def address_of(address: str | None) -> str | None:
    """The address of the cluster: the given one, else `RAY_ADDRESS` (which `ray job submit` sets), else None for a private Ray."""
    return address or os.environ.get("RAY_ADDRESS") or None


def asked_for(address: str | None, cpus: int | None) -> bool:
    """Whether the user asks for Ray: names a cluster, gives the CPUs of a private Ray, or has connected this process before."""
    return cpus is not None or not starts_private(address)


def starts_private(address: str | None) -> bool:
    """Whether `connect` would start a private Ray: no cluster is named, and this process is not connected."""
    return address_of(address) is None and not ("ray" in sys.modules and sys.modules["ray"].is_initialized())


def check_options(address: str | None, cpus: int | None) -> None:
    """Raise ConfigError where the arguments of `connect` contradict each other."""
    address = address_of(address)
    if cpus is not None and address is not None:
        raise ConfigError(
            f"--cpus: the cluster at {address} runs already, and its CPUs cannot be set here; leave --cpus out"
        )
    if cpus is not None and cpus < 1:
        raise ConfigError(f"--cpus: must be at least 1, not {cpus}")


@contextmanager
def connect(
    address: str | None = None, cpus: int | None = None, *, on_trouble: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Connect this process to Ray while the body runs. A process that is connected already stays as it is.

    Args:
        address: address of a running cluster, as `ray.init` takes it (`HOST:PORT`, `auto`); see `address_of` for None.
        cpus: logical CPUs of a private Ray; None for all of the machine.
        on_trouble: called with a line of text where a private Ray does not start and is started once more.

    Raises:
        ConfigError: `cpus` is given for a cluster that runs already, or is less than 1.
        ResourceError: the cluster does not answer, or no private one can be started.
    """
    check_options(address, cpus)
    address = address_of(address)
    if address is None:
        _keep_private()
    import ray

    if ray.is_initialized():
        yield
        return
    with own_signals(signal.SIGTERM):  # Ray's own handler, in C++, aborts the process
        _start(address, cpus, on_trouble)
    try:
        with own_signals(signal.SIGINT):
            yield
    finally:
        ray.shutdown()


@contextmanager
def own_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Restore the handlers of these signals after the body. Ray, Ray Train and Tune leave handlers that call objects which have ended.

    Only the main thread can set a handler. In any other thread nothing is done.
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
    """Silence these loggers of Ray below a level: a run reports its progress by events and its faults by exceptions."""
    for name in loggers:
        logging.getLogger(name).setLevel(level)


def _keep_private() -> None:
    """Make a private Ray reachable from this machine alone, and only with a token that no other user has.

    Otherwise Ray would listen on every interface, and write its token to the home folder in a file that all users can read. Where
    `RAY_AUTH_MODE` is set, the user has decided about the token. Ray reads these variables when it is imported: a later change has no
    effect, and they stay set.
    """
    if "ray" in sys.modules:
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Despite its name this variable is used on every system: 0 keeps all of Ray on 127.0.0.1.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _start(address: str | None, cpus: int | None, on_trouble: Callable[[str], None]) -> None:
    import ray

    hush(logging.ERROR, "ray", "ray.data", "ray.train", "ray.tune")
    # Ray prints the death of a worker to our standard output, whatever `log_to_driver` is. That would break the output of --json.
    ray._private.worker.print_to_stdstream = _unsaid
    if address is not None:
        _knock(address)
    # Without a dashboard, Ray Train writes a warning about it to each worker's log every second. The workers' logs are not forwarded,
    # so all their lines stay in Ray's log files. An error reaches us as an exception.
    options: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}

    def start() -> str | None:
        """Start or connect; returns why it failed."""
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray 2.60 raises a bare Exception where its node does not start in time
            ray.shutdown()  # what did start of it
            return one_line(error) or type(error).__name__
        return None

    failure = start()
    if failure and address is None:
        on_trouble(f"no private Ray started ({failure}); starting it once more")
        failure = start()
    if failure and address is None:
        raise ResourceError(
            f"no private Ray started on this machine (Ray waits {RAYLET_SECONDS} s for it, and it was tried twice): {failure}; work "
            "without Ray by --local, name a running cluster by --address, or try again when the machine is less busy"
        )
    if failure:
        raise ResourceError(_nobody(str(address), failure))


def _unsaid(*_: object, **__: object) -> None:
    """Print nothing."""


def _knock(address: str) -> None:
    """Raise within seconds where no process listens at `HOST:PORT`: Ray itself retries for minutes."""
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
