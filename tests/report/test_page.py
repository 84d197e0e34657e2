"""The page of plots and the tables in it."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from diet_ray.figures import mean_sd
from diet_ray.judge.leaderboard import plot_standings, standings_rows
from diet_ray.judge.standings import Standing
from diet_ray.report.page import Section, picture, write_page
from diet_ray.report.summary import RunSummary, StageSummary
from diet_ray.report.timeline import plot_stages

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def no_display() -> None:
    mpl.use("agg")


def standing(candidate: str, trained_on: str = "memory", *, auc: float = 0.7, sd: float = 0.01) -> Standing:
    tasks = ["click", "like"]
    return Standing(
        candidate=candidate,
        arch="dnn",
        trained_on=trained_on,
        seeds=2,
        mean={task: {"auc": auc, "logloss": 0.5, "gauc": 0.6, "calibration": 1.0} for task in tasks},
        sd={task: {"auc": sd, "logloss": 0.001, "gauc": sd, "calibration": 0.1} for task in tasks},
        train_seconds=1.234,
        parameters=10,
    )


def summary() -> RunSummary:
    stages = [
        StageSummary(
            stage=t,
            block=f"day-{t}",
            rows=10,
            rows_seen=10 * (t + 1),
            units=t + 1,
            memory_bytes=100,
            reference_logloss=0.6 - 0.1 * t,
            guard_before=None,
            guard_after=None,
            refined=None,
            steps={"reference": 1.0, "score": 2.0} if t else {"reference": 1.0},
            seconds=3.0,
        )
        for t in range(2)
    ]
    return RunSummary(run="r", stages=stages, rows=20, units=2, memory_bytes=100, table_bytes=5, seconds=6.0)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    image = picture(plot_standings([standing("a")], "click"), tmp_path / "plot.png")
    columns, rows = standings_rows([standing("a")], ["click", "like"])
    write_page(tmp_path / "page.html", "T", "L", [Section("H", image, columns, rows, "N"), Section("only a heading")])
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", html.replace(image, ""))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert sources == [f"data:image/png;base64,{image}"]
    assert base64.b64decode(image).startswith(PNG)
    assert base64.b64decode(image) == (tmp_path / "plot.png").read_bytes()
    assert len([tag for tag, _ in page.tags if tag == "table"]) == 1
    assert [attrs["scope"] for tag, attrs in page.tags if tag == "th"] == ["col"] * len(columns) + ["row"]
    assert len([tag for tag, _ in page.tags if tag == "td"]) == len(columns) - 1


def test_every_text_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('x')</script>&\"'"
    write_page(tmp_path / "page.html", bad, bad, [Section(bad, "AAAA", [bad], [[bad]], bad)])
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert (
        html.count("&lt;script&gt;") == 9
    )  # title twice, lead, heading, alt and label of the table, column, cell, note
    page = Page()
    page.feed(html)
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [bad]


def test_rows_of_standings() -> None:
    columns, rows = standings_rows([standing("a", sd=0.01), standing("b", sd=math.nan)], ["click"])
    assert columns == ["candidate", "trained on", "AUC", "LogLoss", "GAUC", "CPU s"]
    assert rows[0] == ["a", "memory", "0.7000 ± 0.0100", "0.5000 ± 0.0010", "0.6000 ± 0.0100", "1.23"]
    assert rows[1][2] == "0.7000"
    columns, rows = standings_rows([standing("a")], ["click", "like"])
    assert columns[2:5] == ["click AUC", "click LogLoss", "click GAUC"]
    assert columns[5] == "like AUC"
    assert len(rows[0]) == len(columns)


def test_mean_and_sd() -> None:
    assert mean_sd(0.12346, 0.00041) == "0.1235 ± 0.0004"
    assert mean_sd(1.0, math.nan) == "1.0000"


def test_the_plot_of_standings_shows_each_mark() -> None:
    lines = [standing("a"), standing("b", auc=0.6, sd=math.nan), standing("a", "full log", auc=0.8)]
    figure = plot_standings(lines, "like")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    marks = [container.lines[0].get_xdata().tolist() for container in left.containers]
    assert marks == [[0.7, 0.6], [0.8]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["memory", "full log"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("like: AUC", "like: LogLoss (nats)")
    low, high = left.get_ylim()
    assert low > high  # the best is on top


def test_the_plot_of_stages_stacks_the_steps() -> None:
    figure = plot_stages(summary())
    above, below = figure.axes
    assert above.lines[0].get_ydata().tolist() == pytest.approx([0.6, 0.5])
    assert [(bar.get_y(), bar.get_height()) for bar in below.patches] == [(0, 1), (0, 1), (1, 0), (1, 2)]
