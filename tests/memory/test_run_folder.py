"""The run folder: a stage is whole or absent, and damage is named."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray.distill import pipeline
from diet_ray.distill.convert import convert
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.select import Scored
from diet_ray.errors import ConfigError, CorruptArtefactError, VersionError
from diet_ray.logs.blocks import open_log
from diet_ray.memory import run_folder as store
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.events import Events
from diet_ray.memory.layout import stage_folder, stage_manifest
from diet_ray.memory.run_folder import StageDraft, committed_stages, open_run, read_units, write_units
from diet_ray.memory.units import Units
from diet_ray.storage.entries import check_file, file_entry
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.tensors import load_tensors, save_tensors
from tests.support.small_run import config, local_run, stage_bytes
from tests.support.synthetic import rows


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run of three stages, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def some_units(n: int) -> Units:
    half = np.full((n, 1), 0.5, np.float32)
    return convert(Scored(rows(n), half, half), block=0, n_fields=4, dim=3)


def resume(run: Path, log: Path) -> None:
    stream = config(log)
    committed = open_run(run, stream, resume=True)
    pipeline.run_stream(run, open_log(log), stream, LocalEngine(stream), Events(None), committed)


@pytest.mark.parametrize("n", [0, 20])
def test_units_survive_the_file_and_give_the_same_bytes(tmp_path: Path, n: int) -> None:
    units = some_units(20).take(np.arange(n))
    entries = [write_units(tmp_path / name, units) for name in ("a.arrow", "b.arrow")]
    assert entries[0].sha256 == entries[1].sha256
    back = read_units(check_file(tmp_path, entries[0]))
    assert back.delta.shape == units.delta.shape
    assert np.array_equal(back.ids, units.ids)
    assert np.array_equal(back.logit, units.logit)


def test_a_file_that_is_no_arrow_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.arrow").write_bytes(b"no arrow")
    with pytest.raises(CorruptArtefactError, match=r"bad\.arrow"):
        read_units(tmp_path / "bad.arrow")


def test_safetensors_round_trip_and_damage(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3)}
    save_tensors(tmp_path / "a.safetensors", tensors)
    save_tensors(tmp_path / "b.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    back = load_tensors(tmp_path / "a.safetensors")
    assert {name: value.tolist() for name, value in back.items()} == {"a": 3, "b": [[0, 1, 2], [3, 4, 5]]}
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-5])
    for name in ("a.safetensors", "none.safetensors"):
        with pytest.raises(CorruptArtefactError, match=name):
            load_tensors(tmp_path / name)


@pytest.mark.parametrize("where", ["manifest", "rename"])
def test_a_crash_in_the_commit_leaves_nothing_to_be_seen(
    finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    run = tmp_path / "run"
    real_move, real_write = FolderStore.move, store.write_json

    def move(self: FolderStore, name: str, new: str) -> None:
        if new.endswith("/0001"):
            raise OSError("power cut")
        real_move(self, name, new)

    def write(path: Path, settings: Any) -> None:
        if path.parent.name.startswith(".0001."):
            raise OSError("power cut")
        real_write(path, settings)

    with monkeypatch.context() as patch:
        if where == "rename":
            patch.setattr(FolderStore, "move", move)
        else:
            patch.setattr(store, "write_json", write)
        with pytest.raises(OSError, match="power cut"):
            local_run(run, config(log))
    assert [stage.index for stage in committed_stages(run)] == [0]
    assert not stage_folder(run, 1).exists()
    assert load_memory(run).stage.index == 0
    resume(run, log)
    assert stage_bytes(run) == stage_bytes(finished)
    assert not list((run / "stages").glob(".*"))


def test_a_draft_starts_empty(tmp_path: Path) -> None:
    draft = StageDraft(tmp_path, 2)
    draft.begin()
    (draft.folder / "left-over").write_text("x")
    draft.begin()
    assert list(draft.folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("name", ["memory-01.arrow", "checkpoint-1.safetensors"])
def test_a_damaged_file_is_named(run: Path, name: str, damage: str) -> None:
    path = stage_folder(run, 2) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:-1] if damage == "truncated" else flipped)
    with pytest.raises(CorruptArtefactError, match=f"0002/{name}"):
        load_memory(run)


def test_a_damaged_optimiser_stops_a_resume(run: Path, log: Path) -> None:
    shutil.rmtree(stage_folder(run, 2))
    (stage_folder(run, 1) / "optimiser.safetensors").unlink()
    with pytest.raises(CorruptArtefactError, match=r"0001/optimiser\.safetensors"):
        resume(run, log)


@pytest.mark.parametrize("content", ["", "{", '{"index": 1}'])
def test_a_damaged_manifest_is_named(run: Path, content: str) -> None:
    (stage_folder(run, 1) / "manifest.json").write_text(content)
    with pytest.raises(CorruptArtefactError, match=r"0001/manifest\.json"):
        committed_stages(run)


def test_a_stage_without_its_parent_is_refused(run: Path) -> None:
    # Changed in a harmless place: the next stage no longer follows from it.
    edit(stage_folder(run, 0) / "manifest.json", rows_seen=299)
    with pytest.raises(CorruptArtefactError, match=r"0001/manifest\.json: does not follow"):
        committed_stages(run)


def test_stages_in_the_wrong_place_are_refused(run: Path) -> None:
    shutil.rmtree(stage_folder(run, 0))
    stage_folder(run, 1).rename(stage_folder(run, 0))
    with pytest.raises(CorruptArtefactError, match=r"0000/manifest\.json: does not follow"):
        committed_stages(run)


def test_a_gap_between_stages_is_refused(run: Path) -> None:
    shutil.rmtree(stage_folder(run, 1))
    with pytest.raises(CorruptArtefactError, match="0001: missing, though 0002"):
        committed_stages(run)


def test_a_run_of_another_format_is_refused(run: Path, log: Path) -> None:
    edit(run / "run.json", format=99)
    with pytest.raises(VersionError, match=r"run\.json: format 99"):
        open_run(run, config(log), resume=True)


def test_the_defaults_are_the_same_config_on_resume(tmp_path: Path, log: Path) -> None:
    defaults = type(config(log)).model_validate({"log": log})
    open_run(tmp_path / "run", defaults, resume=False)
    assert open_run(tmp_path / "run", defaults, resume=True) == []


def test_a_stage_of_another_format_is_refused(run: Path) -> None:
    edit(stage_folder(run, 0) / "manifest.json", format=99)
    with pytest.raises(VersionError, match=r"0000/manifest\.json: format 99"):
        committed_stages(run)


def test_a_run_is_not_begun_twice(run: Path, log: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run"):
        open_run(run, config(log), resume=False)


def test_resume_needs_a_run(tmp_path: Path, log: Path) -> None:
    with pytest.raises(CorruptArtefactError, match=r"run\.json"):
        open_run(tmp_path, config(log), resume=True)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 4), ("blocks", 2), ("budget", {"ratio": 0.04}), ("align", {"relabel": 0.5})]
)
def test_a_changed_config_is_named_on_resume(run: Path, log: Path, key: str, value: Any) -> None:
    changed = type(config(log)).model_validate({**config(log).model_dump(), key: value})
    with pytest.raises(ConfigError, match=f"key '{key}'"):
        open_run(run, changed, resume=True)


def test_the_cluster_may_change_on_resume(run: Path, log: Path) -> None:
    assert len(open_run(run, config(log, scorers=3), resume=True)) == 3


@pytest.mark.parametrize("package", ["diet_ray", "torch", "ray", "numpy", "pyarrow", "safetensors", "pydantic"])
def test_another_version_of_a_package_on_which_bytes_depend_stops_a_resume(run: Path, log: Path, package: str) -> None:
    """The versions of the last stage count; before there is one, and after those of earlier releases, the versions of the run."""
    versions = json.loads((run / "run.json").read_text())["versions"]
    assert versions[package] == version(package)
    other = {**versions, package: "1.0a"}
    said = (
        f"begun with {package} 1.0a, now {package} {version(package)}; install those, start a new run, or resume with"
    )
    last = stage_manifest(run, 2)
    made_with = json.loads(last.read_text())["made_with"]
    edit(last, made_with={**made_with, "versions": other})
    with pytest.raises(VersionError, match=re.escape(f"{run}: {said} --allow-different-bytes")):
        open_run(run, config(log), resume=True)
    edit(last, made_with=None)
    assert len(open_run(run, config(log), resume=True)) == 3
    edit(run / "run.json", versions=other)
    with pytest.raises(VersionError, match=re.escape(said)):
        open_run(run, config(log), resume=True)


def test_a_run_begun_before_a_package_was_noted_goes_on(run: Path, log: Path) -> None:
    versions = json.loads((run / "run.json").read_text())["versions"]
    del versions["pyarrow"], versions["safetensors"]
    edit(run / "run.json", versions=versions)
    edit(stage_manifest(run, 2), made_with=None)
    assert len(open_run(run, config(log), resume=True)) == 3


def test_an_entry_says_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"abc")
    entry = file_entry(tmp_path / "x.bin")
    assert (entry.path, entry.bytes) == ("x.bin", 3)
    assert entry.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
