"""The moments of the table: what is read, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.archive import Archive
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.download import fetch
from diet_ray.memory.layout import OPTIMISER, stage_folder
from diet_ray.memory.moments import load_moments
from diet_ray.storage.entries import file_entry
from diet_ray.storage.tensors import load_tensors, save_tensors


def test_they_are_those_that_the_stage_has_committed(finished: Path) -> None:
    memory = load_memory(finished)
    moments = load_moments(finished, memory.stage)
    stored = load_tensors(stage_folder(finished, 2) / OPTIMISER)
    assert moments.step == int(stored["table/step"]) > 0
    assert torch.equal(moments.exp_avg, stored["table/exp_avg"])
    assert torch.equal(moments.exp_avg_sq, stored["table/exp_avg_sq"])
    assert moments.exp_avg.shape == memory.table.shape
    earlier = stage_folder(finished, 0)  # a stage alone
    assert load_moments(earlier, load_memory(earlier).stage).step < moments.step


def test_they_come_from_an_archive(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIET_RAY_CACHE", str(tmp_path / "cache"))
    uri = (tmp_path / "archive").as_uri()
    Archive(uri).push(finished)
    assert not (fetch(uri) / OPTIMISER).exists()  # a memory alone does without them
    folder = fetch(uri, moments=True)
    stage = load_memory(finished).stage
    assert torch.equal(load_moments(folder, stage).exp_avg, load_moments(finished, stage).exp_avg)


def test_a_file_of_another_run_or_none_is_refused(finished: Path, tmp_path: Path) -> None:
    run, stage = tmp_path / "run", load_memory(finished).stage
    shutil.copytree(finished, run)
    file = stage_folder(run, 2) / OPTIMISER
    shutil.copy(stage_folder(run, 1) / OPTIMISER, file)
    with pytest.raises(CorruptArtefactError, match=rf"^{file}: not the file that the manifest names"):
        load_moments(run, stage)
    file.unlink()
    with pytest.raises(CorruptArtefactError, match=rf"^{file}: missing, though the manifest names it"):
        load_moments(run, stage)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "table/exp_avg"}, r"tensor 'table/exp_avg': missing"),
        (lambda t: {k: v for k, v in t.items() if k != "table/step"}, r"tensor 'table/step': missing"),
        (
            lambda t: {**t, "table/exp_avg": t["table/exp_avg"][1:].clone()},
            r"tensor 'table/exp_avg': torch\.float32 \[117, 4\], the manifest has 118 ids",
        ),
        (
            lambda t: {**t, "table/exp_avg_sq": t["table/exp_avg_sq"].double()},
            r"tensor 'table/exp_avg_sq': torch\.float64",
        ),
        (
            lambda t: {**t, "table/exp_avg_sq": t["table/exp_avg_sq"] - 1},
            r"tensor 'table/exp_avg_sq': has values that no moment can have",
        ),
        (
            lambda t: {**t, "table/exp_avg": t["table/exp_avg"] * torch.nan},
            r"tensor 'table/exp_avg': has values that no moment can have",
        ),
    ],
)
def test_moments_that_do_not_fit_are_refused(
    finished: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], problem: str
) -> None:
    run, stage = tmp_path / "run", load_memory(finished).stage
    shutil.copytree(finished, run)
    file = stage_folder(run, 2) / OPTIMISER
    save_tensors(file, change(load_tensors(file)))
    changed = stage.model_copy(update={"optimiser": file_entry(file)})
    with pytest.raises(CorruptArtefactError, match=rf"{file}, {problem}.*restore the run folder"):
        load_moments(run, changed)
