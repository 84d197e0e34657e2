"""The jobs under `ray job submit` against a real head node, with Ray's token authentication on."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from small_run import STREAM
from synthetic import write_log

RAY = Path(sysconfig.get_path("scripts")) / "ray"
JOBS = Path(__file__).parents[1] / "jobs"
PORTS = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "ray-client-server-port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


@dataclass
class Head:
    """A head node that runs."""

    address: str
    """Of its dashboard, where jobs are submitted."""
    env: dict[str, str]
    """Environment of a process that may submit."""

    def submit(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Submit a job and follow it to its end."""
        arguments = [str(RAY), "job", "submit", "--address", self.address, "--", *map(str, command)]
        return subprocess.run(
            arguments, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    temporary = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = {
        **kept,
        "HOME": str(temporary),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    }
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--num-cpus", "4"]
    command += ["--temp-dir", str(temporary / "ray"), "--object-store-memory", str(256 << 20)]
    command += ["--dashboard-host", "127.0.0.1", "--include-dashboard", "true", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    with (temporary / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    head = Head(f"http://127.0.0.1:{ports['dashboard-port']}", env)
    try:
        until = time.monotonic() + 60
        while subprocess.run(
            [str(RAY), "job", "list", "--address", head.address], env=env, capture_output=True
        ).returncode:
            assert process.poll() is None, (temporary / "head.log").read_text()
            assert time.monotonic() < until, (temporary / "head.log").read_text()
            time.sleep(0.5)
        yield head
    finally:
        # `ray stop` would end every Ray of the machine; on SIGTERM the head ends what it started.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:  # on a busy machine; the group is the head's own
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def test_distil_and_sweep_as_jobs(head: Head, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", blocks=2, n=300)
    run, out = tmp_path / "run", tmp_path / "sweep"
    asked, pool = tmp_path / "distill.yaml", tmp_path / "candidates.yaml"
    asked.write_text(yaml.safe_dump({"log": str(log), "out": str(run), **STREAM}))
    pool.write_text(yaml.safe_dump({"candidates": [{"name": "fm", "arch": "fm"}, {"name": "lr", "arch": "lr"}]}))

    done = head.submit(sys.executable, JOBS / "distill.py", "--config", asked)
    assert done.returncode == 0, done.stdout
    assert "block block-000 (1/1): committed, memory 15 units" in done.stdout
    assert json.loads((run / "summary.json").read_text())["units"] == 15

    done = head.submit(
        sys.executable, JOBS / "sweep.py", "--memory", run, "--candidates", pool, "--out", out, "--seeds", "1"
    )
    assert done.returncode == 0, done.stdout
    board = json.loads((out / "leaderboard.json").read_text())
    assert {line["candidate"] for line in board["standings"]} == {"fm", "lr"}
    assert board["block"] == "block-001"


def test_a_job_that_cannot_run_fails_and_says_why(head: Head, tmp_path: Path) -> None:
    done = head.submit(sys.executable, JOBS / "distill.py", "--config", tmp_path / "none.yaml")
    assert done.returncode == 1  # the job's own 2 is in its record
    assert f"error: {tmp_path / 'none.yaml'}: cannot be read" in done.stdout
    assert "exit code 2" in done.stdout


def test_nobody_submits_without_the_token(head: Head) -> None:
    stranger = Head(head.address, {**head.env, "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    done = stranger.submit(sys.executable, "-c", "print('ran')")
    assert done.returncode != 0
    assert "ran\n" not in done.stdout
