"""Who may die when: each kind of process at each point of a stage, and the bytes of the run that nobody disturbed.

Not run by default, for it takes long: `pytest -m faults`. `benchmarks/faults/chaos.py` does the same at random.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.common.private_ray import environment
from benchmarks.faults.killing import Kill, bytes_of, ended, finish, strike, undisturbed
from benchmarks.faults.small_cluster import COMMAND, PATIENCE, Driver, Place

# Both marks, so that `-m 'not ray'` leaves them out as well.
pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(4 * PATIENCE)]

BLOCKS = 7
POINTS = [
    ("start", "reference"),
    ("start", "score"),
    ("step", "score"),
    ("progress", "refine"),
    ("start", "commit"),
    ("committed", ""),
]
"""Before, while and after the rows are scored, in refinement, in the commit and after it: one in each stage of a run."""

CLUSTER: dict[str, Any] = {"workers": 2, "memory_shards": 2}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Place() as found:
        yield found


@pytest.fixture(scope="module")
def log(place: Place) -> Path:
    return place.log(BLOCKS)


@pytest.fixture(scope="module")
def whole(place: Place, log: Path) -> Path:
    """The run that nobody disturbs."""
    return undisturbed(place, log, **CLUSTER, max_failures=0)


def check(run: Path, whole: Path) -> None:
    assert bytes_of(run) == bytes_of(whole)
    assert sorted(path.name for path in run.iterdir()) == ["events.jsonl", "run.json", "stages", "summary.json"]


def disturbed(place: Place, log: Path, run: Path, kills: list[Kill], **cluster: Any) -> tuple[list[str], list[int]]:
    """A run that all these kills hit; what it was doing then, and the exit codes of its drivers."""

    def again() -> Driver:
        return place.distil(run, log, resume=True, **CLUSTER, **cluster)

    driver, hit, codes = place.distil(run, log, **CLUSTER, **cluster), [], []
    for kill in kills:
        landed = strike(place, driver, kill)
        assert landed, f"{kill}: nobody was there; {driver.errors()}"
        hit.append(landed)
        place.fill()
        if kill.target == "driver" or cluster["max_failures"] == 0:
            codes.append(ended(driver))
            driver = again()
    return hit, [*codes, *finish(driver, again)]


@pytest.mark.parametrize(
    ("target", "restarts"),
    [("driver", False), *((target, restarts) for target in ("worker", "owner", "node") for restarts in (False, True))],
)
def test_who_dies_in_a_stage_costs_that_stage_alone(place: Place, log: Path, target: str, restarts: bool) -> None:
    kills = [Kill(target, kind, step, stage) for stage, (kind, step) in enumerate(POINTS)]
    run = place.folder / f"{target}-{restarts}"
    failures = 50 if restarts else 0
    hit, codes = disturbed(place, log, run, kills, max_failures=failures)
    check(run, undisturbed(place, log, **CLUSTER, max_failures=failures))
    assert len(hit) == len(POINTS)
    if not restarts:
        assert codes == [-9 if target == "driver" else 2] * len(POINTS) + [0]


def test_the_controller_of_the_workers_dies(place: Place, log: Path, whole: Path) -> None:
    kills = [Kill("controller", kind, step, stage) for stage, (kind, step) in enumerate(POINTS)]
    run = place.folder / "controller"
    _, codes = disturbed(place, log, run, kills, max_failures=0)
    check(run, whole)
    assert codes == [2] * len(POINTS) + [0]


@pytest.mark.parametrize("target", ["scorer", "scoring"])
def test_a_scorer_that_dies_is_replaced_and_nobody_notices(place: Place, log: Path, whole: Path, target: str) -> None:
    """Or the process that hands them their shards."""
    kills = [Kill(target, "start", "score", stage, delay=delay) for stage, delay in enumerate([0, 0.5, 1, 1.5, 2])]
    run = place.folder / target
    driver = place.distil(run, log, **CLUSTER)
    hit = [strike(place, driver, kill) for kill in kills]
    assert ended(driver) == 0
    check(run, whole)
    assert sum(one is not None for one in hit) >= 3  # the later ones may be done when their time comes


def test_a_worker_that_is_slow_costs_time_alone(place: Place, log: Path, whole: Path) -> None:
    run = place.folder / "slow"
    driver = place.distil(run, log, **CLUSTER)
    stopped = stop_a_worker(place, driver, "start", "refine")
    time.sleep(5)
    assert driver.process.poll() is None
    os.kill(stopped, signal.SIGCONT)
    assert ended(driver) == 0
    check(run, whole)


def test_a_worker_that_is_stuck_is_given_up(place: Place, log: Path, whole: Path) -> None:
    """Ray Train waits ten minutes for an answer by default; here, ten seconds."""
    place.environment["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = "10"
    try:
        run = place.folder / "stuck"
        driver = place.distil(run, log, **CLUSTER)
        stop_a_worker(place, driver, "progress", "refine")
        assert ended(driver) == 2
        assert "a worker does not answer" in driver.errors()
    finally:
        del place.environment["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"]
    driver = place.distil(run, log, resume=True, **CLUSTER)
    assert ended(driver) == 0
    check(run, whole)


def stop_a_worker(place: Place, driver: Driver, kind: str, step: str) -> int:
    """Stop the leading worker in the second stage; returns its number."""
    point, until = Kill("worker", kind, step, 1), time.monotonic() + PATIENCE
    while not any(point.meets(event) for event in driver.news()):
        assert driver.process.poll() is None, driver.errors()
        assert time.monotonic() < until
        time.sleep(0.002)
    leader = place.processes("worker")[0]
    os.kill(leader, signal.SIGSTOP)
    return leader


def test_a_disk_that_is_full_at_the_commit(place: Place, log: Path, whole: Path) -> None:
    disk = place.folder / "disk"
    disk.mkdir()
    sizes = [sum(path.stat().st_size for path in stage.iterdir()) for stage in sorted((whole / "stages").iterdir())]
    command = ["mount", "-t", "tmpfs", "-o", f"size={sum(sizes[:2]) // 1024 + 16 * 4}k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount one")
    try:
        run = disk / "run"
        driver = place.distil(run, log, **CLUSTER)
        assert ended(driver) == 2
        assert "no space left" in driver.errors()
        assert 1 <= len(list((run / "stages").glob("[0-9]*"))) < BLOCKS
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        driver = place.distil(run, log, resume=True, **CLUSTER)
        assert ended(driver) == 0
        check(run, whole)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


SPILLING = """
import sys
from pathlib import Path
import ray
from diet_ray.config import StreamConfig
from diet_ray.engine import distil

