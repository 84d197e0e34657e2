"""The layout of a page, and the plots in it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diet_ray.figures import mean_sd
from diet_ray.judge.leaderboard import standings_rows
from diet_ray.judge.standings_plot import crowded, plot_standings
from diet_ray.report.drawing import panel
from diet_ray.report.page import Section, Source, write_page
from diet_ray.report.timeline import plot_losses, plot_steps
from tests.support.outline import Outline
from tests.support.pages import standing, summary


def test_the_parts_of_a_page(tmp_path: Path) -> None:
    plot = panel(plot_standings([standing("a")], "click", "auc"), tmp_path / "plot.svg", "What it shows")
    columns, rows = standings_rows([standing("a")], ["click", "like"])
    sections = [
        Section("A plot", columns, rows, "N", panels=[plot]),
        Section("A table", ["name", "what"], [["x", "1"]]),
        Section("Only text", note="T"),
    ]
    write_page(tmp_path / "page.html", "T", "V", sections, Source("l", "3"), remarks=["R"])
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Outline(html)
    assert html.index("V</p>") < html.index("<svg ") < html.index("Table of 1 line<") < html.index(">R</p>")
    assert "<summary><h2>A table</h2></summary>" in html
    assert [attrs["scope"] for tag, attrs in page.tags if tag == "th"] == ["col"] * len(columns) + [
        "row",
        "col",
        "col",
        "row",
    ]
    assert [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"] == ["What it shows"]
    assert (tmp_path / "plot.svg").read_bytes().startswith(b"<?xml")
    assert page.paragraphs == ["V", "N", "R", "T"]


def test_every_text_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('x')</script>&\"'"
    plot = panel(plot_standings([standing(bad)], "click", "auc"), tmp_path / "plot.svg", bad)
    sections = [Section(bad, [bad], [[bad]], bad, intro=bad, panels=[plot], link=bad, link_text=bad)]
    write_page(tmp_path / "page.html", bad, bad, sections, Source(bad, bad, bad), remarks=[bad])
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html
    # Title twice, verdict, heading, intro, link twice, label of the table, column, cell, note, remark, footer three times; in the plot
    # its label and the name of the candidate.
    assert html.count("&lt;script") == 17


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
    figure = plot_standings(lines, "like", "auc")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    marks = [container.lines[0].get_xdata().tolist() for container in axis.containers]
    assert marks == [[0.7, 0.6], [0.8]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["memory", "full log"]
    assert axis.get_xlabel() == "like: AUC"
    low, high = axis.get_ylim()
    assert low > high  # the best is on top
    assert plot_standings(lines, "like", "logloss").axes[0].get_xlabel() == "like: LogLoss (nats)"


def test_what_is_close_together_is_magnified() -> None:
    """Two ways within .003, a third far off: the scale is that of the two, and an arrow stands for the third."""
    lines = [
        standing("a", way, auc=auc, sd=0.0005) for way, auc in (("memory", 0.874), ("full log", 0.871), ("rows", 0.72))
    ]
    limits = crowded(lines, "click", "auc", ("memory", "full log"))
    assert limits == pytest.approx((0.87018, 0.87482), abs=1e-5)
    figure = plot_standings(lines, "click", "auc", limits)
    (axis,) = figure.axes
    assert axis.get_xlim() == limits
    assert [line.get_xdata() for line in axis.lines if line.get_marker() == "<"] == [[0.01]]
    assert axis.get_xlabel() == "click: AUC, magnified"
    assert crowded(lines[:2], "click", "auc", ("memory", "full log")) is None  # that is the whole
    assert crowded(lines, "click", "logloss", ("memory", "full log")) == pytest.approx((0.3246, 0.3304), abs=1e-3)
    better = [standing(name, auc=auc, sd=math.nan) for name, auc in zip("abcd", (0.7, 0.69, 0.6, 0.5), strict=True)]
    assert crowded(better, "click", "auc") == pytest.approx((0.6892, 0.7008))
    assert crowded([standing("a", auc=math.nan)], "click", "auc") is None


def test_the_plots_of_stages() -> None:
    (axis,) = plot_losses(summary()).axes
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0.6, 0.5])
    (axis,) = plot_steps(summary()).axes
    assert [(bar.get_y(), bar.get_height()) for bar in axis.patches] == [(0, 1), (0, 1), (1, 0), (1, 2), (1, 0), (3, 1)]
