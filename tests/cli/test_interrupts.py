"""Ctrl-C and SIGTERM at the steps of commands: no traceback, nothing half-written, no lock that stays."""

from __future__ import annotations

import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.memory.verification import verify
from diet_ray.settings import write_whole
from diet_ray.storage.lock import live_lock, locked
from diet_ray.storage.uninterrupted import uninterrupted
from tests.cli.test_commands import write_raw
from tests.support.interrupts import signals
from tests.support.synthetic import schema


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw rows of two days, their schema, and a log of the first day."""
    folder = tmp_path_factory.mktemp("source")
    write_raw(folder / "raw.parquet", days=2, n=20)
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema().model_dump(mode="json")))
    assert call(source=folder, words="ingest SCHEMA --from RAW --by day --blocks 1 --out NEW", new=folder / "log") == 0
    return folder


def call(source: Path, words: str, new: Path, run: Path | None = None) -> int:
    """The exit code of a command, which must have no traceback."""
    known = {"SCHEMA": source / "schema.yaml", "RAW": source / "raw.parquet", "NEW": new, "RUN": run}
    done = CliRunner().invoke(app, ["--local", "--quiet", *(str(known.get(word, word)) for word in words.split())])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code


@pytest.mark.parametrize(
    "words",
    [
        "ingest SCHEMA --from RAW --by day --out NEW",
        "ingest SCHEMA --from RAW --by day --append --out NEW",
        "export RUN --out NEW",
    ],
)
def test_ctrl_c_at_each_step(words: str, source: Path, finished: Path, tmp_path: Path) -> None:
    new, appends = tmp_path / "new", "--append" in words

    def at(steps: list[int], number: int) -> tuple[int, int]:
        """The exit code and the number of steps of a run with signals at some of them."""
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if appends:
            shutil.copytree(source / "log", new)
        with signals(steps, number) as counter:
            code = call(source, words, new, finished)
        return code, counter.done

    at([], signal.SIGINT)  # imports what it needs
    code, total = at([], signal.SIGINT)
    assert (code, total > 10) == (0, True)
    for step in range(1, total + 1, max(1, total // 4)):
        assert at([step], signal.SIGINT)[0] == 130
        whole(new, appends)
        assert not list(tmp_path.glob(".*"))
        assert at([step], signal.SIGTERM)[0] == 143
        assert at([step, step + 1], signal.SIGINT)[0] == 130  # it may leave a draft, which nobody takes for the whole
        whole(new, appends)


def whole(new: Path, appends: bool) -> None:
    """What is there is all that belongs there, and nobody holds its lock."""
    assert live_lock(new) is None if new.exists() else not appends
    if (new / "log.json").exists():
        assert [fault for fault in verify(new) if "stray" not in fault.what] == []
    elif new.exists():
        assert (new / "manifest.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_short_step_is_not_cut_in_two(number: signal.Signals) -> None:
    done: list[str] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def body() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("all of it")

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            body()
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert done == ["all of it"]


@pytest.mark.parametrize("step", range(1, 13))
def test_a_lock_is_released_wherever_ctrl_c_comes(step: int, tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), signals([step, step + 1]), locked(tmp_path / "run"):
        (tmp_path / "run" / "x").write_text("x")
    assert live_lock(tmp_path / "run") is None
    assert {path.name for path in tmp_path.glob("run/*")} <= {"x"}


def test_a_file_is_whole_or_as_it_was_wherever_ctrl_c_comes(tmp_path: Path) -> None:
    for step in range(1, 5):
        (tmp_path / "x").write_bytes(b"old")
        with suppress(KeyboardInterrupt), signals([step]):
            write_whole(tmp_path / "x", b"new")
        assert (tmp_path / "x").read_bytes() in (b"old", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["x"]
