"""The lock of a run folder: one driver at a time, and none is kept out by the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diet_ray.cli.distill import _gone_unless_begun
from diet_ray.config import StreamConfig
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.engine import train as engine
from diet_ray.errors import ConfigError, DietError, LockedError
from diet_ray.logs.blocks import open_log
from diet_ray.memory.events import Events
from diet_ray.memory.run_folder import committed_stages
from diet_ray.storage import lock
from diet_ray.storage.lock import live_lock, locked
from tests.support.small_run import config, stage_bytes

HOLD = "import sys, time; from pathlib import Path; from diet_ray.storage.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"


@contextmanager
def another_process(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `run`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def plant(run: Path, *, silent: float = 0.0, **changes: Any) -> None:
    """A lock of this very process, with changes, last touched so many seconds ago."""
    with locked(run):
        owner = json.loads((run / "lock.json").read_text())
    run.mkdir(exist_ok=True)
    (run / "lock.json").write_text(json.dumps({**owner, "token": "0123456789abcdef", **changes}))
    os.utime(run / "lock.json", (time.time() - silent,) * 2)


def test_the_second_driver_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with locked(run):
        owner = json.loads((run / "lock.json").read_text())
        assert owner["pid"] == os.getpid()
        with pytest.raises(LockedError) as caught, locked(run):
            pytest.fail("two hold it")
        said = str(caught.value)
        assert f"{run}: in use by process {os.getpid()} on {owner['host']} since 20" in said
        assert "(0:00:0" in said
        assert "last sign of life 0:00:0" in said
        assert f"remove {run / 'lock.json'}" in said
        assert json.loads((run / "lock.json").read_text()) == owner
    assert not run.exists()  # it was made for the lock alone


def test_it_is_released_whatever_happens_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    for _ in range(2):
        with pytest.raises(TypeError), locked(tmp_path):
            assert len(live_lock(tmp_path))  # type: ignore[arg-type]
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert live_lock(tmp_path) is None


def test_another_process_is_respected_while_it_lives_and_taken_over_when_it_was_killed(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        os.utime(tmp_path / "lock.json", (0, 0))  # on this machine a process that lives is enough, however silent
        with pytest.raises(LockedError, match=f"process {process.pid} on"), locked(tmp_path):
            pytest.fail("two hold it")
        process.send_signal(signal.SIGKILL)
        # Its parent, this test, has not looked at it yet: it is a zombie, and gone all the same.
        until = time.monotonic() + 60
        while live_lock(tmp_path) is not None:
            assert time.monotonic() < until
            time.sleep(0.01)
        with locked(tmp_path):
            assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "silent", "stale"),
    [
        ({}, 1e6, False),  # this process lives, whatever the clocks say
        ({"pid": 2**22 + 1}, 0, True),  # above the largest process number of Linux
        ({"started": 1}, 0, True),  # the number lives on in another process
        ({"machine": "boot/pid:[1]", "host": "far"}, 100, False),
        ({"machine": "boot/pid:[1]", "host": "far"}, 400, True),
        ({"machine": ""}, 100, False),
        ({"machine": "", "pid": 2**22 + 1}, 100, False),  # where a process cannot be looked for, only silence counts
        ({"pid": "?"}, 100, False),  # unreadable: perhaps it is being written
        ({"pid": "?"}, 400, True),
        ({"token": "../../outside"}, 100, False),
    ],
)
def test_when_a_lock_is_stale(tmp_path: Path, changes: dict[str, Any], silent: float, stale: bool) -> None:
    plant(tmp_path, silent=silent, **changes)
    assert (live_lock(tmp_path) is None) == stale
    if stale:
        with locked(tmp_path):
            assert len(list(tmp_path.iterdir())) == 1
        assert list(tmp_path.iterdir()) == []
    else:
        before = (tmp_path / "lock.json").read_text()
        with pytest.raises(LockedError, match="in use by"), locked(tmp_path):
            pytest.fail("two hold it")
        assert (tmp_path / "lock.json").read_text() == before
        assert len(list(tmp_path.iterdir())) == 1


def test_the_age_of_a_lock_from_elsewhere_is_said(tmp_path: Path) -> None:
    plant(tmp_path, silent=100, machine="boot/pid:[1]", host="far", pid=7, since=time.time() - 3700)
    with pytest.raises(LockedError, match=r"process 7 on far since .*\(1:01:4\d\), last sign of life 0:01:4\d ago"):
        lock._take(tmp_path)


@pytest.mark.parametrize("stale", [True, False])
def test_of_many_that_race_exactly_one_wins(tmp_path: Path, stale: bool) -> None:
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for turn in range(20):
            run = tmp_path / f"{turn}"
            run.mkdir()
            if stale:
                plant(run, pid=2**22 + 1)
            barrier, done, wins, losses = threading.Barrier(4), threading.Barrier(4), [], []

            def race(run=run, barrier=barrier, done=done, wins=wins, losses=losses) -> None:  # type: ignore[no-untyped-def]
                barrier.wait()
                try:
                    with locked(run):
                        wins.append(json.loads((run / "lock.json").read_text())["token"])
                        done.wait()
                        wins.append(json.loads((run / "lock.json").read_text())["token"])
                except LockedError as error:
                    losses.append(str(error))
                    done.wait()

            threads = [threading.Thread(target=race) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(wins) == 2, (wins, losses)
            assert wins[0] == wins[1]
            assert len(losses) == 3
            assert list(run.iterdir()) == []
    finally:
        sys.setswitchinterval(switch)


def test_a_late_taker_does_not_take_a_fresh_lock_for_the_stale_one_that_it_saw(tmp_path: Path) -> None:
    plant(tmp_path, pid=2**22 + 1)
    seen = lock._read(tmp_path)
    assert seen is not None
    assert seen.stale
    first = lock._take(tmp_path)
    late = first.model_copy(update={"token": "f" * 16})
    assert not lock._take_over(tmp_path, seen, late)
    assert json.loads((tmp_path / "lock.json").read_text())["token"] == first.token
    assert lock._release(tmp_path, first)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_nobody_gives_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    plant(tmp_path, pid=2**22 + 1)
    claim = tmp_path / ".lock.0123456789abcdef.claim"
    claim.write_text("")
    with pytest.raises(LockedError, match=r"claims: .*0123456789abcdef\.claim\)"), locked(tmp_path):
        pytest.fail("taken in spite of the claim")
    claim.unlink()
    with locked(tmp_path):
        pass


def test_the_owner_gives_signs_of_life_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / "lock.json", (0, 0))
        until = time.monotonic() + 60
        while (tmp_path / "lock.json").stat().st_mtime == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert not any(thread.name == "lock" for thread in threading.enumerate())


def test_who_lost_the_lock_is_told_and_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)

    def lose() -> None:
        other = {**json.loads((tmp_path / "lock.json").read_text()), "token": "0" * 16}
        (tmp_path / "lock.json").write_text(json.dumps(other))
        os.utime(tmp_path / "lock.json", (0, 0))
        time.sleep(0.1)

    with pytest.raises(LockedError, match="taken away"), locked(tmp_path):
        lose()
    assert json.loads((tmp_path / "lock.json").read_text())["token"] == "0" * 16
    assert (tmp_path / "lock.json").stat().st_mtime == 0


def test_a_lock_that_is_just_being_written_names_its_owner(tmp_path: Path) -> None:
    (tmp_path / "lock.json").touch()
    written = threading.Timer(0.1, lambda: (tmp_path / "lock.json").write_bytes(lock.this_process().record()))
    written.start()
    with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on"), locked(tmp_path):
        pass
    written.join()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file: cannot be written to"), locked(tmp_path / "file"):
        pass


def without_ray(monkeypatch: pytest.MonkeyPatch, train: Any) -> None:
    """Let `distil` hand its stream to `train(run, config, blocks)` instead of a cluster."""
    monkeypatch.setattr(engine, "check_cluster", lambda cluster: None)
    monkeypatch.setattr(engine, "_train", train)


def train_here(run: Path, stream: StreamConfig, blocks: int, **options: Any) -> None:
    committed = committed_stages(run)
    run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(None), committed)


def test_two_distillations_into_one_folder(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, refused = tmp_path / "run", []

    def train(run: Path, stream: StreamConfig, blocks: int, **options: Any) -> None:
        with pytest.raises(LockedError, match="in use by process"):
            engine.distil(run, stream, resume=True)
        with pytest.raises(LockedError, match="in use by process"):
            engine.distil(run, stream)
        refused.append(True)

    without_ray(monkeypatch, train)
    assert engine.distil(run, config(log)) == []
    assert refused == [True]
    assert sorted(path.name for path in run.iterdir()) == ["run.json", "stages"]


@pytest.mark.parametrize("error", [LockedError, ConfigError])
def test_a_run_that_another_began_is_not_removed(tmp_path: Path, error: type[DietError]) -> None:
    def fail() -> None:
        (tmp_path / "run").mkdir()  # as by another process, between the look at the folder and the lock
        raise error("x")

    with pytest.raises(error), _gone_unless_begun(tmp_path / "run"):
        fail()
    assert (tmp_path / "run").exists() == (error is LockedError)


# What `distil` does, without importing Ray.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.small_run import config, local_run
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.lock import locked
move = FolderStore.move
def stop(self, name, new):
    if new.endswith("0001"):
        os.kill(os.getpid(), signal.SIGKILL)
    return move(self, name, new)
FolderStore.move = stop
with locked(Path(sys.argv[1])):
    local_run(Path(sys.argv[1]), config(Path(sys.argv[2])))
"""


def test_a_killed_driver_is_followed_by_a_resume(
    finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run), str(log)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(path.name for path in run.iterdir()) == ["events.jsonl", "lock.json", "run.json", "stages"]
    without_ray(monkeypatch, train_here)
    assert len(engine.distil(run, config(log), resume=True)) == 3
    assert stage_bytes(run) == stage_bytes(finished)
    assert not (run / "lock.json").exists()
