"""A log that grows under a follower: the same bytes as one run over all of it, whenever it was ended and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import StreamConfig
from diet_ray.distill.follow import follow_log
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.errors import ConfigError, CorruptArtefactError, LockedError
from diet_ray.logs.blocks import open_log
from diet_ray.memory.events import Events
from diet_ray.memory.layout import waiting_folder
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.report.status import run_status
from diet_ray.storage.lock import locked
from diet_ray.training.reference import Reference
from tests.support.small_run import config, local_run, stage_bytes


def first_blocks(log: Path, n: int) -> None:
    """Let a log name only its first n blocks, or more of them than before, as an append does."""
    path = log / "log.json"
    manifest = json.loads(path.read_text())
    manifest["blocks"] = [f"block-{index:03d}" for index in range(n)]
    path.with_suffix(".tmp").write_text(json.dumps(manifest))
    path.with_suffix(".tmp").replace(path)


@pytest.fixture
def growing(log: Path, tmp_path: Path) -> Path:
    """A copy of the log of four blocks that names only two of them; `whole` beside it is a run over all four."""
    shutil.copytree(log, tmp_path / "log")
    local_run(tmp_path / "whole", config(tmp_path / "log"))
    first_blocks(tmp_path / "log", 2)
    return tmp_path / "log"


def local(run: Path, stream: StreamConfig, resumed: list[bool]) -> Callable[[bool], None]:
    def distil(resume: bool) -> None:
        resumed.append(resume)
        committed = open_run(run, stream, resume=resume)
        run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(run / "events.jsonl"), committed)

    return distil


def test_each_new_block_runs_the_stage_of_the_one_before(growing: Path, tmp_path: Path) -> None:
    run, stream, resumed = tmp_path / "run", config(growing), list[bool]()
    waits: list[tuple[int, str]] = []
    sleeps = 0

    def sleep(seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        if sleeps == 3:  # two looks without news, then a block
            first_blocks(growing, 3)
        elif sleeps == 4:
            first_blocks(growing, 4)
        elif sleeps == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_log(
            run,
            stream,
            local(run, stream, resumed),
            on_wait=lambda text: waits.append((len(committed_stages(run)), text.rpartition(" ")[2])),
            sleep=sleep,
        )
    assert resumed == [False, True, True]
    assert waits == [(1, "block-001"), (2, "block-002"), (3, "block-003")]  # each once, not at every look
    assert stage_bytes(run) == stage_bytes(tmp_path / "whole")


def test_a_follower_that_was_ended_in_a_stage_goes_on_to_the_same_bytes(
    growing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, stream, resumed = tmp_path / "run", config(growing), list[bool]()
    real = Reference.save_moments

    def terminated(reference: Reference, *values: Any, **others: Any) -> None:
        if len(committed_stages(run)) == 1:
            raise KeyboardInterrupt
        real(reference, *values, **others)

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    first_blocks(growing, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Reference, "save_moments", terminated)
        with pytest.raises(KeyboardInterrupt):
            follow_log(run, stream, local(run, stream, resumed), on_wait=print, sleep=stop)
    assert len(committed_stages(run)) == 1
    first_blocks(growing, 4)
    with pytest.raises(KeyboardInterrupt):
        follow_log(run, stream, local(run, stream, resumed), on_wait=print, sleep=stop)
    assert resumed == [False, True]
    assert stage_bytes(run) == stage_bytes(tmp_path / "whole")


def test_a_log_of_one_block_waits_for_the_second(growing: Path, tmp_path: Path) -> None:
    first_blocks(growing, 1)
    run, stream, resumed, waits = tmp_path / "run", config(growing), list[bool](), list[str]()

    def sleep(seconds: float) -> None:
        if (run / "stages").exists():
            raise KeyboardInterrupt
        first_blocks(growing, 2)

    with pytest.raises(KeyboardInterrupt):
        follow_log(run, stream, local(run, stream, resumed), on_wait=waits.append, sleep=sleep)
    assert len(committed_stages(run)) == 1
    assert waits[0] == f"0 blocks of {growing} distilled; waiting for the block after block-000"


def never(resume: bool) -> None:
    raise AssertionError


def test_a_follower_that_waits_says_so_and_is_the_only_one(log: Path, finished: Path, tmp_path: Path) -> None:
    run, stream = Path(shutil.copytree(finished, tmp_path / "run")), config(log)
    refused: list[str] = []

    def look(seconds: float) -> None:
        found = run_status(run)
        assert (found.state, found.blocks_done) == ("waiting", 3)
        with pytest.raises(LockedError) as caught:
            follow_log(run, stream, never, on_wait=lambda text: None, sleep=lambda s: pytest.fail("both wait"))
        refused.append(str(caught.value))
        with locked(run):  # as a driver does that runs one more stage by hand
            assert run_status(run).owner is not None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_log(run, stream, never, on_wait=lambda text: None, sleep=look)
    assert refused[0].startswith(f"{run}/follow: in use by process {os.getpid()} on ")
    assert run_status(run).state == "finished"
    assert not waiting_folder(run).exists()


def test_a_killed_follower_is_known_to_be_gone_and_the_next_one_tidies_up(
    log: Path, finished: Path, tmp_path: Path
) -> None:
    run, seen = Path(shutil.copytree(finished, tmp_path / "run")), list[str]()
    with locked(waiting_folder(run)):
        lock = (run / "follow" / "lock.json").read_text()
    (run / "follow").mkdir()
    (run / "follow" / "lock.json").write_text(lock.replace(f'"pid": {os.getpid()}', '"pid": 2147483646'))
    assert run_status(run).state == "finished"

    def look(seconds: float) -> None:
        seen.append(run_status(run).state)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_log(run, config(log), never, on_wait=lambda text: None, sleep=look)
    assert seen == ["waiting"]
    assert not waiting_folder(run).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_and_leaves_nothing(log: Path, finished: Path, tmp_path: Path, number: int) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (tmp_path / "config.json").write_text(config(log).model_dump_json())
    code = """
