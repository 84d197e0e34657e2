"""Pruning of old stages: the files leave, the record says so, and nobody takes that for damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.config import CheckpointsConfig, StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.memory.archive import Archive
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.download import fetch
from diet_ray.memory.garbage import OLD, PRUNING, collect, garbage, unnamed
from diet_ray.memory.layout import PRUNED, run_manifest, stage_folder
from diet_ray.memory.lineage import trace
from diet_ray.memory.moments import load_moments
from diet_ray.memory.pruning import kept_files, prune, pruned
from diet_ray.memory.run_folder import committed_stages, read_stage
from diet_ray.memory.verification import verify
from diet_ray.report.inspection import inspect
from diet_ray.report.status import run_status
from diet_ray.storage.folder_store import FolderStore
from tests.support.small_run import STREAM, stage_bytes

WEIGHTS = ["checkpoint-1.safetensors", "optimiser.safetensors"]


def stream(log: Path, **checkpoints: Any) -> StreamConfig:
    refine = {**STREAM["refine"], "rounds": 0}
    return StreamConfig.model_validate({**STREAM, "log": log, "refine": refine, "checkpoints": checkpoints})


@pytest.fixture(scope="module")
def whole(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three stages that keeps all."""
    run = tmp_path_factory.mktemp("whole") / "run"
    distil_locally(run, stream(log, keep="all"))
    return run


@pytest.fixture(scope="module")
def lean(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with the reference of its last stage alone."""
    run = tmp_path_factory.mktemp("lean") / "run"
    distil_locally(run, stream(log, keep=1))
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def weights(run: Path, index: int) -> list[str]:
    return sorted(path.name for path in stage_folder(run, index).glob("*.safetensors"))


def test_only_the_last_stages_keep_the_reference_and_the_units_are_the_same(whole: Path, lean: Path) -> None:
    assert [weights(lean, index) for index in range(3)] == [[], [], WEIGHTS]
    assert weights(whole, 0) == ["checkpoint-0.safetensors", *WEIGHTS]
    record = pruned(stage_folder(lean, 0))
    assert record
    assert (record.after, record.keep, sorted(record.names)) == (1, 1, WEIGHTS)
    here, there = stage_bytes(lean), stage_bytes(whole)
    same = [name for name in here if not name.endswith(".json")]
    assert len(same) == 3 * 2 + 2
    assert {name: here[name] for name in same} == {name: there[name] for name in same}


def test_the_default_keeps_two(log: Path, tmp_path: Path) -> None:
    distil_locally(tmp_path / "run", stream(log))
    assert [len(weights(tmp_path / "run", index)) for index in range(3)] == [0, 2, 2]
    assert trace(tmp_path / "run").previous() is not None


def test_a_pruned_run_is_sound_and_goes_on_with_the_same_bytes(log: Path, lean: Path, tmp_path: Path) -> None:
    assert verify(lean, log=log) == []
    run = tmp_path / "run"
    distil_locally(run, stream(log, keep=1).model_copy(update={"blocks": 2}))
    raw = run_manifest(run).read_text()
    run_manifest(run).write_text(raw.replace('"blocks": 2', '"blocks": null'))
    distil_locally(run, stream(log, keep=1), resume=True)
    names = [name for name in stage_bytes(lean) if name.startswith("0002/") and not name.endswith(".json")]
    assert {name: stage_bytes(run)[name] for name in names} == {name: stage_bytes(lean)[name] for name in names}


def test_what_needs_a_pruned_file_says_why_it_cannot_be_had(lean: Path) -> None:
    folder = stage_folder(lean, 1)
    said = r"stages/0001: .* pruned after the commit of stage 0002 .*'checkpoints\.keep': 1\); open one of the last 1 stages"
    with pytest.raises(ConfigError, match=said):
        load_memory(folder)
    with pytest.raises(ConfigError, match=said):
        load_moments(folder, read_stage(lean, 1))
    assert trace(lean).previous() is None
    inspect(lean)


def test_status_inspect_and_gc_tell_the_bytes(whole: Path, lean: Path) -> None:
    def on_disk(run: Path) -> int:
        return sum(path.stat().st_size for path in run.glob("stages/*/*") if path.suffix != ".json")

    for run in (whole, lean):
        assert run_status(run).kept_bytes == inspect(run).kept_bytes == on_disk(run)
    gone = sum(entry.bytes for index in (0, 1) for entry in read_stage(lean, index).weights)
    assert run_status(lean).pruned_bytes == inspect(lean).pruned_bytes == gone > 0
    assert any("pruned" in line for line in run_status(lean).lines())
    assert run_status(whole).pruned_bytes == 0


@pytest.mark.parametrize("after", range(5))
def test_pruning_that_is_broken_off_is_no_damage_and_goes_on(
    log: Path, run: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A power cut after any number of the calls that change the folder."""
    left = [after]

    def cut(real: Any) -> Any:
        def call(*given: Any) -> None:
            if not left[0]:
                raise OSError("power cut")
            left[0] -= 1
            real(*given)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "write", cut(FolderStore.write))
        patch.setattr(FolderStore, "delete", cut(FolderStore.delete))
        with pytest.raises(OSError, match="power cut"):
            prune(run, keep=1, committed=3)
    assert verify(run, log=log) == []
    found = garbage(run)
    assert {one.what for one in found} <= {PRUNING}
    assert len(collect(run)) == len(found)
    assert garbage(run) == []
    assert prune(run, keep=1, committed=3) == 2
    assert [weights(run, index) for index in (0, 1)] == [[], []]
    assert verify(run, log=log) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"files": [{"path": "memory-00.arrow", "bytes": 1, "sha256": "0"}]}, "names 'memory-00.arrow', which is no"),
        ({"after": 0}, "which keeps this stage"),
        ({"format": 2}, "format 2"),
    ],
)
def test_a_record_that_cannot_be_is_a_fault(lean: Path, tmp_path: Path, change: dict[str, Any], what: str) -> None:
    run = Path(shutil.copytree(lean, tmp_path / "run"))
    record = pruned(stage_folder(run, 1))
    assert record
    text = record.model_copy(update=change).model_dump_json(warnings=False)
    (stage_folder(run, 1) / PRUNED).write_text(text)
    assert any(what in fault.what for fault in verify(run))


