"""A memory in an archive, read as one in a run folder is: what comes, what stays, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import ConfigError, CorruptArtefactError, DietError, UnreachableError, VersionError
from diet_ray.memory.archive import Archive
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.download import cache_folder, fetch, name_of
from diet_ray.memory.layout import stage_folder
from diet_ray.report.export import export_memory
from diet_ray.report.inspection import inspect
from diet_ray.storage import remote
from diet_ray.storage.remote import Remote
from tests.support.object_store import SECRET, objects, write
from tests.support.small_run import bytes_of

NEEDED = {"manifest.json", "memory-00.arrow", "memory-01.arrow", "checkpoint-1.safetensors"}
"""What `load_memory` reads of a stage."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIET_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(finished: Path, tmp_path: Path) -> str:
    """An archive of three stages, in a folder."""
    uri = (tmp_path / "archive" / "run").as_uri()
    Archive(uri).push(finished)
    return uri


def cached(cache: Path) -> dict[str, set[str]]:
    """Names of what lies in the cache, by stage; it is the cache of one archive."""
    (folder,) = cache.iterdir()
    assert [path.name for path in folder.iterdir()] == ["stages"]
    return {stage.name: {path.name for path in stage.iterdir()} for stage in (folder / "stages").iterdir()}


def same(memory: Memory, other: Memory) -> bool:
    columns = ("x", "logit", "weight", "table")
    return memory.stage == other.stage and all(
        torch.equal(getattr(memory, name), getattr(other, name)) for name in columns
    )


def test_a_path_stands_for_itself(finished: Path, cache: Path) -> None:
    assert fetch(finished) == fetch(str(finished)) == finished
    assert name_of(finished) == str(finished)
    assert not cache.exists()


def test_of_an_archive_only_what_is_needed_comes_and_only_once(
    archive: str, finished: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(load_memory(archive), load_memory(finished))
    assert cached(cache) == {"0002": NEEDED}
    assert same(load_memory(f"{archive}/stages/0000/"), load_memory(stage_folder(finished, 0)))
    assert cached(cache) == {"0000": NEEDED, "0002": NEEDED}
    before = bytes_of(cache)
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "fetch", lambda *arguments: pytest.fail("fetched again"))
        assert same(load_memory(archive), load_memory(finished))
    (damaged,) = cache.glob("*/stages/0002/memory-00.arrow")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert same(load_memory(archive), load_memory(finished))
    assert bytes_of(cache) == before


