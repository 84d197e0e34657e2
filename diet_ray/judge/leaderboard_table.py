"""A leaderboard for a terminal: a table per task that fits 80 columns, whose names are never cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Column, Table

from diet_ray.figures import listed, number
from diet_ray.judge.decision import Decision
from diet_ray.judge.standings import Standing

_METRICS = {"auc": "AUC", "logloss": "LogLoss", "gauc": "GAUC", "calibration": "calib."}


def leaderboard_tables(
    title: str,
    lines: Sequence[Standing],
    tasks: Sequence[str],
    decision: Decision | None = None,
    yardsticks: Sequence[Standing] = (),
) -> list[Table]:
    """Standings as tables, one per task: means over seeds, and the CPU seconds of a training.

    Args:
        title: of the first table.
        lines: the standings, the best first.
        tasks: the tasks.
        decision: where there is one, the difference to the best with half the width of its interval, and the group: for one task in its
            table, for several in a table of its own, because it compares the mean over the tasks.
        yardsticks: lines below the candidates that have no place.
    """
    tables = [_of_task(title, lines, task, decision, yardsticks, several=len(tasks) > 1) for task in tasks]
    if decision and len(tasks) > 1:
        tables.insert(0, _of_decision(title, lines, decision))
    for table in tables[1:]:
        table.title = table.title.removeprefix(f"{title}. ") if isinstance(table.title, str) else None
    tables[-1].caption, tables[-1].caption_justify = _caption(lines, tasks), "left"
    return tables


def _of_task(
    title: str,
    lines: Sequence[Standing],
    task: str,
    decision: Decision | None,
    yardsticks: Sequence[Standing],
    *,
    several: bool,
) -> Table:
    ways = len({line.trained_on for line in lines}) > 1
    decided = {} if decision is None or several else decision.by_name
    metrics = {
        metric: name for metric, name in _METRICS.items() if not decided or metric != "gauc"
    }  # so that it fits 80 columns
    headings = [*(["trained on"] if ways else []), *metrics.values(), "CPU s"]
    if decided and decision:
        headings += [_to_the_best(decision), "group"]
    table = _table(f"{title}. {task}" if several else title, headings, [*lines, *yardsticks])
    for place, line in enumerate([*lines, *yardsticks], start=1):
        values = [number(line.mean[task][metric], 4 if metric != "calibration" else 2) for metric in metrics]
        cells = [*([line.trained_on] if ways else []), *values]
        if place > len(lines):
            table.add_row("", line.candidate, *cells)
            continue
        cells.append(number(line.train_seconds, 1))
        if decided:
            part = decided.get(line.candidate)  # one that diverged is no part of the comparison
            cells += [_difference(part.difference, part.high), part.group] if part else ["-", "-"]
        table.add_row(str(place), line.candidate, *cells, end_section=place == len(lines))
    return table


def _of_decision(title: str, lines: Sequence[Standing], decision: Decision) -> Table:
    table = _table(f"{title}. All tasks together", ["mean loss", _to_the_best(decision), "group"], lines)
    for place, part in enumerate(decision.candidates, start=1):
        row = [number(part.mean, 4), _difference(part.difference, part.high), part.group]
        table.add_row(str(place), part.candidate, *row)
    return table


def _table(title: str, headings: Sequence[str], lines: Sequence[Standing]) -> Table:
    width = max(len(line.candidate) for line in lines)
    names = Column("candidate", min_width=width, no_wrap=True)
    columns = [Column(name, justify="left" if name == "trained on" else "right", overflow="fold") for name in headings]
    return Table("#", names, *columns, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _to_the_best(decision: Decision) -> str:
    return f"nats to the best\n({100 * decision.confidence:g} %)"


def _difference(difference: float, high: float) -> str:
    """The difference with half the width of its interval, which is symmetric."""
    return "best" if difference == 0 else f"{number(difference, 4, signed=True)} ± {number(high - difference, 4)}"


def _caption(lines: Sequence[Standing], tasks: Sequence[str]) -> str:
    """What the figures are means of, and how much seeds differ."""
    seeds = max(line.seeds for line in lines)
    sds = {
        name: max((sd for line in lines for task in tasks if math.isfinite(sd := line.sd[task][metric])), default=None)
        for metric, name in (("auc", "AUC"), ("logloss", "LogLoss"))
    }
    known = [f"{sd:.4f} ({name})" for name, sd in sds.items() if sd is not None]
    reasons = sorted({why for line in lines for task in line.undefined.values() for why in task.values()})
    parts = [f"Means over {seeds} seeds of the candidates, on one memory" if seeds > 1 else "One seed, on one memory"]
    if known:
        parts.append(f"the largest standard deviation between seeds is {listed(known)}")
    return "; ".join(parts) + "." + (f"\nA dash: {listed(reasons)}." if reasons else "")
