"""The leaderboard of a terminal: it fits 80 columns, says what its figures are, and what the whole cost."""

from __future__ import annotations

import io

from rich.console import Console

from diet_ray.judge.decision import Decided, Decision
from diet_ray.judge.leaderboard_table import leaderboard_tables
from diet_ray.judge.standings import Standing


def standing(name: str, tasks: list[str], *, trained_on: str = "memory", auc: float = 0.7) -> Standing:
    values = {"auc": auc, "logloss": 0.5, "gauc": 0.6, "calibration": 1.25}
    return Standing(
        candidate=name,
        arch="dnn",
        trained_on=trained_on,
        seeds=2,
        mean=dict.fromkeys(tasks, values),
        sd={task: dict.fromkeys(values, 0.001) for task in tasks},
        train_seconds=1.234,
        parameters=1,
    )


def decided(name: str, difference: float, group: str) -> Decided:
    low, high = difference - 0.001, difference + 0.001
    return Decided(
        candidate=name, mean=0.5, difference=difference, low=low, high=high, adjusted=1, group=group, best=0.5,
        rows_needed=difference * 1e6,
    )  # fmt: skip


def decision(*names: str) -> Decision:
    parts = [decided(name, 0.002 * place, "ab"[place]) for place, name in enumerate(names)]
    return Decision(confidence=0.95, rows=100, knows_seeds=True, candidates=parts, diverged=[])


def printed(tables: list, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    for table in tables:
        console.print(table, markup=False)
    return console.file.getvalue()


def test_one_task_fits_80_columns_and_no_name_is_cut() -> None:
    names = ["dcnv2-lr-x3", "dnn-768-512-384"]
    lines = [standing(name, ["click"]) for name in names]
    text = printed(
        leaderboard_tables("T", lines, ["click"], decision(*names), [standing("(constant)", ["click"], auc=0.5)])
    )
    rows = text.splitlines()
    assert max(map(len, rows)) <= 80
    first, second, *differences = (row.split() for row in rows if any(name in row for name in names))
    assert first == ["1", names[0], "0.7000", "0.5000", "1.25", "1.2"]
    assert second == ["2", names[1], "0.7000", "0.5000", "1.25", "1.2"]
    assert differences[0] == ["1", names[0], "0.5000", "best", "a"]
    assert differences[1] == ["2", names[1], "0.5000", "+0.0020", "±", "0.0010", "b"]
    assert next(row for row in rows if "(constant)" in row).split() == ["(constant)", "0.5000", "0.5000", "1.25"]
    words = " ".join(text.split())
    assert "Means over 2 seeds of the candidates, on one memory" in words
    assert "Calibration: mean prediction over the share of positives; 1 is right" in words
    assert "Candidates that share a letter of their group cannot be told apart." in words
    assert (
        "between seeds is 0.0010 (AUC) and 0.0010 (LogLoss); other memories of the same log, made with other seeds"
        in words
    )


def test_on_several_memories_the_spread_is_said_to_contain_theirs() -> None:
    lines = [standing("a", ["click"]).model_copy(update={"memories": 3})]
    words = " ".join(printed(leaderboard_tables("T", lines, ["click"])).split())
    assert "Means over 2 seeds of the candidates, on each of 3 memories" in words
    assert "the largest standard deviation between trainings, other memories included, is 0.0010 (AUC)" in words
    assert "differ more" not in words
    assert "letter" not in words


def test_several_tasks_have_a_table_each_and_the_comparison_one_of_its_own() -> None:
    tasks = ["click", "like"]
    lines = [standing(name, tasks) for name in ("a", "b")]
    tables = leaderboard_tables("T", lines, tasks, decision("a", "b"))
    assert [table.title for table in tables] == ["T. All tasks together", "click", "like"]
    assert [table.row_count for table in tables] == [2, 2, 2]
    assert all(len(table.columns) <= 6 for table in tables)
    assert printed(tables).count("calib.") == 2


def test_ways_of_training_are_told_only_where_they_differ() -> None:
    lines = [standing("a", ["click"]), standing("a", ["click"], trained_on="full log")]
    table = leaderboard_tables("T", lines, ["click"])[0]
    assert "full log" in printed([table])
    assert len(table.columns) == 6
    assert "trained on" not in printed(leaderboard_tables("T", lines[:1], ["click"]))
