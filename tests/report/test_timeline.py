"""Where the time of a run goes, on events written by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.report.timeline import LATEST, Attempt, attempts, plot_timeline


def at(time: float, kind: str, **values: Any) -> dict[str, Any]:
    return {"time": 1e6 + time, "kind": kind, **values}


EVENTS = [
    at(0, "stage", stage=0, block="mon", rows=9),
    at(0, "start", stage=0, step="reference"),
    at(2, "step", stage=0, step="reference", seconds=2.0),
    at(3, "start", stage=0, step="refine"),
    at(7, "progress", stage=0, step="refine", done=1, total=9),  # killed after this
    at(100, "stage", stage=0, block="mon", rows=9),
    at(100, "start", stage=0, step="reference"),
    at(101.5, "step", stage=0, step="reference", seconds=1.5),
    at(102, "start", stage=0, step="refine"),
    at(103, "progress", stage=0, step="refine", done=5, total=9),
    at(106, "step", stage=0, step="refine", seconds=4.0),
    at(106, "committed", stage=0, block="mon", units=3, rows_seen=9),
    at(90000, "stage", stage=1, block="tue", rows=9),  # the next day
    at(90001, "start", stage=1, step="reference"),
]


def test_attempts_are_told_apart_and_each_has_its_own_clock() -> None:
    assert attempts(EVENTS) == [
        Attempt(0, "mon", [("reference", 0.0, 2.0), ("refine", 3.0, 4.0)], committed=False),
        Attempt(0, "mon", [("reference", 0.0, 1.5), ("refine", 2.0, 4.0)], committed=True),
        Attempt(1, "tue", [("reference", 1.0, 0.0)], committed=False),
    ]
    assert [attempt.seconds for attempt in attempts(EVENTS)] == [7.0, 6.0, 1.0]
    assert attempts([at(0, "step", stage=3, step="reference", seconds=1.0)]) == []


def test_the_picture_shows_each_step_where_it_was() -> None:
    figure = plot_timeline(attempts(EVENTS))
    (axis,) = figure.axes
    bars = [(bar.get_x(), bar.get_width(), round(bar.get_y() + 0.35), bar.get_alpha()) for bar in axis.patches]
    assert bars == [(0, 2, 0, 0.35), (3, 4, 0, 0.35), (0, 1.5, 1, 1), (2, 4, 1, 1), (1, 0, 2, 0.35)]
    assert axis.patches[0].get_facecolor()[:3] == axis.patches[2].get_facecolor()[:3]
    assert axis.patches[0].get_facecolor()[:3] != axis.patches[1].get_facecolor()[:3]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["mon (not done)", "mon", "tue (not done)"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["reference", "refine"]
    low, high = axis.get_ylim()
    assert low > high  # the first is on top


def test_a_long_run_shows_its_latest_stages() -> None:
    figure = plot_timeline([Attempt(t, f"day-{t}", [("reference", 0.0, 1.0)], committed=True) for t in range(60)])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (len(labels), labels[0], labels[-1]) == (LATEST, "day-20", "day-59")


def test_the_page_of_a_run(finished: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--json", "status", str(finished), "--out", str(tmp_path / "pages" / "run.html")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["blocks_done"] == 3
    html = (tmp_path / "pages" / "run.html").read_text()
    parser = HTMLParser()
    parser.feed(html)
    assert "3 of 3 blocks committed" in html
    assert html.count("<svg ") == 1
    assert "<title>Distillation of synthetic, stage by stage</title>" in html
    assert all(f"block-{t:03d}" in html for t in range(3))
    assert (tmp_path / "pages" / "run.svg").read_bytes().startswith(b"<?xml")
    result = CliRunner().invoke(app, ["status", str(finished), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "is a folder; name the page itself" in result.stderr


def test_neither_ray_nor_torch_is_imported() -> None:
    code = "import sys, diet_ray.report.timeline; print(sorted({'ray', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_run_without_events_has_a_page_too(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "events.jsonl").unlink()
    result = CliRunner().invoke(app, ["status", str(tmp_path / "run"), "--out", str(tmp_path / "run.html")])
    assert result.exit_code == 0, result.output
    assert f"Page: {tmp_path / 'run.html'}" in result.stdout.replace("\n", "")
