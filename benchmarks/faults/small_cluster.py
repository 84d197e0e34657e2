"""A small Ray cluster of several nodes on this machine, for runs of `diet-ray distill` whose processes may be killed.

The package has no code for it: the role of a process is read from the title that Ray gives it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.private_ray import environment
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.memory.events import read_events

COMMAND = Path(sysconfig.get_path("scripts")) / "diet-ray"

TITLES = {
    "worker": "ray::RayTrainWorker",
    "scorer": "ray::MapWorker",
    "scoring": "ray::_score",
    "owner": "ray::ShardOwner",
    "controller": "ray::TrainController",
    "trial": "ray::ImplicitFunc",
}
"""Ray's titles of the processes that may be killed, by their role. A `node` and the `driver` may be killed too."""

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray detects a dead worker after 0.2 s instead of 2 s and a dead node after about 2 s instead of 15 s; nothing else changes.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}

STREAM: dict[str, Any] = {
    "seed": 3,
    "reference": {
        "nets": [{"name": "dnn", "arch": "dnn", "params": {"hidden": [8]}, "adapter": False}],
        "dim": 4,
        "batch_size": 64,
        "checkpoints": 2,
    },
    "budget": {"cap": 60},
    "student": {"steps": 10, "batch_size": 16},
    "refine": {
        "rounds": 6,
        "window": 4,
        "proxies": [{"name": "dnn", "arch": "dnn", "params": {"hidden": [8]}}],
        "hard_batch": 64,
        "active": 32,
        "address_every": 2,
    },
}
"""The config of a run whose stages take about as long as Ray needs to start a scorer."""

WORLD: dict[str, Any] = {
    "rows": 400,
    "shard_rows": 200,
    "fields": [{"name": "user", "size": 60}, {"name": "item", "size": 40}, {"name": "hour", "size": 8}],
}
"""The simulated log of that run."""


PATIENCE = 900.0
"""Seconds without progress after which a run counts as stuck; many, because other work may share the machine."""


class Stuck(Exception):
    """An expected event did not happen in time."""


class Place:
    """A context manager with a Ray cluster (a head without CPUs and `nodes` nodes, all on this machine) and a folder for runs."""

    def __init__(self, nodes: int = 2, cpus: int = 2, object_store: int = 96 << 20) -> None:
        self.cpus, self.object_store, self.size = cpus, object_store, nodes
        self.folder = Path(tempfile.mkdtemp(prefix="dr-"))  # short: it becomes part of socket paths
        self.environment = environment(self.folder) | ENVIRONMENT
        self.drivers: list[Driver] = []

    def __enter__(self) -> Place:
        self._kept = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.environment)
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": self.object_store},
        )
        self.fill()
        return self

    def __exit__(self, *_: object) -> None:
        for driver in self.drivers:
            driver.end()
        self.cluster.shutdown()
        os.environ.clear()
        os.environ.update(self._kept)
        shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self) -> None:
        """Replace the nodes that were killed by new ones."""
        while len(self.cluster.worker_nodes) < self.size:
            self.cluster.add_node(num_cpus=self.cpus, object_store_memory=self.object_store)

    def raylets(self) -> list[int]:
        """The raylet process of each node, which is the parent of all processes that Ray starts there."""
        return [self._raylet(node) for node in self.cluster.list_all_nodes()]

    def gcs(self) -> int:
        """The process of the head that stores the state of the cluster."""
        head: Any = self.cluster.head_node
        return int(head.all_processes["gcs_server"][0].process.pid)

    def processes(self, target: str) -> list[int]:
        """The processes of this cluster with the role `target`, in ascending order of their ids."""
        raylets = set(self.raylets())
        pids = []
        for name in os.listdir("/proc"):
            if name.isdecimal() and parent(int(name)) in raylets and title(int(name)).startswith(TITLES[target]):
                pids.append(int(name))
        return sorted(pids)

    def kill_node(self) -> bool:
        """Kill a node immediately, with all its processes: one with a worker if there is one. The head is never killed."""
        workers = self.processes("worker")
        hosts = {parent(pid) for pid in workers}
        nodes = sorted(
            self.cluster.worker_nodes, key=lambda node: (self._raylet(node) not in hosts, self._raylet(node))
        )
        if not nodes:
            return False
        raylet = self._raylet(nodes[0])
        below = [int(name) for name in os.listdir("/proc") if name.isdecimal() and parent(int(name)) == raylet]
        for pid in [raylet, *below]:
            kill_process(pid)
        self.cluster.remove_node(nodes[0], allow_graceful=False)
        return True

    def log(self, blocks: int) -> Path:
        """A simulated log of `blocks` blocks to distil and one more block."""
        path = self.folder / f"log-{blocks}"
        if not path.exists():
            # Without Ray, which would take longer for this than for everything else until the first kill.
            simulate(SimulateConfig(**WORLD, blocks=blocks + 1), path)
        return path

    def distil(self, run: Path, log: Path, *, resume: bool = False, **cluster: Any) -> Driver:
        """Start `diet-ray distill` with these keys of the config's group `cluster`."""
        config = self.folder / "run.yaml"
        config.write_text(
            yaml.safe_dump({"log": str(log), **STREAM, "cluster": {"scorers": 1, **cluster}}), encoding="utf-8"
        )
        arguments = ["distill", "--config", str(config), "--out", str(run), *(["--resume"] if resume else [])]
        driver = Driver(run, [str(COMMAND), "--quiet", "--address", self.cluster.address, *arguments], self.environment)
        self.drivers.append(driver)
        return driver

    @staticmethod
    def _raylet(node: Any) -> int:
        processes = node.all_processes.get("raylet")
        return int(processes[0].process.pid) if processes else -1


class Driver:
    """A process of `diet-ray distill`."""

    def __init__(self, run: Path, command: list[str], environment: dict[str, str]) -> None:
        self.run, self.error_file = run, run.with_name(f"{run.name}.stderr")
        self.offset = (run / "events.jsonl").stat().st_size if (run / "events.jsonl").exists() else 0
        with self.error_file.open("wb") as errors:
            self.process = subprocess.Popen(command, env=environment, stderr=errors, start_new_session=True)

    def news(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        events, self.offset = read_events(self.run / "events.jsonl", self.offset)
        return events

    def end(self) -> None:
        """Kill the process, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end of the process; returns the exit code. Raises Stuck where it does not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise Stuck(f"{self.run}: not done after {seconds:g} s; {self.errors()}") from None

    def errors(self) -> str:
        """The standard error of the process."""
        return self.error_file.read_text(encoding="utf-8", errors="replace").strip()


def parent(pid: int) -> int:
    """The parent of a process; 0 where the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def title(pid: int) -> str:
    """The title of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").partition("\0")[0]
    except OSError:
        return ""


def kill_process(pid: int) -> bool:
    """Kill a process; returns whether it existed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