import sys
from pathlib import Path
from diet_ray.cli.group import _terminable
from diet_ray.config import StreamConfig
from diet_ray.distill.follow import follow_log
config = StreamConfig.model_validate_json(Path(sys.argv[2]).read_bytes())
with _terminable():
    follow_log(Path(sys.argv[1]), config, None, on_wait=lambda text: None, sleep=lambda s: (print("waits", flush=True), input()))
"""
    command = [sys.executable, "-c", code, str(run), str(tmp_path / "config.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"waits\n"
        assert run_status(run).state == "waiting"
        process.send_signal(number)
        assert process.stderr.read().endswith(b"KeyboardInterrupt\n")
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in finished.iterdir())


def test_what_cannot_be_followed_is_refused(growing: Path, tmp_path: Path) -> None:
    fixed = config(growing).model_copy(update={"blocks": 2})
    with pytest.raises(ConfigError, match="key 'blocks'"):
        follow_log(tmp_path / "run", fixed, never, on_wait=print)
    (growing / "log.json").unlink()
    with pytest.raises(CorruptArtefactError, match=r"log\.json: missing"):
        follow_log(tmp_path / "run", config(growing), never, on_wait=print)


def test_a_bad_glance_does_not_end_a_follower(growing: Path, tmp_path: Path) -> None:
    """`log.json` is away for a moment, then half-written, then names a block that is not there yet; then a lock is held for a moment."""
    run, stream, resumed, waits = tmp_path / "run", config(growing), list[bool](), list[str]()
    manifest, aside = growing / "log.json", tmp_path / "aside"
    whole = manifest.read_bytes()
    held = iter([True, False])
    work = local(run, stream, resumed)

    def distil(resume: bool) -> None:
        if len(committed_stages(run)) == 2 and next(held):
            raise LockedError(f"{run}: in use by gc")
        work(resume)

    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: manifest.unlink(),
            lambda: manifest.write_bytes(whole[:40]),
            lambda: manifest.write_bytes(whole),
            lambda: ((growing / "blocks" / "block-001").rename(aside), first_blocks(growing, 3)),
            lambda: aside.rename(growing / "blocks" / "block-001"),
            lambda: first_blocks(growing, 4),
        ]
    )

    def sleep(seconds: float) -> None:
        if len(committed_stages(run)) == 3:
            raise KeyboardInterrupt
        next(steps, lambda: None)()

    with pytest.raises(KeyboardInterrupt):
        follow_log(run, stream, distil, on_wait=waits.append, sleep=sleep)
    assert stage_bytes(run) == stage_bytes(tmp_path / "whole")
    told = [text for text in waits if "looking again" in text]
    for words in ("log.json: missing", "log.json: not a valid", "block-001/manifest.json: missing", "in use by gc"):
        assert any(words in text for text in told), (words, told)


def test_a_fault_that_stays_ends_a_follower(growing: Path, tmp_path: Path) -> None:
    run, stream, sleeps = tmp_path / "run", config(growing), list[float]()

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        (growing / "log.json").write_text("{")

    with pytest.raises(CorruptArtefactError, match=r"log\.json: not a valid"):
        follow_log(run, stream, local(run, stream, []), on_wait=lambda text: None, sleep=sleep)
    assert sleeps == [5, 5, 10, 20, 40, 80]


def test_a_log_that_lost_blocks_is_told_at_once(log: Path, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.copytree(log, tmp_path / "log")
    first_blocks(tmp_path / "log", 2)
    with pytest.raises(ConfigError, match="has 2 blocks, but the run has distilled 3; put the whole log back"):
        follow_log(run, config(tmp_path / "log"), never, on_wait=print, sleep=lambda s: pytest.fail("it waits"))
