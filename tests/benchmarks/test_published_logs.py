"""The figures in the docs are those of the committed results."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.fidelity import ablations, pages, published_logs
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS
from diet_ray.judge.launch import LaunchRecipe
from diet_ray.settings import load_yaml

ROOT = Path(__file__).parents[2]


def test_the_docs_are_written_from_the_results() -> None:
    made = pages.documents()
    assert {path: path.read_text(encoding="utf-8") for path in made} == made
    assert {*(ROOT / "docs" / "fidelity").glob("*.md")} == {*made} - {pages.DOCS}


def test_the_page_for_people_is_short_and_begins_with_a_verdict_per_log_and_task() -> None:
    page = pages.DOCS.read_text(encoding="utf-8")
    assert sum(any(letter.isalnum() for letter in word) for word in page.split()) < 1500
    assert not re.search(r"\w/(hard|soft|drawn)/\w", page)  # no machine names
    verdicts = page.partition("## The verdicts")[2].partition("![")[0]
    tasks = sum(
        len(result.tasks) for results in (pages.figures(), pages.live_figures()) for result, _ in results.values()
    )
    assert verdicts.count("\n- **") == tasks
    assert verdicts.count("may be trusted, because") == 5
    assert pages.EXAMPLE.read_text(encoding="utf-8").strip() in page
    load_yaml(FidelityConfig, pages.EXAMPLE)


def test_the_picture_has_every_log_and_task() -> None:
    drawn = (ROOT / "docs" / "fidelity" / pages.PICTURE).read_text(encoding="utf-8")
    for name, (result, _) in pages.live_figures().items():
        assert published_logs.log_of(name) in drawn
        assert all(task in drawn for task in result.tasks)
    assert "random rows in its place" in drawn


def test_so_are_the_ablations() -> None:
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert page == ablations.document(page)
    for path in (ROOT / "benchmarks" / "results").glob("ablations_*.json"):
        found = TypeAdapter(ablations.Figures).validate_json(path.read_bytes())
        assert {ablations.CEILING_TITLE, *ablations.ABLATIONS} >= set(found) >= {ablations.CEILING_TITLE, "as it is"}


def test_so_is_the_readmes_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == pages.readme(text)
    assert text.count(f"<!-- figures: {pages.COMMAND} -->") == text.count("<!-- end of figures -->") == 1
    assert "**memory**" in text


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
