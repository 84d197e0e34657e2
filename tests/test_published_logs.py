"""The figures in the docs are those of the committed results."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("published_logs", ROOT / "benchmarks" / "published_logs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def test_the_docs_are_written_from_the_results(benchmark: ModuleType) -> None:
    assert (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") == benchmark.document()


def test_so_is_the_readmes_table(benchmark: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == benchmark.readme(text)
    assert text.count(benchmark.BEGIN) == text.count(benchmark.END) == 1
    assert "random/soft/shared" in text


def test_the_results_are_what_is_claimed(benchmark: ModuleType) -> None:
    """At least three seeds, twenty candidates and both ceilings; as many units everywhere."""
    assert benchmark.figures()
    for result, cost in benchmark.figures().values():
        assert result.seeds >= 3
        assert len(result.candidates) >= 20
        names = {one.name for one in result.sets}
        assert {"full log, other seeds", "full/hard/shared", "full/hard/shared+adapter"} <= names
        sized = {one.name: one.units for one in result.sets if one.ratio == result.ratio}
        assert set(sized.values()) == {sized["memory/drawn/shared"]}
        assert {one.candidate for one in cost.candidates} == {spec.name for spec in result.candidates}
