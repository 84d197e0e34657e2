"""The jobs under `ray job submit` against a real head node, with Ray's token authentication on."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.common.private_ray import environment
from diet_ray.cli import app
from diet_ray.report.status import run_status
from tests.cli.test_commands import write_raw
from tests.support.small_run import STREAM, config, local_run, stage_bytes
from tests.support.synthetic import schema, write_log
from tests.support.watched import PATIENCE, run, wait_for

RAY = Path(sysconfig.get_path("scripts")) / "ray"
JOBS = Path(__file__).parents[2] / "jobs"
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
    metrics: str
    """Where its node's metrics are."""

    def submit(self, *command: str | Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Submit a job and follow it to its end, or as the options say."""
        return self.job("submit", *options, "--", sys.executable, *map(str, command))

    def job(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `ray job VERB`."""
        command = [str(RAY), "job", verb, "--address", self.address, *arguments]
        return run(command, env=self.env, merged=True)

    def get(self, path: str) -> Any:
        """What the API of jobs answers: for what is asked again and again, because a `ray job` takes seconds to start."""
        token = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/api/jobs/{path}", headers=token)) as answer:
            return json.load(answer)


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for place in sockets:
            place.bind(("127.0.0.1", 0))
        return [place.getsockname()[1] for place in sockets]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ExitStack() as stack:
        for _ in range(3):
            started = stack.enter_context(head_node())
            # Between the choice of a port and Ray's taking it another process may have taken it; then jobs find no agent.
            if started is not None and started.submit("-c", "pass").returncode == 0:
                yield started
                return
            stack.close()
        pytest.fail("no head node took a job in three attempts")


@contextmanager
def head_node() -> Iterator[Head | None]:
    """A head node of its own; None where it does not come up."""
    temporary = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths
    env = environment(temporary) | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_metrics_report_interval_ms": "1000",
    }
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--num-cpus", "4"]
    command += ["--temp-dir", str(temporary / "ray"), "--object-store-memory", str(256 << 20)]
    command += ["--dashboard-host", "127.0.0.1", "--include-dashboard", "true", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    with (temporary / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    metrics = f"http://127.0.0.1:{ports['metrics-export-port']}/metrics"
    head = Head(f"http://127.0.0.1:{ports['dashboard-port']}", env, metrics)
    until = time.monotonic() + PATIENCE
    up = False
    try:
        while not up and process.poll() is None and time.monotonic() < until:
            with suppress(OSError):
                up = head.get("") == []
            time.sleep(0.2)
        yield head if up else None
    finally:
        # `ray stop` would end every Ray of the machine; on SIGTERM the head ends what it started.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:  # on a busy machine; the group is the head's own
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def test_distil_and_sweep_as_jobs(head: Head, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", blocks=2, n=300)
    folder, out = tmp_path / "run", tmp_path / "sweep"
    asked, pool = tmp_path / "distill.yaml", tmp_path / "candidates.yaml"
    asked.write_text(yaml.safe_dump({"log": str(log), "out": str(folder), **STREAM}))
    pool.write_text(yaml.safe_dump({"candidates": [{"name": "fm", "arch": "fm"}, {"name": "lr", "arch": "lr"}]}))

    done = head.submit(JOBS / "distill.py", "--config", asked)
    assert done.returncode == 0, done.stdout
    assert "block block-000 (1/1): committed, memory 15 units" in done.stdout
    assert json.loads((folder / "summary.json").read_text())["units"] == 15

    done = head.submit(JOBS / "sweep.py", "--memory", folder, "--candidates", pool, "--out", out, "--seeds", "1")
    assert done.returncode == 0, done.stdout
    board = json.loads((out / "leaderboard.json").read_text())
    assert {line["candidate"] for line in board["standings"]} == {"fm", "lr"}
    assert board["block"] == "block-001"


@pytest.mark.timeout(1200)
def test_a_log_that_grows_is_followed_until_the_job_is_stopped(head: Head, tmp_path: Path) -> None:
    raw, described, asked = tmp_path / "raw.parquet", tmp_path / "schema.yaml", tmp_path / "distill.yaml"
    log, folder = tmp_path / "log", tmp_path / "run"
    write_raw(raw, days=3, n=300)
    described.write_text(yaml.safe_dump(schema().model_dump(mode="json")))
    asked.write_text(yaml.safe_dump({"log": str(log), "out": str(folder), **STREAM}))
    ingest = (JOBS / "ingest.py", described, "--from", raw, "--out", log, "--by", "day")

    # The first days in this process, the next one by a job: that is what the test is about.
    call = ["--local", "ingest", str(described), "--from", str(raw), "--out", str(log), "--by", "day", "--blocks", "2"]
    assert CliRunner().invoke(app, call).exit_code == 0
    done = head.submit(JOBS / "distill.py", "--config", asked, "--follow", log, options=("--no-wait",))
    (job,) = set(re.findall(r"raysubmit_\w+", done.stdout))

    def logs() -> str:
        return str(head.get(f"{job}/logs")["logs"])

    wait_for((folder / "stages" / "0000").exists, logs)
    done = head.submit(*ingest, "--append")
    assert done.returncode == 0, done.stdout
    assert "300 rows in 1 new blocks (1970-01-03 to 1970-01-03)" in done.stdout
    wait_for((folder / "stages" / "0001").exists, logs)

    def scraped(name: str) -> set[float]:
        with urllib.request.urlopen(head.metrics, timeout=10) as page:
            lines = page.read().decode().splitlines()
        return {float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{") and 'run="run"' in line}

    wait_for(lambda: 2.0 in scraped("ray_diet_ray_blocks_committed"), logs)
    assert scraped("ray_diet_ray_blocks_waiting") == {0.0}
    assert scraped("ray_diet_ray_memory_units") == {30.0}
    wait_for(lambda: "waiting for the block after 1970-01-03" in logs(), logs)
    wait_for(lambda: run_status(folder).state == "waiting", logs)

    assert head.job("stop", job).returncode == 0
    assert head.get(job)["status"] == "STOPPED"
    assert not {"lock.json", "follow"} & {path.name for path in folder.iterdir()}
    assert stage_bytes(folder) == stage_bytes(local_run(tmp_path / "local", config(log)))


def test_a_job_that_cannot_run_fails_and_says_why(head: Head, tmp_path: Path) -> None:
    done = head.submit(JOBS / "distill.py", "--config", tmp_path / "none.yaml")
    assert done.returncode == 1  # the job's own 2 is in its record
    assert f"error: {tmp_path / 'none.yaml'}: no such file or folder" in done.stdout
    assert "exit code 2" in done.stdout


def test_nobody_submits_without_the_token(head: Head) -> None:
    stranger = Head(head.address, {**head.env, "RAY_AUTH_TOKEN": secrets.token_hex(32)}, head.metrics)
    done = stranger.submit("-c", "print('ran')")
    assert done.returncode != 0
    assert "ran\n" not in done.stdout
