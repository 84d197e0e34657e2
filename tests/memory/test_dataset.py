"""A committed memory as a plain torch dataset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.layout import stage_folder
from diet_ray.storage.tensors import load_tensors
from tests.support.small_run import config, local_run
from tests.support.synthetic import rows, write_log

NO_RAY = """
import sys
from diet_ray.memory.dataset import load_memory
memory = load_memory(sys.argv[1])
assert len(memory) == 30, len(memory)
assert "ray" not in sys.modules
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return local_run(folder / "run", config(write_log(folder / "log", blocks=3, n=300)))


def test_a_run_is_its_last_stage_and_any_stage_can_be_loaded(run: Path) -> None:
    last, same, first = load_memory(run), load_memory(stage_folder(run, 1)), load_memory(stage_folder(run, 0))
    assert [last.stage.index, same.stage.index, first.stage.index] == [1, 1, 0]
    assert torch.equal(last.x, same.x)
    assert [len(last), len(first)] == [30, 15]


def test_inputs_and_soft_labels(run: Path) -> None:
    memory = load_memory(run)
    table = load_tensors(stage_folder(run, 1) / "checkpoint-1.safetensors")["table"]
    expected = table[torch.tensor(memory.units.ids).long()] + torch.tensor(memory.units.delta)
    assert torch.equal(memory.x, expected)
    assert torch.equal(memory.soft_label, torch.sigmoid(torch.tensor(memory.units.logit)))
    assert torch.equal(memory.embed(rows(9).ids), table[torch.tensor(rows(9).ids).long()])
    assert memory.field_names == ["user", "item", "kind", "hour"]
    assert (np.diff(memory.units.unit_id) > 0).all()
    assert torch.equal(memory.examples().logit, memory.logit)


def test_a_plain_data_loader_goes_over_it(run: Path) -> None:
    memory = load_memory(run)
    batches = list(DataLoader(memory, batch_size=8))
    assert [len(batch["x"]) for batch in batches] == [8, 8, 8, 6]
    for name in ("x", "soft_label", "weight"):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), getattr(memory, name))
    assert batches[0]["x"].shape == (8, 4, 4)


def test_loading_needs_no_ray(run: Path) -> None:
    done = subprocess.run([sys.executable, "-c", NO_RAY, str(run)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_folder_without_a_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefactError, match="holds no committed stage"):
        load_memory(tmp_path)
    (tmp_path / "log.json").touch()
    with pytest.raises(CorruptArtefactError, match="is a log, no memory; point at a run folder"):
        load_memory(tmp_path)
