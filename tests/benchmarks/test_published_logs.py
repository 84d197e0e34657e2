"""The figures in the docs are those of the committed results."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.fidelity import ablations, published_logs

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
    assert "random/soft/shared" in text


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
