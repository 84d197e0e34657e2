"""An archive behind a network and a store that fail: right bytes or one typed error, and never a half that is taken for whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from diet_ray.errors import CorruptArtefactError, LockedError, UnreachableError
from diet_ray.memory.archive import Archive
from diet_ray.memory.download import fetch
from diet_ray.memory.garbage import archive_garbage
from diet_ray.memory.verification import verify
from diet_ray.storage import cloud_store
from diet_ray.storage.hashes import sha256
from diet_ray.storage.remote import Remote
from tests.memory.test_archive import run_bytes, shorter
from tests.support.faulty_proxy import FAULTS, Fault, FaultyProxy, at_random, faulty, first
from tests.support.object_store import objects, write
from tests.support.small_run import config


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"s3://memories/{tmp_path.name}/run"


@pytest.fixture
def proxy(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The way to the store from here; the tests' own look at the objects takes another."""
    with faulty(endpoint) as (place, what):
        way = cloud_store._config
        monkeypatch.setattr(
            cloud_store, "_config", lambda scheme, query: {**way(scheme, query), "endpoint": f"http://{place}"}
        )
        yield what


@pytest.mark.parametrize(
    ("method", "fault"),
    [*(("GET", fault) for fault in FAULTS), *(("PUT", fault) for fault in FAULTS if fault != "cut")],
)
def test_what_fails_for_a_while_is_tried_again(
    uri: str, proxy: FaultyProxy, tmp_path: Path, method: str, fault: Fault
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4096)
    remote = Remote(uri)
    if method == "GET":
        remote.send(file, "file")
    proxy.plan = first(2, fault, method, "/file")
    if method == "PUT":
        assert remote.send(file, "file") == sha256(file)
    assert remote.fetch("file", tmp_path / "back") == sha256(file)
    assert proxy.faults == 2
    assert objects(uri) == {"file": file.read_bytes()}


@pytest.mark.parametrize("fault", ["503", "cut", "drop before"])
def test_what_fails_for_good_is_one_typed_error(
    uri: str, proxy: FaultyProxy, finished: Path, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_store, "RETRIES", 1)
    Archive(uri).push(finished)
    proxy.plan = first(10**9, fault, "GET", "stages/0001/memory-00.arrow")
    run = tmp_path / "run"
    with pytest.raises(UnreachableError, match=f"^{uri}/stages/0001/memory-00.arrow: cannot be reached ") as caught:
        Archive(uri).pull(run, config(log_of(finished)))
    assert "\n" not in str(caught.value)
    assert [path.name for path in (run / "stages").iterdir() if not path.name.startswith(".")] == ["0000"]
    proxy.plan = first(0, "", "", "")
    assert Archive(uri).pull(run, config(log_of(finished))) == 2
    assert run_bytes(run) == run_bytes(finished)


@pytest.mark.parametrize("seed", range(2))
def test_push_pull_and_verify_through_random_faults(
    uri: str, proxy: FaultyProxy, finished: Path, tmp_path: Path, seed: int
) -> None:
    proxy.plan = at_random(seed, 0.15)
    with Archive(uri).locked():
        assert Archive(uri).push(finished) == 3
    assert objects(uri) == run_bytes(finished)
    assert Archive(uri).pull(tmp_path / "run", config(log_of(finished))) == 3
    assert run_bytes(tmp_path / "run") == run_bytes(finished)
    assert verify(uri) == []
    assert proxy.faults > 5


@pytest.mark.parametrize("fault", ["drop after", "cut", "500"])
def test_the_lock_is_ours_or_another_ones_whatever_is_lost(uri: str, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.plan = first(2, fault, "PUT", "/lock.json")
    archive = Archive(uri)
    with archive.locked():
        assert list(objects(uri)) == ["lock.json"]
        archive._check_held()
        with pytest.raises(LockedError, match="in use by"), Archive(uri).locked():
            pytest.fail("two hold it")
    assert objects(uri) == {}


def test_lists_that_show_new_objects_late(uri: str, proxy: FaultyProxy, finished: Path, tmp_path: Path) -> None:
    proxy.late = 1e6
    archive = Archive(uri)
    assert archive.push(shorter(finished, tmp_path / "shorter", 2)) == 2
    assert archive.push(finished) == 3
    assert not archive.remote.sizes(deep=True)
    assert archive.begun()
    assert archive.stages() == [0, 1, 2]
    assert Archive(uri).push(finished) == 3
    assert objects(uri) == run_bytes(finished)
    assert Archive(uri).pull(tmp_path / "run", config(log_of(finished))) == 3
    assert run_bytes(tmp_path / "run") == run_bytes(finished)
    assert verify(uri) == []
    assert fetch(uri).name == "0002"


def test_gc_does_not_remove_a_stage_whose_manifest_is_listed_late(uri: str, proxy: FaultyProxy, finished: Path) -> None:
    Archive(uri).push(finished)
    write(uri, "stages/0001/stray", b"12345")
    prefix = uri.removeprefix("s3://memories/")
    for index in range(3):
        proxy.born[f"{prefix}/stages/{index:04d}/manifest.json"] = float("inf")
    proxy.late = 1.0
    assert [one.path.as_posix() for one in archive_garbage(Archive(uri))] == ["stages/0001/stray"]


def test_a_body_that_is_cut_with_the_length_of_the_cut_is_no_whole_file(
    uri: str, proxy: FaultyProxy, finished: Path, tmp_path: Path
) -> None:
    """A broken cache on the way answers with half an object and says that this is all."""
    Archive(uri).push(finished)
    name = "stages/0000/optimiser.safetensors"
    write(uri, name, (finished / name).read_bytes()[:-7])
    with pytest.raises(CorruptArtefactError, match=f"^{uri}/{name}: not the file that the manifest names"):
        Archive(uri).pull(tmp_path / "run", config(log_of(finished)))


def log_of(run: Path) -> Path:
    return Path(json.loads((run / "run.json").read_bytes())["config"]["log"])
