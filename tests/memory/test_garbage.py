"""Cleaning a run folder: what interrupted runs left, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import ConfigError, LockedError
from diet_ray.memory.garbage import collect, garbage
from diet_ray.memory.layout import waiting_folder
from diet_ray.storage.lock import locked
from tests.support.small_run import stage_bytes

LEFT = {
    ".lock.0123456789abcdef.claim": "left by a process that was taking the lock",
    ".summary.json.tmp": "half-written manifest",
    "ray": "records of Ray Train",
    "stages/.0003.tmp": "stage that was never committed",
    "stages/0007": "no stage of the run",
    "stages/1": "no stage of the run",
    "stages/notes.txt": "no stage of the run",
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the run that must outlive all."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x" * 1000)
    return tmp_path / "outside"


@pytest.fixture
def run(finished: Path, outside: Path, tmp_path: Path) -> Path:
    """A copy of a finished run with what interrupted ones leave, and with what is none of our business."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for folder in ("ray/train-1", "stages/.0003.tmp", "stages/1"):
        (run / folder).mkdir(parents=True)
    (run / "ray" / "train-1" / "state").write_text("x" * 30)
    (run / "ray" / "out").symlink_to(outside)
    (run / "stages" / ".0003.tmp" / "memory-00.arrow").write_text("x" * 70)
    (run / "stages" / "0007").symlink_to(outside)
    for name in (".lock.0123456789abcdef.claim", ".summary.json.tmp", "stages/notes.txt"):
        (run / name).write_text("x" * 5)
    (run / "notes.md").write_text("mine")
    (run / "stages" / "0001" / "stray").write_text("in a committed stage")
    return run


def test_what_is_left_over_is_listed_with_its_size_and_stays(run: Path) -> None:
    before = sorted(run.rglob("*"))
    found = garbage(run)
    assert {str(one.path.relative_to(run)): one.what for one in found} == LEFT
    sizes = {str(one.path.relative_to(run)): one.bytes for one in found}
    link = (run / "ray" / "out").lstat().st_size
    assert sizes["stages/.0003.tmp"] == 70
    assert sizes["stages/0007"] == link
    assert sizes["ray"] == 30
    assert sorted(run.rglob("*")) == before


def test_it_goes_and_nothing_else_does(run: Path, finished: Path, outside: Path) -> None:
    kept = {path.relative_to(run) for path in run.rglob("*")}
    told: list[str] = []
    gone = collect(run, lambda one: told.append(str(one.path.relative_to(run))))
    assert sorted(told) == sorted(LEFT) == sorted(str(one.path.relative_to(run)) for one in gone)
    now = {path.relative_to(run) for path in run.rglob("*")}
    assert {path for path in kept - now if not any(path.is_relative_to(name) for name in LEFT)} == set()
    assert (outside / "precious").read_text() == "x" * 1000
    assert stage_bytes(run).items() >= stage_bytes(finished).items()
    assert (run / "notes.md").read_text() == "mine"
    assert (run / "stages" / "0001" / "stray").exists()
    assert garbage(run) == []
    assert collect(run) == []


def test_a_damaged_stage_is_left_to_a_person(run: Path) -> None:
    (run / "stages" / "0002" / "manifest.json").unlink()
    assert "stages/0002" not in {str(one.path.relative_to(run)) for one in collect(run)}
    assert (run / "stages" / "0002" / "memory-00.arrow").exists()


def test_links_to_stages_elsewhere_are_not_followed(run: Path, tmp_path: Path) -> None:
    (run / "stages").rename(tmp_path / "elsewhere")
    (run / "stages").symlink_to(tmp_path / "elsewhere")
    collect(run)
    assert (tmp_path / "elsewhere" / ".0003.tmp").exists()
    assert (run / "stages").is_symlink()


def test_a_run_in_use_is_refused(run: Path) -> None:
    before = sorted(run.rglob("*"))
    for act in (garbage, collect):
        with locked(run), pytest.raises(LockedError, match="in use by"):
            act(run)
    assert sorted(run.rglob("*")) == before


def test_the_lock_of_a_killed_follower_goes_and_that_of_a_living_one_stays(run: Path) -> None:
    collect(run)
    (run / "archive.json").write_text("{}")
    follow = waiting_folder(run)
    with locked(follow):
        lock = (follow / "lock.json").read_text()
        assert garbage(run) == []
    follow.mkdir()
    (follow / "lock.json").write_text(lock.replace(f'"pid": {os.getpid()}', '"pid": 2147483646'))
    (follow / ".lock.0123456789abcdef.tmp").touch()
    assert [(one.path, one.what) for one in garbage(run)] == [(follow, "lock of a follower that was killed")]
    (follow / "notes.md").write_text("mine")
    assert garbage(run) == []
    (follow / "notes.md").unlink()
    assert [one.path for one in collect(run)] == [follow]
    assert not follow.exists()
    assert (run / "archive.json").exists()


def test_what_cannot_be_removed_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(ConfigError, match=r"run/ray/train-1: cannot be removed \(Permission denied\)"):
        collect(run)
    assert not (run / "lock.json").exists()


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    for act in (garbage, collect):
        with pytest.raises(ConfigError, match="holds no run"):
            act(tmp_path)
    assert (tmp_path / "ray").exists()


def test_the_command_lists_first_and_removes_when_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)  # a long path would break the line
    asked = CliRunner().invoke(app, ["gc", run.name])
    assert asked.exit_code == 0, asked.output
    assert "7 left over" in asked.stdout
    assert "Nothing was removed; repeat the command with --yes" in asked.stdout
    assert len(garbage(run)) == 7

    done = CliRunner().invoke(app, ["--json", "gc", str(run), "--yes"])
    said = json.loads(done.stdout)
    assert (said["removed"], len(said["leftovers"])) == (True, 7)
    assert said["bytes"] == sum(one["bytes"] for one in said["leftovers"])
    assert garbage(run) == []
    assert "nothing is left over" in CliRunner().invoke(app, ["gc", str(run)]).stdout


def test_the_command_says_in_one_line_why_not(run: Path) -> None:
    with locked(run):
        result = CliRunner().invoke(app, ["gc", str(run), "--yes"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {run}: in use by process")
    assert result.stderr.count("\n") == 1
