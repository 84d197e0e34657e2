"""The archive of a run, against a real S3-compatible server on loopback and in a plain folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.config import StreamConfig, read_launch
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.engine import train as engine
from diet_ray.errors import ConfigError, CorruptArtefactError, LockedError, UnreachableError, VersionError, users_error
from diet_ray.logs.blocks import open_log
from diet_ray.memory import archive as archive_module
from diet_ray.memory.archive import Archive, archived
from diet_ray.memory.archive_note import ArchiveNote
from diet_ray.memory.events import Events
from diet_ray.memory.garbage import archive_garbage, collect_archive
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.memory.verification import verify
from diet_ray.report.status import run_status
from diet_ray.storage import cloud_store, lock
from diet_ray.storage import remote_lock as archive_lock
from diet_ray.storage.hashes import sha256
from diet_ray.storage.lock import live_lock
from diet_ray.storage.remote import Remote
from tests.support.object_store import SECRET, objects, write
from tests.support.small_run import config, local_run


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "POLL_SECONDS", 0.05)


@pytest.fixture(params=["s3", "file"])
def uri(request: pytest.FixtureRequest, endpoint: str, tmp_path: Path) -> str:
    """An archive that nobody has used, on the server or in a folder."""
    return f"s3://memories/{tmp_path.name}/run" if request.param == "s3" else (tmp_path / "archive" / "run").as_uri()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path) -> str:
    """One on the server."""
    return f"s3://memories/{tmp_path.name}/run"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """One in a folder, which is much faster, for what does not depend on the store."""
    return (tmp_path / "archive" / "run").as_uri()


def run_bytes(run: Path) -> dict[str, bytes]:
    """What an archive should hold of a run folder."""
    kept = [run / "run.json", *sorted((run / "stages").rglob("*"))]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in kept if path.is_file()}


def shorter(finished: Path, target: Path, n: int) -> Path:
    """A copy of a run as it was after `n` stages."""
    shutil.copytree(finished, target)
    for index in range(n, len(committed_stages(finished))):
        shutil.rmtree(stage_folder(target, index))
    return target


class Killed(Exception):
    """The process died."""


class Dying:
    """A store whose process dies in the middle of its `last`-th write."""

    def __init__(self, store: Any, last: int) -> None:
        self.store, self.left = store, last
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def _dies_at(self, name: str) -> bool:
        self.left -= 1
        self.names.append(name)
        return self.left == 0

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        dies = self._dies_at(name)

        def half() -> Iterator[bytes]:
            yield b"half"
            raise Killed

        self.store.write(name, half() if dies else chunks)

    def create(self, name: str, data: bytes) -> bool:
        if self._dies_at(name):
            raise Killed
        created: bool = self.store.create(name, data)
        return created


def watched(archive: Archive, last: int = 10**9) -> Dying:
    archive.remote.store = Dying(archive.remote.store, last)  # type: ignore[assignment]
    return archive.remote.store


def test_what_is_pushed_is_the_run_folder_and_comes_back_byte_for_byte(
    uri: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    assert Archive(uri).push(finished) == 3
    assert objects(uri) == run_bytes(finished)
    assert len(objects(uri)) == 1 + 3 * 6
    fresh = tmp_path / "fresh"
    assert Archive(uri).pull(fresh, config(log)) == 3
    assert run_bytes(fresh) == run_bytes(finished)
    assert verify(fresh) == []
    assert Archive(uri).pull(fresh, config(log)) == 0


def test_manifests_are_sent_last_and_nothing_twice(folder: str, finished: Path) -> None:
    archive = Archive(folder)
    writes = watched(archive).names
    assert archive.push(finished) == 3
    for index in range(3):
        mine = [name for name in writes if name.startswith(f"stages/{index:04d}/")]
        assert mine[-1] == f"stages/{index:04d}/manifest.json"
        assert len(mine) == 6
    assert writes[0] == "run.json"
    done = len(writes)
    assert archive.push(finished) == 3
    assert len(writes) == done


def test_a_shorter_archive_gets_what_it_lacks_and_a_shorter_folder_too(
    folder: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    run = shorter(finished, tmp_path / "run", 1)
    assert Archive(folder).push(run) == 1
    longer = Archive(folder)
    writes = watched(longer).names
    assert longer.push(finished) == 3
    assert not any("0000" in name or name == "run.json" for name in writes)
    assert Archive(folder).pull(run, config(log)) == 2
    assert run_bytes(run) == run_bytes(finished) == objects(folder)
    assert (
        Archive(folder).push(shorter(finished, tmp_path / "behind", 2)) == 2
    )  # it has nothing to add, and takes nothing away
    assert objects(folder) == run_bytes(finished)


def test_a_push_reads_the_manifests_of_new_stages_alone(
    folder: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    parse = archive_module.parse_json
    monkeypatch.setattr(
        archive_module, "parse_json", lambda kind, path: (read.append(path.parent.name), parse(kind, path))[1]
    )
    archive = Archive(folder)
    assert archive.push(shorter(finished, tmp_path / "run", 2)) == 2
    assert archive.push(finished) == 3
    assert archive.push(finished) == 3
    assert read == ["0000", "0001", "0002"]


def test_a_push_killed_at_any_write_leaves_whole_stages_only_and_is_made_up_for(
    uri: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    run = shorter(finished, tmp_path / "run", 2)
    counting = Archive(f"{uri}/0")
    counted = watched(counting)
    counting.push(run)
    writes = len(counted.names)
    assert writes == 1 + 2 * 6
    for last in range(1, writes + 1, 5 if uri.startswith("s3") else 1):
        here = f"{uri}/{last}"
        dying = Archive(here)
        watched(dying, last)
        with pytest.raises(Killed):
            dying.push(run)
        whole = [index for index in range(2) if f"stages/{index:04d}/manifest.json" in objects(here)]
        assert whole == Archive(here).stages() == list(range(len(whole)))
        fetched = tmp_path / f"fetched-{last}"
        assert Archive(here).pull(fetched, config(log)) == len(whole)
        if whole:
            assert run_bytes(fetched) == run_bytes(shorter(run, tmp_path / f"kept-{last}", len(whole)))
        again = Archive(here)
        sent = watched(again).names
        assert again.push(run) == 2
        assert objects(here) == run_bytes(run)
        # Of what had arrived whole nothing went again: only the file that was broken off and what comes after it.
        assert len(sent) == writes - last + 1


def test_what_an_interrupted_push_left_is_believed_by_its_checksum_alone(folder: str, finished: Path) -> None:
    name = "stages/0000/optimiser.safetensors"
    data = (finished / name).read_bytes()
    write(folder, name, bytes([data[0] ^ 1]) + data[1:])
    Archive(folder).push(finished)
    assert objects(folder) == run_bytes(finished)


def test_a_pull_killed_at_any_read_leaves_whole_stages_only(
    folder: str, finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Archive(folder).push(finished)
    fetch, run = Remote.fetch, tmp_path / "run"
    for last in range(1, 16, 3):
        left = [last]

        def half(self: Remote, name: str, path: Path, *more: Any, left: list[int] = left) -> str:
            left[0] -= 1
            checksum = fetch(self, name, path, *more)
            if left[0] == 0:
                path.write_bytes(path.read_bytes()[:-1])
                raise Killed
            return checksum

        with monkeypatch.context() as patch:
            patch.setattr(Remote, "fetch", half)
            with pytest.raises(Killed):
                Archive(folder).pull(run, config(log))
        done = len(committed_stages(run))
        assert done == (last - 1) // 5
        assert all(run_bytes(run)[name] == data for name, data in run_bytes(finished).items() if name in run_bytes(run))
        shutil.rmtree(run)
    Archive(folder).pull(run, config(log))
    assert run_bytes(run) == run_bytes(finished)


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing", "longer"])
def test_a_damaged_object_is_named_and_never_taken_for_whole(
    bucket: str, finished: Path, log: Path, tmp_path: Path, damage: str
) -> None:
    name = "stages/0001/memory-00.arrow"
    data = (finished / name).read_bytes()
    altered = {"altered": data[:-1] + bytes([data[-1] ^ 1]), "truncated": data[:-1], "longer": data + b"x"}
    Archive(bucket).push(finished)
    write(bucket, name, altered.get(damage))
    run = tmp_path / "fresh"
    with pytest.raises(CorruptArtefactError) as caught:
        Archive(bucket).pull(run, config(log))
    assert f"{bucket}/{name}: " in str(caught.value)
    assert str(tmp_path / "fresh") not in str(caught.value)
    assert [path.name for path in (run / "stages").iterdir()] == ["0000"]
    faults = verify(bucket)
    assert {fault.where for fault in faults} == {name}
    write(bucket, name, data)
    assert Archive(bucket).pull(run, config(log)) == 2
    assert run_bytes(run) == run_bytes(finished)


def test_a_damaged_or_misplaced_manifest_is_named(folder: str, finished: Path, log: Path, tmp_path: Path) -> None:
    Archive(folder).push(finished)
    path = "stages/0001/manifest.json"
    manifest = (finished / path).read_bytes()
    third = (finished / "stages/0002/manifest.json").read_bytes()
    parent = sha256(finished / "stages/0000/manifest.json")
    for content, error, what in [
        (b"", CorruptArtefactError, "not a valid StageManifest"),
        (manifest[:-100], CorruptArtefactError, "not a valid StageManifest"),
        (manifest.replace(b'"format": 2', b'"format": 3'), VersionError, "format 3"),
        (third, CorruptArtefactError, "does not follow from the stage before it"),
        (
            manifest.replace(parent.encode(), b"0" * 64),
            CorruptArtefactError,
            "does not follow from the stage before it",
        ),
    ]:
        write(folder, path, content)
        with pytest.raises(error, match=what) as caught:
            Archive(folder).pull(tmp_path / "fresh", config(log))
        assert str(caught.value).startswith(f"{folder}/{path}: ")
        assert len(committed_stages(tmp_path / "fresh")) == 1
        assert verify(folder)[0].where == path
        run = shorter(finished, tmp_path / hashlib.sha256(content).hexdigest(), 2)
        if manifest.startswith(content):  # a copy that was broken off
            assert Archive(folder).push(run) == 2
            assert objects(folder)[path] == manifest
            continue
        with pytest.raises(ConfigError, match=f"{path}: holds another run"):
            Archive(folder).push(run)
        assert objects(folder)[path] == content


def test_another_run_is_never_overwritten(folder: str, finished: Path, log: Path, tmp_path: Path) -> None:
    Archive(folder).push(finished)
    before = objects(folder)
    other = local_run(tmp_path / "other", config(log).model_copy(update={"seed": 4}))
    with pytest.raises(ConfigError, match=r"run\.json: holds another run"):
        Archive(folder).push(other)
    with pytest.raises(ConfigError, match=r"run\.json: holds another run"):
        Archive(folder).pull(other, config(log))
    write(folder, "run.json", (other / "run.json").read_bytes())  # the same run in name alone
    with pytest.raises(ConfigError, match=r"stages/0002/manifest\.json: holds another run"):
        Archive(folder).push(other)
    with pytest.raises(ConfigError, match=r"stages/0002/manifest\.json: holds another run"):
        Archive(folder).pull(other, config(log))
    assert objects(folder) == before | {"run.json": (other / "run.json").read_bytes()}


def test_another_config_or_other_versions_are_refused_before_anything_large_comes(
    folder: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    Archive(folder).push(finished)
    with pytest.raises(ConfigError, match="'seed' differs"):
        Archive(folder).pull(tmp_path / "one", config(log).model_copy(update={"seed": 4}))
    begun = json.loads((finished / "run.json").read_bytes())
    write(folder, "run.json", json.dumps(begun | {"versions": {"torch": "0"}}).encode())
    with pytest.raises(VersionError):
        Archive(folder).pull(tmp_path / "two", config(log))
    assert not (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"half", None])
def test_a_damaged_run_manifest_is_named_and_leaves_no_run_folder(
    folder: str, finished: Path, log: Path, tmp_path: Path, damage: bytes | None
) -> None:
    Archive(folder).push(finished)
    write(folder, "run.json", damage)
    with pytest.raises(CorruptArtefactError, match=f"^{folder}/run.json: (not a valid RunManifest|missing, though)"):
        Archive(folder).pull(tmp_path / "fresh", config(log))
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("lost", ["all", "manifest", "a file", "emptied file", "emptied manifest"])
def test_a_hole_between_stages_is_refused_by_pull_and_healed_by_push(
    folder: str, finished: Path, log: Path, tmp_path: Path, lost: str
) -> None:
    Archive(folder).push(finished)
    inside = sorted(name for name in objects(folder) if name.startswith("stages/0001/"))
    manifest = [name for name in inside if name.endswith("manifest.json")]
    gone = {"all": inside, "manifest": manifest, "emptied manifest": manifest}.get(lost, inside[:1])
    for name in gone:
        write(folder, name, b"" if lost.startswith("emptied") else None)
    with pytest.raises(CorruptArtefactError, match=f"^{folder}/stages/0001.*: (missing, though|not )"):
        Archive(folder).pull(tmp_path / "fresh", config(log))
    assert verify(folder)
    assert Archive(folder).push(finished) == 3
    assert objects(folder) == run_bytes(finished)
    assert Archive(folder).pull(tmp_path / "again", config(log)) == 3


def test_stages_behind_a_hole_that_the_run_folder_fills_are_fetched(
    folder: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    Archive(folder).push(finished)
    for name in [name for name in objects(folder) if name.startswith("stages/0000/")]:
        write(folder, name, None)
    run = shorter(finished, tmp_path / "run", 1)
    assert Archive(folder).pull(run, config(log)) == 2
    assert Archive(folder).push(run) == 3
    assert run_bytes(run) == run_bytes(finished) == objects(folder)


def test_a_damaged_run_folder_does_not_reach_the_archive(folder: str, finished: Path, tmp_path: Path) -> None:
    run = shorter(finished, tmp_path / "run", 1)
    path = run / "stages" / "0000" / "optimiser.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(
        CorruptArtefactError,
        match=r"0000/optimiser\.safetensors: not the file that the manifest names: its sha256 differs",
    ):
        Archive(folder).push(run)
    assert Archive(folder).stages() == []


def without_ray(monkeypatch: pytest.MonkeyPatch, stop_before: int = 99) -> None:
    """Let `distil` run in this process and, where told so, die before a stage."""

    def train(run: Path, stream: StreamConfig, blocks: int, **options: Any) -> None:
        committed = committed_stages(run)
        try:
            if len(committed) >= stop_before:
                raise Killed
            run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Dead(run, stop_before), committed)
        finally:
            shutil.rmtree(run / "ray", ignore_errors=True)

    class Dead(Events):
        def __init__(self, run: Path, stage: int) -> None:
            super().__init__(run / "events.jsonl")
            self.stage = stage

        def emit(self, kind: str, **values: Any) -> None:
            if kind == "start" and values["stage"] == self.stage and values["step"] == "refine":
                raise Killed
            super().emit(kind, **values)

    monkeypatch.setattr(engine, "check_cluster", lambda cluster: None)
    monkeypatch.setattr(engine, "_train", train)


def distil(run: Path, stream: StreamConfig, uri: str, *, resume: bool) -> None:
    with archived(Archive(uri), run, stream, resume=resume, on_trouble=pytest.fail):
        engine.distil(run, stream, resume=resume)


def test_a_run_goes_on_on_a_fresh_machine_with_the_same_bytes(
    bucket: str, finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch, stop_before=2)
    with pytest.raises(Killed):
        distil(tmp_path / "lost", config(log), bucket, resume=False)
    Archive(bucket).push(tmp_path / "lost")  # as far as the thread had not come
    shutil.rmtree(tmp_path / "lost")
    without_ray(monkeypatch)
    distil(tmp_path / "fresh", config(log), bucket, resume=True)
    assert run_bytes(tmp_path / "fresh") == run_bytes(finished) == objects(bucket)
    assert live_lock(tmp_path / "fresh") is None


def test_stages_are_sent_while_the_run_is_at_work_and_not_after_an_error(
    bucket: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def work() -> None:
        open_run(run, config(log), resume=False)
        for index in range(2):
            shutil.copytree(stage_folder(finished, index), stage_folder(run, index))
            until = time.monotonic() + 20
            while index not in Archive(bucket).stages():
                assert time.monotonic() < until
                time.sleep(0.02)
        raise Killed

    with (
        pytest.raises(Killed),
        archived(Archive(bucket), run, config(log), resume=False, on_trouble=pytest.fail),
    ):
        work()
    assert Archive(bucket).stages() == [0, 1]
    assert "lock.json" not in objects(bucket)


def test_a_begun_archive_wants_resume_and_an_unused_one_does_not_mind(
    folder: str, finished: Path, log: Path, tmp_path: Path
) -> None:
    with archived(Archive(folder), tmp_path / "a", config(log), resume=True, on_trouble=pytest.fail):
        pass
    assert objects(folder) == {}
    Archive(folder).push(finished)
    with (
        pytest.raises(ConfigError, match="already holds a run; continue it with --resume"),
        archived(Archive(folder), tmp_path / "a", config(log), resume=False, on_trouble=pytest.fail),
    ):
        pytest.fail("went on")


@pytest.mark.parametrize("how", ["missing", "a folder", "unreadable"])
def test_a_file_of_the_run_that_cannot_be_sent_is_told_while_the_run_goes_on(
    folder: str, finished: Path, log: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    broken = tmp_path / "copy" / "stages" / "0001" / "checkpoint-1.safetensors"
    shutil.copytree(finished, tmp_path / "copy")
    if how == "unreadable":
        send = Remote.send

        def denied(self: Remote, path: Path, name: str) -> str:
            if name.endswith("0001/checkpoint-1.safetensors"):
                raise PermissionError(13, "Permission denied", str(path))
            return send(self, path, name)

        monkeypatch.setattr(Remote, "send", denied)
    else:
        broken.unlink()
    if how == "a folder":
        broken.mkdir()
    (tmp_path / "copy").rename(tmp_path / "run")
    broken = tmp_path / "run" / broken.relative_to(tmp_path / "copy")

    def work() -> None:
        until = time.monotonic() + 20
        while not said:
            assert time.monotonic() < until
            time.sleep(0.02)

    expected = f"{broken}: " + ("Permission denied" if how == "unreadable" else "missing, though the manifest names it")
    with (
        pytest.raises((CorruptArtefactError, PermissionError)) as caught,
        archived(Archive(folder), tmp_path / "run", config(log), resume=True, on_trouble=said.append),
    ):
        work()
    assert said[0].startswith(expected)
    assert str(users_error(caught.value)).startswith(expected)


def test_an_archive_that_is_away_is_tried_again(
    folder: str, finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    archive, run = Archive(folder), tmp_path / "run"
    send, away = Remote.send, threading.Event()
    away.set()

    def sometimes(self: Remote, path: Path, name: str) -> str:
        if away.is_set():
            raise UnreachableError(f"{self.at(name)}: cannot be reached")
        return send(self, path, name)

    monkeypatch.setattr(Remote, "send", sometimes)
    with archived(archive, run, config(log), resume=False, on_trouble=said.append):
        run.mkdir(exist_ok=True)
        shutil.copy(finished / "run.json", run)  # before its stages, as a run begins
        shutil.copytree(finished, run, dirs_exist_ok=True)
        until = time.monotonic() + 20
        while not said:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert run_status(run).archive == ArchiveNote(uri=folder, stages=0, trouble=said[0])
        time.sleep(0.3)
        away.clear()
    assert len(said) == 1
    assert objects(folder) == run_bytes(finished)
    assert run_status(run).archive == ArchiveNote(uri=folder, stages=3)
    away.set()
    shutil.rmtree(run)
    with (
        pytest.raises(ConfigError, match="cannot be reached"),
        archived(Archive(f"{folder}/2"), run, config(log), resume=False, on_trouble=said.append),
    ):
        shutil.copytree(finished, run, dirs_exist_ok=True)


def test_the_second_driver_is_refused_and_told_who_is_there(uri: str, log: Path, tmp_path: Path) -> None:
    with Archive(uri).locked():
        owner = json.loads(objects(uri)["lock.json"])
        assert owner["pid"] == os.getpid()
        with pytest.raises(LockedError) as caught, Archive(uri).locked():
            pytest.fail("two hold it")
        said = str(caught.value)
        place = uri.removeprefix("file://")
        assert f"{place}: in use by process {os.getpid()} on {owner['host']} since 20" in said
        assert f"remove {place}/lock.json" in said
        assert list(objects(uri)) == ["lock.json"]
    assert objects(uri) == {}


@pytest.mark.parametrize(
    ("changes", "silent", "stale"),
    [
        ({"pid": 2**22 + 1}, 0, True),  # of this machine, and gone
        ({"machine": "boot/pid:[1]", "host": "far"}, 100, False),
        ({"machine": "boot/pid:[1]", "host": "far"}, 400, True),
        ({"pid": "?"}, 100, False),  # unreadable: perhaps another release wrote it
        ({"pid": "?"}, 400, True),
    ],
)
def test_when_the_lock_of_an_archive_is_stale(
    bucket: str, changes: dict[str, Any], silent: float, stale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Archive(bucket).locked():
        owner = json.loads(objects(bucket)["lock.json"])
    write(bucket, "lock.json", json.dumps({**owner, "token": "0123456789abcdef", **changes}).encode())
    modified = Remote.modified

    def later(self: Remote, name: str) -> float | None:  # the store's clock, so much later
        return (modified(self, name) or 0.0) + (silent if name.endswith(".probe") else 0.0)

    monkeypatch.setattr(Remote, "modified", later)
    if stale:
        with Archive(bucket).locked():
            assert json.loads(objects(bucket)["lock.json"])["pid"] == os.getpid()
        assert objects(bucket) == {}
    else:
        with pytest.raises(LockedError, match="in use by"), Archive(bucket).locked():
            pytest.fail("two hold it")
        assert list(objects(bucket)) == ["lock.json"]


def test_of_several_that_race_one_wins(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 1000.0)
    looked, done = (threading.Barrier(3, timeout=60) for _ in range(2))
    wins: list[str] = []
    losses: list[str] = []
    read, first = archive_lock._read, threading.local()

    def together(remote: Remote, store: Any) -> Any:
        found = read(remote, store)
        if not hasattr(first, "time"):
            first.time = 0
            looked.wait()  # all have looked and found no lock
        return found

    monkeypatch.setattr(archive_lock, "_read", together)

    def race() -> None:
        try:
            with archive_lock.archive_locked(Remote(uri)) as me:
                wins.append(me.token)
                done.wait()
                archive_lock.check_held(Remote(uri), me)
        except LockedError as error:
            losses.append(str(error))
            done.wait()

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert len(losses) == 2
    assert all("in use by process" in loss for loss in losses), losses
    assert objects(uri) == {}


def test_a_stale_lock_that_its_owner_touches_meanwhile_is_not_taken(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner's machine slept for ten minutes, and wakes up between the other's look and its write."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 1000.0)
    held = archive_lock._Held(Remote(bucket), cloud(bucket))
    held.me = held.me.model_copy(update={"machine": "boot/pid:[1]", "host": "far"})
    held.take()
    now, swap = archive_lock._now, cloud_store.CloudStore.swap

    def late(self: cloud_store.CloudStore, *arguments: Any) -> bool:
        monkeypatch.setattr(cloud_store.CloudStore, "swap", swap)
        monkeypatch.setattr(archive_lock, "_now", now)
        assert held.touch()
        return swap(self, *arguments)

    monkeypatch.setattr(archive_lock, "_now", lambda remote: now(remote) + 600)
    monkeypatch.setattr(cloud_store.CloudStore, "swap", late)
    with pytest.raises(LockedError, match="on far since"), Archive(bucket).locked():
        pytest.fail("two hold it")
    assert held.release()
    assert objects(bucket) == {}


def test_a_lost_answer_to_the_locks_write_is_made_up_for(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has written the lock, but its answer was lost, and the request sent again finds it there."""
    for name in ("create", "swap"):
        plain = getattr(cloud_store.CloudStore, name)

        def lost(self: cloud_store.CloudStore, *arguments: Any, plain: Any = plain, left: list[int] = [1]) -> bool:  # noqa: B006
            done: bool = plain(self, *arguments)
            if left and done:
                left.clear()
                return False
            return done

        with monkeypatch.context() as patch:
            held = archive_lock._Held(Remote(bucket), cloud(bucket))
            if name == "swap":
                held.take()
            patch.setattr(cloud_store.CloudStore, name, lost)
            if name == "create":
                held.take()
            assert held.touch()
            assert held.release()
    assert objects(bucket) == {}


