"""A memory and the stages before it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.lineage import trace
from diet_ray.storage.tensors import load_tensors


def test_a_run_is_traced_to_its_first_stage(finished: Path) -> None:
    found = trace(finished)
    assert [stage.index for stage in found.stages] == [0, 1, 2]
    assert found.stages[-1] == found.memory.stage
    assert found.folder == stage_folder(finished, 2)
    assert found.rows == {0: 300, 1: 300, 2: 300}
    assert torch.equal(found.memory.x, load_memory(finished).x)
    before = load_tensors(stage_folder(finished, 1) / "checkpoint-1.safetensors")["table"]
    previous = found.previous()
    assert previous is not None
    assert torch.equal(previous.whole(), before)
    assert not torch.equal(before, found.memory.table)


def test_a_stage_is_traced_from_there(finished: Path) -> None:
    assert [stage.index for stage in trace(stage_folder(finished, 1)).stages] == [0, 1]
    first = trace(stage_folder(finished, 0))
    assert [stage.index for stage in first.stages] == [0]
    assert first.previous() is None


def test_a_stage_that_was_copied_alone_has_no_past(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(stage_folder(finished, 2), tmp_path / "mine")
    found = trace(tmp_path / "mine")
    assert [stage.index for stage in found.stages] == [2]
    assert found.previous() is None
    assert found.rows == {}


def test_a_strange_stage_beside_it_is_no_past(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = stage_folder(tmp_path / "run", 1) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block": "another"}))
    found = trace(stage_folder(tmp_path / "run", 2))
    assert [stage.index for stage in found.stages] == [2]
    with pytest.raises(CorruptArtefactError, match="does not follow"):
        trace(tmp_path / "run")


def test_a_damaged_table_is_noticed(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = stage_folder(tmp_path / "run", 1) / "checkpoint-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtefactError, match="not the file that the manifest names: it has"):
        trace(tmp_path / "run").previous()