def test_a_file_that_is_gone_without_a_record_is_damage(lean: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(lean, tmp_path / "run"))
    (stage_folder(run, 1) / PRUNED).unlink()
    assert sum("missing" in fault.what for fault in verify(run)) == 2
    with pytest.raises(CorruptArtefactError, match=r"checkpoint-1\.safetensors: missing"):
        load_memory(stage_folder(run, 1))


def test_a_run_of_an_earlier_build_keeps_all(log: Path, whole: Path, run: Path) -> None:
    """Its run.json has no key, neither in the config nor beside it."""
    raw = json.loads(run_manifest(run).read_text())
    del raw["config"]["checkpoints"], raw["checkpoints"]
    run_manifest(run).write_text(json.dumps(raw))
    shutil.rmtree(stage_folder(run, 2))
    distil_locally(run, stream(log), resume=True)
    assert [weights(run, index) for index in range(3)] == [weights(whole, index) for index in range(3)]


def test_gc_prunes_an_old_run_when_told(log: Path, whole: Path, lean: Path, run: Path) -> None:
    raw = json.loads(run_manifest(run).read_text())
    del raw["config"]["checkpoints"], raw["checkpoints"]  # made before there was a policy
    run_manifest(run).write_text(json.dumps(raw))
    listed = garbage(run, keep=1)
    assert [leftover.path.parent.name for leftover in listed] == ["0000"] * 3 + ["0001"] * 3
    assert {leftover.what for leftover in listed} == {OLD}
    assert (garbage(run), weights(run, 0)) == ([], weights(whole, 0))  # listing removes nothing
    done = CliRunner().invoke(app, ["--json", "gc", str(run), "--keep", "1", "--yes"])
    said = json.loads(done.stdout)
    assert said["bytes"] == said["pruned_bytes"] == sum(leftover.bytes for leftover in listed)
    assert [weights(run, index) for index in range(3)] == [[], [], weights(whole, 2)]
    assert garbage(run, keep=1) == verify(run) == []
    with pytest.raises(ConfigError, match=r"pruned after the commit of stage 0002"):
        load_memory(stage_folder(run, 0))
    assert len(load_memory(run)) == len(load_memory(lean))
    shutil.rmtree(stage_folder(run, 2))
    assert CliRunner().invoke(app, ["gc", str(run), "--keep", "0"]).exit_code == 2
    assert CliRunner().invoke(app, ["gc", "file:///x", "--keep", "1"]).exit_code == 2


def test_a_pruned_old_run_goes_on_with_the_same_bytes(log: Path, whole: Path, run: Path) -> None:
    shutil.rmtree(stage_folder(run, 2))
    collect(run, keep=1)
    assert (weights(run, 0), weights(run, 1)) == ([], weights(whole, 1))
    distil_locally(run, stream(log, keep="all"), resume=True)
    last = {name: value for name, value in stage_bytes(whole).items() if "0002" in str(name)}
    assert last
    assert {name: value for name, value in stage_bytes(run).items() if "0002" in str(name)} == last


def test_an_archive_is_pruned_with_its_run_and_restores_it(log: Path, run: Path, tmp_path: Path) -> None:
    uri = (tmp_path / "archive").as_uri()
    archive, kept = Archive(uri), stream(log, keep="all")
    archive.push(run)
    prune(run, keep=1, committed=3)
    assert archive.push(run) == Archive(uri).push(run) == 3  # the process that pruned, and a later one
    assert stage_bytes(tmp_path / "archive") == stage_bytes(run)
    assert unnamed(archive) == []
    assert Archive(uri).pull(tmp_path / "back", kept) == 3
    assert stage_bytes(tmp_path / "back") == stage_bytes(run)
    assert len(load_memory(fetch(uri))) == read_stage(run, 2).units
    copy = fetch(uri, lineage=True, table_before=True)
    assert trace(copy).previous() is None  # as in the run folder: it is no damage that it was pruned
    with pytest.raises(ConfigError, match=r"stages/0001: .*pruned"):
        fetch(f"{uri}/stages/0001")


def test_a_stage_that_is_pruned_before_it_was_sent_is_sent_without(run: Path, tmp_path: Path) -> None:
    prune(run, keep=1, committed=3)
    Archive((tmp_path / "archive").as_uri()).push(run)
    assert stage_bytes(tmp_path / "archive") == stage_bytes(run)
    assert [len(kept_files(stage_folder(run, stage.index), stage)) for stage in committed_stages(run)] == [2, 2, 5]


def test_the_key_is_stored_only_where_it_says_something(log: Path) -> None:
    """The hashes of older configs stay what they were."""
    assert "checkpoints" not in stream(log).model_dump(mode="json")
    assert stream(log, keep=3).model_dump(mode="json")["checkpoints"] == {"keep": 3, "whole_every": 16}
    for bad in (0, True, "some", 1.5):
        with pytest.raises(ValueError, match="keep"):
            CheckpointsConfig.model_validate({"keep": bad})