def test_a_server_gives_what_a_folder_gives_and_no_secret_is_shown(
    endpoint: str, finished: Path, cache: Path, tmp_path: Path
) -> None:
    uri, said = f"s3://memories/{tmp_path.name}/run", list[str]()
    query = f"?endpoint_override={endpoint}&scheme=http"
    Archive(uri).push(finished)
    folder = fetch(uri + query, on_fetch=said.append)
    assert same(load_memory(folder), load_memory(finished))
    assert name_of(uri + query) == uri
    total = (stage_folder(finished, 2) / "checkpoint-1.safetensors").stat().st_size  # the table comes last
    assert said[0] == f"looking at {uri}"
    assert said[-1].startswith(f"fetching {uri}/stages/0002: ")
    assert said[-1].split(": ")[1].split(" of ") == [f"{total / 1000:.1f} kB"] * 2
    stage = f"{uri}/stages/0001{query}"
    page = tmp_path / "memory.html"
    result = CliRunner().invoke(app, ["--json", "inspect", stage, "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["memory"] == f"{uri}/stages/0001"
    assert f"fetching {uri}/stages/0001: " in result.stderr or result.stderr == ""  # lines come every few seconds
    result = CliRunner().invoke(app, ["export", stage, "--out", str(tmp_path / "exported")])
    assert result.exit_code == 0, result.output
    assert not any(SECRET in text or endpoint in text for text in [*said, page.read_text(), result.output])
    with pytest.raises(
        ConfigError, match=r"s3://nowhere/x/stages: cannot be reached .*bucket does not exist"
    ) as caught:
        fetch("s3://nowhere/x")
    assert SECRET not in str(caught.value)


def test_the_next_stage_is_noticed(archive: str, finished: Path, tmp_path: Path) -> None:
    for name in [name for name in objects(archive) if name.startswith("stages/0002")]:
        write(archive, name, None)
    assert load_memory(archive).stage.index == 1
    Archive(archive).push(finished)
    assert load_memory(archive).stage.index == 2


def test_export_and_inspect_give_what_the_run_folder_gives(
    archive: str, finished: Path, cache: Path, tmp_path: Path
) -> None:
    export_memory(finished, tmp_path / "here")
    export_memory(archive, tmp_path / "there")
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there")
    manifest = {"manifest.json"}
    assert cached(cache) == {"0000": manifest, "0001": manifest, "0002": NEEDED}
    found, expected = inspect(archive), inspect(finished)
    assert found.memory == archive
    of_folders = {"memory", "kept_bytes", "pruned_bytes"}
    assert json.loads(found.model_dump_json(exclude=of_folders)) == json.loads(
        expected.model_dump_json(exclude=of_folders)
    )
    assert cached(cache) == {"0000": manifest, "0001": manifest | {"checkpoint-1.safetensors"}, "0002": NEEDED}


def test_manifests_of_another_run_in_the_cache_are_replaced(archive: str, finished: Path, cache: Path) -> None:
    export = inspect(archive)
    for path in cache.glob("*/stages/000[01]/manifest.json"):
        path.write_text("{}")
    assert inspect(archive).blocks == export.blocks
    assert json.loads((next(cache.glob("*/stages/0000")) / "manifest.json").read_bytes())["index"] == 0


def test_an_archive_that_lost_its_first_stages_is_read_as_far_as_it_goes(archive: str) -> None:
    for content in (b"{", None):
        write(archive, "stages/0000/manifest.json", content)
        assert [block.name for block in inspect(archive).blocks] == [None, "block-001", "block-002"]


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("/nothing", ConfigError, "/nothing: holds no run; name the place that holds run.json"),
        ("/stages/0007", ConfigError, "/stages/0007: no complete stage; there are 0000 to 0002"),
        ("/stages/0001/memory-00.arrow", ConfigError, "memory-00.arrow: holds no run"),
    ],
)
def test_a_place_without_a_memory_is_refused(
    archive: str, cache: Path, place: str, kind: type[DietError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        load_memory(archive + place)
    assert said in str(caught.value)
    assert not cache.exists()


def test_an_archive_without_a_complete_stage_is_refused(archive: str, cache: Path) -> None:
    for index in range(3):
        write(archive, f"stages/{index:04d}/manifest.json", None)
    with pytest.raises(CorruptArtefactError, match=f"{archive}: holds no complete stage yet"):
        load_memory(archive)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("altered", "not the file that the manifest names: its sha256 differs"),
        ("truncated", "bytes, the manifest says"),
        ("missing", "missing, though the manifest names it; restore it from a copy"),
    ],
)
def test_a_damaged_file_is_named_and_does_not_stay(archive: str, cache: Path, damage: str, said: str) -> None:
    name = "stages/0002/memory-00.arrow"
    data = objects(archive)[name]
    write(archive, name, {"altered": data[:-1] + bytes([data[-1] ^ 1]), "truncated": data[:-1]}.get(damage))
    with pytest.raises(CorruptArtefactError) as caught:
        load_memory(archive)
    assert str(caught.value).startswith(f"{archive}/{name}: ")
    assert said in str(caught.value)
    assert cached(cache) == {"0002": {"manifest.json"}}
    assert same(load_memory(f"{archive}/stages/0001"), load_memory(f"{archive}/stages/0001"))
    write(archive, name, data)
    load_memory(archive)
    assert cached(cache)["0002"] == NEEDED


def test_a_damaged_manifest_is_named_as_it_lies_in_the_archive(archive: str, cache: Path) -> None:
    name = "stages/0002/manifest.json"
    manifest = objects(archive)[name]
    expected: list[tuple[bytes, type[DietError], str]] = [
        (manifest[:-9], CorruptArtefactError, "not a valid StageManifest"),
        (manifest.replace(b'"format": 2', b'"format": 9'), VersionError, "format 9"),
        (objects(archive)["stages/0001/manifest.json"], CorruptArtefactError, "is the manifest of stage 1"),
    ]
    for content, kind, said in expected:
        write(archive, name, content)
        with pytest.raises(kind) as caught:
            load_memory(archive)
        assert str(caught.value).startswith(f"{archive}/{name}: ")
        assert said in str(caught.value)
    assert not list(cache.glob("*/stages"))


def test_the_cache_is_where_the_environment_says(tmp_path: Path, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIET_RAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "diet_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path(os.path.expanduser("~/.cache/diet_ray"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIET_RAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"file/run-[0-9a-f]{16}: cannot be written to .*DIET_RAY_CACHE"):
        load_memory(archive)


def test_a_full_disk_is_told_from_a_store_that_is_away(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    def full(path: Path, mode: str, **more: Any) -> Any:
        file = open(path, mode, **more)  # noqa: SIM115 - the code under test closes it
        return Full(file) if mode == "wb" and path.name == "memory-00.arrow" else file

    monkeypatch.setattr(remote, "open", full, raising=False)
    with pytest.raises(ConfigError, match=r"memory-00\.arrow: cannot be written \(No space left on device\)") as caught:
        load_memory(archive)
    assert not isinstance(caught.value, UnreachableError)
