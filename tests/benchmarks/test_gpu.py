"""The benchmark of GPUs: its CPU side at a small size, and what it says where there is no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import gpu


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    gpu.main()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sees no CUDA GPU here" in line
    assert line.endswith("--cpu-only")


def test_the_cpus_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "--cpu-only", "--out", str(tmp_path / "gpu.json"))
    result = gpu.GpuResult.model_validate_json((tmp_path / "gpu.json").read_bytes())
    assert result.gpu is None
    exact = [one for one in result.parts if one.precision == "float32"]
    rough = {one.what.split(",")[0]: one for one in result.parts if one.precision == "bfloat16"}
    assert [one.apart for one in exact] == [0.0] * 4
    assert all(one.seconds > 0 for one in result.parts)
    # What bfloat16 does: little to a score, much to a meta-gradient.
    assert set(rough) == {"score", "a bi-level round", "a candidate"}
    assert 0 < rough["score"].apart < 0.02
    assert rough["a bi-level round"].apart > 0.05
    assert 0 < rough["a candidate"].apart < 0.1
    columns, rows = gpu.table(result)
    assert {len(row) for row in rows} == {len(columns)}
    # However wide the terminal and long the name of the CPU: only the words count, not how lines wrap.
    assert "no GPU" in gpu.title(result)
    assert " ".join(gpu.title(result).split()) in " ".join(capsys.readouterr().out.split())


def test_works_begin_on_the_device_that_they_are_put_on() -> None:
    meta = torch.device("meta")
    problem = gpu.Problem("wukong", 8, 4).to(meta)
    parts = [*problem.examples().__dict__.values(), *problem.hard.__dict__.values(), *problem.module.parameters()]
    assert {part.device for part in parts} == {meta}
