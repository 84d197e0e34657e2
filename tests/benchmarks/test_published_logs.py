"""The figures in the docs are those of the committed results."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.fidelity import ablations, published_logs
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS
from diet_ray.judge.launch import LaunchRecipe

ROOT = Path(__file__).parents[2]


def test_the_docs_are_written_from_the_results() -> None:
    assert (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") == published_logs.document()


def test_so_are_the_ablations() -> None:
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert page == ablations.document(page)
    for path in (ROOT / "benchmarks" / "results").glob("ablations_*.json"):
        found = TypeAdapter(ablations.Figures).validate_json(path.read_bytes())
        assert {ablations.CEILING_TITLE, *ablations.ABLATIONS} >= set(found) >= {ablations.CEILING_TITLE, "as it is"}


def test_so_is_the_readmes_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == published_logs.readme(text)
    assert text.count(f"<!-- figures: {published_logs.COMMAND} -->") == text.count("<!-- end of figures -->") == 1
    assert "**the memory**" in text


def test_the_results_are_what_is_claimed() -> None:
    """At least three seeds, twenty candidates and both ceilings; as many units everywhere."""
    assert published_logs.figures()
    for result, cost in published_logs.figures().values():
        assert result.seeds >= 3
        assert len(result.candidates) >= 20
        names = {result_set.name for result_set in result.sets}
        assert {"full log, other seeds", "full/hard/shared", "full/hard/shared+adapter"} <= names
        sized = {result_set.name: result_set.units for result_set in result.sets if result_set.ratio == result.ratio}
        assert set(sized.values()) == {sized["memory/drawn/shared"]}
        assert {candidate.candidate for candidate in cost.candidates} == {spec.name for spec in result.candidates}


def test_so_are_the_live_ones() -> None:
    """At least three seeds and judging blocks, thirty candidates, the ceilings, the rivals and the chance line."""
    results = published_logs.live_figures()
    assert results
    for name, (result, cost) in results.items():
        about = published_logs.LOGS[name]
        assert result.seeds >= 3
        assert len(result.candidates) >= 30
        assert len(result.blocks) >= 3
        assert [start.name for start in result.starts] == [
            SAME_ROWS,
            OTHER_SEED,
            *published_logs.STARTS,
            BLIND,
        ]
        assert result.recipe == LaunchRecipe()
        assert {start.start for start in cost.starts} == {"full", *published_logs.STARTS}
        assert about.live == (len(result.blocks), about.live[1] if about.live else 0)
