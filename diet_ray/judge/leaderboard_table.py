"""A leaderboard for a terminal: tables of at most six columns that fit a width of 80, whose names are never cut; JSON has the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Column, Table

from diet_ray.figures import listed, number
from diet_ray.judge.decision import Decision
from diet_ray.judge.standings import Standing, on_memories
from diet_ray.report.tables import narrow_table

_METRICS = {"auc": "AUC", "logloss": "LogLoss", "calibration": "calib."}


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
        decision: where there is one, a table has each candidate's difference to the best with half the width of its interval, and its
            group; of several tasks it compares the mean.
        yardsticks: lines below the candidates that have no place.
    """
    several = len(tasks) > 1
    tables = [_of_task(f"{title}. {task}" if several else title, lines, task, yardsticks) for task in tasks]
    if decision:
        name = "All tasks together" if several else "Differences to the best"
        tables.insert(0 if several else 1, _of_decision(f"{title}. {name}", lines, decision))
    for table in tables[1:]:
        table.title = table.title.removeprefix(f"{title}. ") if isinstance(table.title, str) else None
    words = ["Calibration: mean prediction over the share of positives; 1 is right, 1.25 a quarter too high."]
    if decision:
        words.append("Candidates that share a letter of their group cannot be told apart.")
    tables[-1].caption, tables[-1].caption_justify = " ".join([_caption(lines, tasks), *words]), "left"
    return tables


def _of_task(title: str, lines: Sequence[Standing], task: str, yardsticks: Sequence[Standing]) -> Table:
    ways = len({line.trained_on for line in lines}) > 1  # then it is no ranking, and there are no places
    table = _table(title, [*(["trained on"] if ways else []), *_METRICS.values(), "CPU s"], lines, places=not ways)
    for place, line in enumerate([*lines, *yardsticks], start=1):
        last = place == len(lines)
        cells = [number(line.mean[task][metric], 4 if metric != "calibration" else 2) for metric in _METRICS]
        cells.append(number(line.train_seconds, 1) if place <= len(lines) else "")
        first = (
            [line.candidate, line.trained_on] if ways else [str(place) if place <= len(lines) else "", line.candidate]
        )
        table.add_row(*first, *cells, end_section=last)
    return table


def _of_decision(title: str, lines: Sequence[Standing], decision: Decision) -> Table:
    table = _table(title, ["mean loss", _to_the_best(decision), "group"], lines)
    for place, part in enumerate(decision.candidates, start=1):
        row = [number(part.mean, 4), _difference(part.difference, part.high), part.group]
        table.add_row(str(place), part.candidate, *row)
    return table


def _table(title: str, headings: Sequence[str], lines: Sequence[Standing], *, places: bool = True) -> Table:
    width = max(len(line.candidate) for line in lines)
    names = Column("candidate", min_width=width, no_wrap=True)
    columns = [Column(name, justify="left" if name == "trained on" else "right", overflow="fold") for name in headings]
    first: list[str | Column] = ["#", names] if places else [names]
    return narrow_table(*first, *columns, title=title)


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
    undefined = [reasons for line in lines for reasons in line.undefined.values()]
    reasons = sorted({why for of_task in undefined for metric, why in of_task.items() if metric in _METRICS})
    memories, on = max(line.memories for line in lines), on_memories(lines)
    parts = [f"Means over {seeds} seeds of the candidates, on {on}" if seeds > 1 else f"One seed, on {on}"]
    if known:
        between = "trainings, other memories included," if memories > 1 else "seeds"
        parts.append(f"the largest standard deviation between {between} is {listed(known)}")
    if memories == 1:
        parts.append("other memories of the same log, made with other seeds, differ more: --memory RUN --memory RUN2")
    return "; ".join(parts) + "." + (f"\nA dash: {listed(reasons)}." if reasons else "")
