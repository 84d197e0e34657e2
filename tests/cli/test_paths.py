"""Paths that the operating system refuses: one line and exit code 2 for every command; `verify` lists them and goes on."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import PathError, path_error
from diet_ray.memory.verification import verify
from tests.support.small_run import STREAM
from tests.support.synthetic import write_log

LONG = "x" * 300
"""A name that no file can have, not even root's."""


@pytest.fixture
def place(tmp_path: Path, log: Path) -> Path:
    """A folder with a file `file`, a folder `folder` and the config of a run."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"log": str(log), **STREAM}))
    return tmp_path


def refused(*words: object) -> str:
    """The one line of error of a command that must fail and leave nothing."""
    done = CliRunner().invoke(app, ["--local", *map(str, words)])
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("bad", [LONG, "file/below"])
@pytest.mark.parametrize(
    "command",
    [
        "verify BAD",
        "verify RUN --log BAD",
        "status BAD",
        "inspect BAD",
        "export BAD --out NEW",
        "gc BAD",
        "sweep --memory BAD --out NEW",
        "sweep --memory RUN --log BAD --out NEW",
        "sweep --memory RUN --out BAD",
        "race --memory RUN --rungs 1 --out BAD",
        "fidelity --config BAD --out NEW",
        "distill --config CONFIG --out BAD",
        "distill --config BAD",
        "ingest BAD --from NEW --by day --out NEW",
        "ingest BAD.yaml --from NEW --by day --out NEW",
        "simulate --out BAD",
        "simulate --config BAD --out NEW",
        "export RUN --out BAD",
        "status RUN --out BAD/page.html",
        "inspect RUN --out BAD/page.html",
    ],
)
def test_every_command_names_the_path(command: str, bad: str, place: Path, finished: Path) -> None:
    known = {"BAD": place / bad, "RUN": finished, "NEW": place / "new", "CONFIG": place / "run.yaml"}
    words = [
        str(place / bad) + word.removeprefix("BAD") if word.startswith("BAD") else known.get(word, word)
        for word in command.split()
    ]
    line = refused(*words)
    assert bad.partition("/")[0][:40] in line or "neither a run nor a log" in line
    assert not (place / "new").exists()
    assert (place / "file").read_text() == "text"


@pytest.mark.parametrize("code", [errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("status RUN", "run.json"),
        ("status RUN", "events.jsonl"),
        ("inspect RUN", "manifest.json"),
        ("inspect RUN", "memory-00.arrow"),
        ("export RUN --out NEW", "checkpoint-1.safetensors"),
        ("sweep --memory RUN --live 0 --out NEW", "log.json"),
        ("sweep --memory RUN --live 0 --out NEW", "lock.json"),
        ("gc RUN --yes", "lock.json"),
        ("distill --config CONFIG --out NEW", "log.json"),
        ("distill --config CONFIG --out NEW", "run.json"),
    ],
)
def test_a_file_that_cannot_be_read_or_written(
    command: str, name: str, code: int, place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Injected where Python opens a file or asks for it, because root is refused nothing."""
    run = shutil.copytree(finished, place / "a-run")
    known = {"RUN": run, "NEW": place / "new", "CONFIG": place / "run.yaml"}
    breaks(monkeypatch, name, code)
    line = refused(*(known.get(word, word) for word in command.split()))
    assert name in line or (name == "lock.json" and str(place) in line)
    assert os.strerror(code) in line


def breaks(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Let the operating system refuse each file of that name, or its temporary one."""

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(path: Any, *values: Any, **keys: Any) -> Any:
            if isinstance(path, str | os.PathLike) and str(path).endswith((f"/{name}", f"/.{name}.tmp")):
                raise OSError(code, os.strerror(code), os.fspath(path))
            return call(path, *values, **keys)

        return guard

    for module, function in ((io, "open"), (os, "open"), (os, "stat"), (os, "utime")):
        monkeypatch.setattr(module, function, guarded(getattr(module, function)))


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("manifest.json", 9),
        ("memory-00.arrow", 3),
        ("checkpoint-1.safetensors", 3),
        ("optimiser.safetensors", 3),
        ("run.json", 1),
        ("stages", 1),
        ("log/log.json", 1),
        ("shard-00001.parquet", 3),
    ],
)
def test_verify_lists_what_it_cannot_read_and_goes_on(
    name: str, faults: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "stages" / "0002" / "note.txt").write_text("a stray, found behind the others")
    breaks(monkeypatch, name, errno.EIO)
    found = verify(run)
    unreadable = [fault for fault in found if "Input/output error" in fault.what]
    assert len(unreadable) >= min(faults, 3)
    assert all(name in fault.where for fault in unreadable)
    if name not in ("stages", "manifest.json"):
        assert any(fault.where == "stages/0002/note.txt" for fault in found)


@pytest.mark.parametrize("name", ["log.json", "manifest.json", "shard-00000.parquet", "quarantine.parquet", "blocks"])
def test_verify_of_a_log_goes_on_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write_log(tmp_path / "log", blocks=2, n=40)
    (log / "blocks" / "block-001" / "note.txt").write_text("a stray")
    breaks(monkeypatch, name, errno.EIO)
    found = verify(log)
    assert any(name in fault.where and "Input/output error" in fault.what for fault in found)
    if name not in ("manifest.json", "log.json"):
        assert any(fault.where == "blocks/block-001/note.txt" for fault in found)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "x", "a/b"), "a/b: Permission denied; change its permissions, or choose another place"),
        (OSError(errno.ENOSPC, "x", "a"), "a: no space left on the disk; free some space and continue"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "a file: no space left on the disk; free some space and continue",
        ),
        (
            OSError(errno.EXDEV, "x", "a", None, b"b"),
            "a -> b: Invalid cross-device link; check the path, or choose another place",
        ),
        (OSError(errno.EPIPE, os.strerror(errno.EPIPE)), None),
        (ConnectionResetError(errno.ECONNRESET, "reset"), None),
        (OSError(errno.EBADF, os.strerror(errno.EBADF)), None),
        (OSError("no number"), None),
    ],
)
def test_only_an_error_about_a_path_is_the_users(error: OSError, said: str | None) -> None:
    known = path_error(error)
    assert (known and str(known)) == said
    assert known is None or isinstance(known, PathError)


def test_an_error_of_arrow_names_its_path_too(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none") as caught:
        pq.read_schema(tmp_path / "none")
    said = path_error(caught.value)
    assert str(tmp_path / "none") in str(said)
    assert "No such file or directory; check the path" in str(said)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def bug(path: str) -> None:
        raise OSError("of no file")

    monkeypatch.setattr("diet_ray.report.status.run_status", bug)
    done = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert done.exit_code == 1
    assert isinstance(done.exception, OSError)
