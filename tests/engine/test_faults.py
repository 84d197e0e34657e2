"""What a run survives: full disks, dead workers and owners, a worker that outlives its driver, a line cut short.

Here is what is quick; `test_fault_matrix.py` kills each kind of process at each point of a stage.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.faults.killing import Kill
from benchmarks.faults.small_cluster import TITLES, parent, title
from diet_ray.config import StreamConfig
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.engine.failures import full
from diet_ray.engine.train import distil
from diet_ray.errors import BrokenOffError, ConfigError, LockedError
from diet_ray.logs.blocks import open_log
from diet_ray.memory.events import Events, read_events
from diet_ray.memory.run_folder import StageDraft, committed_stages, open_run
from diet_ray.storage.background import repeating
from diet_ray.storage.lock import locked
from tests.support.small_run import config, local_run, stage_bytes
from tests.support.synthetic import write_log


@pytest.fixture(scope="module")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=2, n=200)


@pytest.fixture(scope="module")
def whole(small_log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of the undisturbed run."""
    return stage_bytes(local_run(tmp_path_factory.mktemp("whole") / "run", config(small_log)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 4 KiB large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(disk: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)


def go_on(run: Path, stream: StreamConfig) -> None:
    with locked(run):
        committed = open_run(run, stream, resume=(run / "run.json").is_file())
        run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(run / "events.jsonl"), committed)


def test_a_disk_that_is_full_again_and_again_costs_nothing_but_time(
    small_log: Path, whole: dict[str, str], disk: Path
) -> None:
    """The disk grows by a page at a time, so that each write of the stage is the one that fails, from the lock's to the manifest's."""
    run, stream, failed_in = disk / "run", config(small_log), []
    for kib in range(4, 200, 4):
        resize(disk, kib)
        try:
            go_on(run, stream)
            break
        except ConfigError as error:
            assert "No space left" in str(error)  # noqa: PT017 - it comes before the run has begun
            failed_in.append("lock")
        except Exception as error:
            assert full(error)  # noqa: PT017 - any of several types
            left = [path.name for path in (run / "stages").glob("*/*") if path.parent.name.startswith(".")]
            failed_in.append(max(left, default="run.json"))
        # Nobody is kept out, and no stage is there that is not whole.
        assert not list(run.glob("*lock*"))
        with suppress(FileNotFoundError):
            assert committed_stages(run) == []
    assert stage_bytes(run) == whole
    assert len(failed_in) >= 4
    assert len(set(failed_in)) >= 3
    kinds = [event["kind"] for event in read_events(run / "events.jsonl")[0]]
    assert kinds.count("committed") == 1


def test_a_disk_that_is_full_while_the_lock_is_released_keeps_nobody_out(disk: Path) -> None:
    resize(disk, 64)
    run = disk / "run"
    with locked(run):
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert (run / "lock.json").is_file()
    assert not run.exists()
    with locked(disk):
        pass
    (disk / "filler").unlink()
    with locked(run):
        pass


def test_a_worker_that_outlives_its_driver_writes_into_nobodys_stage(tmp_path: Path, finished: Path) -> None:
    stage = committed_stages(finished)[0]
    older, newer = StageDraft(tmp_path, 0), StageDraft(tmp_path, 0)
    older.begin()
    (older.folder / "x").write_text("half of it")
    newer.begin()
    assert not older.folder.exists()
    with pytest.raises(FileNotFoundError):
        older.commit(stage)
    newer.commit(stage)
    assert [path.name for path in (tmp_path / "stages").rglob("*")] == ["0000", "manifest.json"]

    late = StageDraft(tmp_path, 0)
    late.begin()
    with pytest.raises(LockedError, match="0000: another process has committed it"):
        late.commit(stage)


def kill_once(run: Path, kill: Kill) -> Callable[[], bool]:
    """Something to call often: it kills a process of this test's cluster at the point, and returns False when it has."""
    seen = 0

    def look() -> bool:
        nonlocal seen
        events, seen = read_events(run / "events.jsonl", seen)
        if any(kill.meets(event) for event in events):
            pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
            ours = [
                pid for pid in pids if title(pid).startswith(TITLES[kill.target]) and parent(parent(pid)) == os.getpid()
            ]
            os.kill(max(ours), signal.SIGKILL)
            return False
        return True

    return look


@pytest.mark.ray
def test_a_dead_worker_ends_a_run_in_one_line_and_a_dead_owner_need_not_end_it(
    ray_cluster: int, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", write_log(tmp_path / "log", blocks=3, n=200)
    killing = repeating(0.001, kill_once(run, Kill("worker", "start", "refine", 0)), "killer")
    with killing, pytest.raises(BrokenOffError, match=r"a process of the run has died .* go on with --resume"):
        distil(run, config(log))
    assert committed_stages(run) == []
    killing = repeating(0.001, kill_once(run, Kill("owner", "start", "refine", 1)), "killer")
    with killing:
        assert len(distil(run, config(log, max_failures=3), resume=True)) == 2
    assert [event["stage"] for event in read_events(run / "events.jsonl")[0] if event["kind"] == "stage"] == [
        0,
        0,
        1,
        1,
    ]
    assert stage_bytes(run) == stage_bytes(local_run(tmp_path / "local", config(log, max_failures=3)))
    assert sorted(path.name for path in run.iterdir()) == ["events.jsonl", "run.json", "stages"]