ray.init(address="local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False,
         _temp_dir=sys.argv[3])
distil(Path(sys.argv[2]), StreamConfig.model_validate_json(Path(sys.argv[1]).read_text()))
spilled = list(Path(sys.argv[3]).glob("session_2*/ray_spilled_objects*"))
print("SPILLED", sum(1 for folder in spilled for _ in folder.iterdir()), [str(folder) for folder in spilled])
ray.shutdown()
"""


def test_an_object_store_that_is_too_small_spills(tmp_path: Path) -> None:
    from diet_ray.config import StreamConfig
    from tests.support.small_run import STREAM, local_run
    from tests.support.synthetic import write_log

    path = write_log(tmp_path / "log", blocks=3, n=20_000)
    raw = {
        **STREAM,
        "log": str(path),
        "reference": {**STREAM["reference"], "nets": STREAM["reference"]["nets"][:1], "dim": 256},
        "budget": {"ratio": 1.0},
        "refine": {"rounds": 0},
        "cluster": {"memory_shards": 2},
    }
    stream = StreamConfig.model_validate(raw)
    (tmp_path / "stream.json").write_text(stream.model_dump_json())
    temporary = Path(tempfile.mkdtemp(prefix="dr-"))
    env = environment(temporary) | {"RAY_AUTH_MODE": "disabled"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", SPILLING, str(tmp_path / "stream.json"), str(tmp_path / "run"), str(temporary)],
            env=env,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        # Units of 256 numbers for each of four fields: 160 MB of them, in a store of 80.
        assert "SPILLED 0" not in done.stdout, done.stdout
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    from tests.support.small_run import stage_bytes

    assert stage_bytes(tmp_path / "run") == stage_bytes(local_run(tmp_path / "local", stream))


def test_a_trial_that_dies_is_run_again(place: Place, log: Path, whole: Path) -> None:
    """Five trials of a sweep, each killed once, and one that is killed again and again and named in the end."""
    nets = [
        {"name": f"net-{n}", "arch": "dnn", "params": {"hidden": [64, 64, 4 + n]}, "lr_scale": 1.0} for n in range(5)
    ]
    (place.folder / "pool.yaml").write_text(yaml.safe_dump({"candidates": nets}), encoding="utf-8")

    def sweep(out: Path, *more: str) -> subprocess.Popen[bytes]:
        words = ["sweep", "--memory", str(whole), "--candidates", str(place.folder / "pool.yaml"), "--seeds", "1"]
        command = [COMMAND, "--quiet", "--address", place.cluster.address, *words, "--out", str(out)]
        return subprocess.Popen([*map(str, command), *more], env=place.environment)

    def board(out: Path) -> Any:
        found = json.loads((out / "leaderboard.json").read_text())
        for verdict in found["verdicts"]:
            del verdict["train_seconds"], verdict["train_wall_seconds"]
        return {key: found[key] for key in ("verdicts", "candidates", "failed")}

    undisturbed = place.folder / "sweep-whole"
    assert sweep(undisturbed).wait(PATIENCE) == 0

    out, killed = place.folder / "sweep", set[int]()
    process = sweep(out)
    while process.poll() is None:
        for pid in place.processes("trial"):
            if pid not in killed and len(killed) < 5:
                time.sleep(0.1 * len(killed))
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    assert len(killed) >= 2
    if process.returncode:  # one of them was killed twice, and says so
        assert process.returncode == 2
        assert board(out)["failed"]
        assert sweep(out, "--restore").wait(PATIENCE) == 0
    assert board(out) == board(undisturbed)