def test_a_store_that_ignores_conditions_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ignoring(self: cloud_store.CloudStore, name: str, data: bytes) -> bool:
        self.write(name, [data])
        return True

    monkeypatch.setattr(cloud_store.CloudStore, "create", ignoring)
    with pytest.raises(ConfigError, match="ignores the condition of a write"), Archive(bucket).locked():
        pytest.fail("went on")
    assert objects(bucket) == {}


def cloud(uri: str) -> cloud_store.CloudStore:
    store = Remote(uri).store
    assert isinstance(store, cloud_store.CloudStore)
    return store


def test_who_lost_the_lock_commits_nothing_more(folder: str, finished: Path, tmp_path: Path) -> None:
    archive = Archive(folder)

    def lose() -> None:
        archive.push(shorter(finished, tmp_path / "run", 1))
        other = {**json.loads(objects(folder)["lock.json"]), "token": "0" * 16}
        write(folder, "lock.json", json.dumps(other).encode())
        with pytest.raises(LockedError, match="taken away"):
            archive.push(finished)

    with pytest.raises(LockedError, match="taken away"), archive.locked():
        lose()
    assert archive.stages() == [0]
    assert json.loads(objects(folder)["lock.json"])["token"] == "0" * 16


def test_the_owner_gives_signs_of_life(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    with Archive(uri).locked():
        first, until = Remote(uri).modified("lock.json"), time.monotonic() + 20
        while Remote(uri).modified("lock.json") == first:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert json.loads(objects(uri)["lock.json"])["pid"] == os.getpid()
    assert objects(uri) == {}


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("runs/mine", "runs/mine: not a URI; write s3://BUCKET/PREFIX"),
        ("ftp://host/x", "ftp://host/x: cannot hold an archive (Generic URL error: Unable to recognise URL"),
        ("s3:///x", "s3:///x: cannot hold an archive (no bucket is named)"),
        (
            "s3://memories/x?zork=1",
            "s3://memories/x: cannot hold an archive (unknown parameter 'zork'; known are endpoint",
        ),
        ("file://host/x", "file://host/x: cannot hold an archive (a folder has no host"),
        (f"s3://key:{SECRET}@memories/x", "s3://memories/x: the URI holds credentials"),
        ("s3://[::1/x", "not a URI"),
    ],
)
def test_a_place_that_is_none_is_named(endpoint: str, place: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Archive(place)
    assert what in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_bucket_that_is_not_there_is_named(endpoint: str, finished: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"s3://nowhere/x/.*: cannot be reached .*rights \(the AWS_\* variables\)"
    ) as caught:
        Archive("s3://nowhere/x").push(finished)
    assert SECRET not in str(caught.value)
    with pytest.raises(UnreachableError, match=r"404 Not Found: The specified bucket does not exist\); check"):
        verify("s3://nowhere/x")


def test_the_endpoint_may_stand_in_the_uri(
    endpoint: str, bucket: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        archive = Archive(f"{bucket}?endpoint_override={endpoint}&scheme=http")
        assert archive.remote.uri == bucket
        archive.push(finished)
    assert objects(bucket) == run_bytes(finished)


LEFT = {
    ".lock.0123456789abcdef.probe": "left by a process that was taking the lock",
    ".run.json.tmp": "half-written manifest",
    "stages/0003": "stage that was never committed",
    "stages/0001/stray": "no manifest names it",
    "stages/notes.txt": "no stage of the run",
    "stages/x": "no stage of the run",
}


def test_verify_and_gc_of_an_archive(uri: str, finished: Path, log: Path) -> None:
    Archive(uri).push(finished)
    for name in LEFT:
        write(uri, name + "/deep/y" if name.endswith(("0003", "x")) else name, b"12345")
    write(uri, "notes.md", b"mine")
    before = objects(uri)
    strays = {fault.where: fault.what for fault in verify(uri)}
    assert strays == {
        name: "stray: no manifest names it"
        for name, what in LEFT.items()
        if what in ("no stage of the run", "no manifest names it")
    }
    assert {one.path.as_posix(): one.what for one in archive_garbage(Archive(uri))} == LEFT
    assert all(one.bytes == 5 for one in archive_garbage(Archive(uri)))
    assert objects(uri) == before
    with Archive(uri).locked(), pytest.raises(LockedError):
        archive_garbage(Archive(uri))
    with Archive(uri).locked(), pytest.raises(LockedError):
        collect_archive(Archive(uri))
    assert {one.path.as_posix() for one in collect_archive(Archive(uri))} == set(LEFT)
    assert objects(uri) == run_bytes(finished) | {"notes.md": b"mine"}
    assert verify(uri, log=log) == []


def test_status_of_an_archive(uri: str, finished: Path, log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        run_status(uri)
    Archive(uri).push(shorter(finished, tmp_path / "run", 2))
    here, there = run_status(tmp_path / "run"), run_status(f"{uri}?" if uri.startswith("s3") else uri)
    same = ("state", "blocks_done", "blocks", "rows_seen", "rows_left", "units", "memory_bytes", "table_bytes")
    assert {key: getattr(there, key) for key in same} == {key: getattr(here, key) for key in same}
    assert (there.run, there.state, there.archive, there.eta) == (uri, "stopped", None, None)
    assert 0 <= there.silence < 120
    with Archive(uri).locked():
        assert run_status(uri).state == "running"
        assert f"by: process {os.getpid()} on " in "\n".join(run_status(uri).lines())
        Archive(uri).push(finished)
        assert run_status(uri).state == "waiting"
    done = CliRunner().invoke(app, ["status", uri])
    assert f"{uri}: finished, 3 of 3 blocks committed" in done.stdout
    before = objects(uri)
    refused = CliRunner().invoke(app, ["status", uri, "--out", str(tmp_path / "page.html")])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "--out: an archive has no times of steps" in refused.stderr
    assert objects(uri) == before
    write(uri, "stages/0002/manifest.json", b"{")
    with pytest.raises(CorruptArtefactError, match=r"stages/0002/manifest\.json is missing or damaged; see diet-ray"):
        run_status(uri)


def test_status_of_an_archive_far_from_its_log(folder: str, finished: Path) -> None:
    Archive(folder).push(finished)
    begun = json.loads((finished / "run.json").read_bytes())
    begun["config"]["log"] = "/nowhere"
    write(folder, "run.json", json.dumps(begun).encode())
    found = run_status(folder)
    assert (found.state, found.blocks_done, found.blocks, found.rows_left) == ("stopped", 3, None, None)
    assert "continues it, if its log, which is not here, has more blocks" in "\n".join(found.lines())


def test_gc_leaves_a_damaged_stage_to_a_person(folder: str, finished: Path) -> None:
    Archive(folder).push(finished)
    write(folder, "stages/0002/manifest.json", b"{")
    assert archive_garbage(Archive(folder)) == []


def test_on_the_command_line(bucket: str, finished: Path, tmp_path: Path) -> None:
    call = CliRunner().invoke
    Archive(bucket).push(finished)
    sound = call(app, ["--json", "verify", f"{bucket}?region=us-east-1"])
    assert sound.exit_code == 0, sound.output
    assert json.loads(sound.stdout)["kind"] == "archive"
    assert json.loads(sound.stdout)["path"] == bucket
    write(bucket, "stages/0003/memory-00.arrow", b"12345")
    listed = call(app, ["--json", "gc", bucket])
    assert json.loads(listed.stdout) == {
        "run": bucket,
        "removed": False,
        "bytes": 5,
        "kept_bytes": None,  # of an archive they are not known
        "pruned_bytes": None,
        "leftovers": [{"path": f"{bucket}/stages/0003", "what": "stage that was never committed", "bytes": 5}],
    }
    assert "Removed: 5 B." in call(app, ["gc", bucket, "--yes"]).stdout
    assert objects(bucket) == run_bytes(finished)
    write(bucket, "stages/0000/checkpoint-0.safetensors", b"x")
    damaged = call(app, ["verify", bucket])
    assert damaged.exit_code == 2
    assert f"{bucket}: faults found: 1; the first: stages/0000/checkpoint-0.safetensors" in damaged.stderr
    nothing = call(app, ["gc", f"{bucket}/nothing"])
    assert nothing.exit_code == 2
    assert "holds no run" in nothing.stderr


def test_the_key_stays_out_of_the_run(log: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"log: {log}\nout: {tmp_path / 'run'}\narchive: s3://memories/x\n")
    place, stream, uri = read_launch(file, None)
    assert (place, uri) == (tmp_path / "run", "s3://memories/x")
    assert "archive" not in stream.model_dump()


def test_a_large_file_travels_in_pieces(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diet_ray.storage.remote.CHUNK", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(12 << 20))
    remote = Remote(bucket)
    assert remote.send(path, "large") == sha256(path) == remote.sha256("large")
    remote.fetch("large", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(path)
    remote.stop.set()
    with pytest.raises(archive_module.Interrupted):
        remote.send(path, "other")


def test_distill_archives_and_resumes_from_the_archive(
    folder: str, finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = tmp_path / "run.yaml", tmp_path / "run"
    begun = config(log).model_dump(mode="json") | {"out": str(run), "archive": folder}
    file.write_text(yaml.safe_dump(begun))
    made = CliRunner().invoke(app, ["--local", "--quiet", "distill", "--config", str(file)])
    assert made.exit_code == 0, made.output
    assert objects(folder) == run_bytes(run) == run_bytes(finished)
    again = CliRunner().invoke(
        app, ["--local", "--quiet", "distill", "--config", str(file), "--out", str(tmp_path / "other")]
    )
    assert again.exit_code == 2
    assert "already holds a run; continue it with --resume or choose another archive" in again.stderr
    assert not (tmp_path / "other").exists()
    shutil.rmtree(run)
    write(folder, "stages/0002/manifest.json", None)
    resumed = CliRunner().invoke(app, ["--local", "--json", "distill", "--config", str(file), "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert [stage["seconds"] is None for stage in json.loads(resumed.stdout)["stages"]] == [True, True, False]
    assert objects(folder) == run_bytes(run) == run_bytes(finished)
