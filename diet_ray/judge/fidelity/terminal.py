"""What a terminal shows of the fidelity bench: the verdicts, then one table that fits 80 columns. Everything else is on the page."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.table import Column, Table

from diet_ray.figures import number, times
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.live.words import cell as live_cell
from diet_ray.judge.fidelity.measures import Interval
from diet_ray.judge.fidelity.names import set_name, start_name
from diet_ray.judge.fidelity.page import verdicts_of
from diet_ray.judge.fidelity.result import CEILING, CostResult, FidelityResult
from diet_ray.judge.fidelity.words import cell, compared
from diet_ray.report.tables import narrow_table

Frozen = tuple[FidelityResult, CostResult]
Live = tuple[LiveResult, LiveCost]


def to_print(frozen: Frozen | None, live: Live | None) -> list[str | Table]:
    """The verdict per task and protocol, and the table."""
    verdicts = [f"{verdict.sentence}." for verdict in verdicts_of(frozen, live)]
    return [
        *(verdicts or ["No memory is among the sets that were compared: no verdict on the order."]),
        _table(frozen, live),
    ]


def _table(frozen: Frozen | None, live: Live | None) -> Table:
    numbers = ("Spearman\n(95 %)", "pairs\nright", "regret\n@1", "CPU s")
    table = narrow_table(
        Column("candidates learn from", overflow="fold"),
        *(Column(heading, justify="right", no_wrap=True) for heading in numbers),
        title=_title(frozen, live),
        caption="Regret of taking the first choice: nats live, AUC frozen. CPU s: of one candidate.",
    )
    if live:
        result, spent = live
        seconds = {start.start: start.before + start.live for start in spent.starts}
        seconds |= {
            start.name: seconds["full"]
            for start in result.starts
            if start.name not in seconds and start.name.startswith("full")
        }
        for task in result.tasks:
            table.add_row(f"{task}, live:")
            for start in result.starts:
                figures = start.measured[task][0]
                if not math.isfinite(figures["spearman"].value):  # such as another seed where there is one
                    continue
                cells = _cells(live_cell, figures)
                table.add_row(f"  {start_name(start.name)}", *cells, _seconds(seconds.get(start.name)))
            table.add_section()
    if frozen:
        measured, cost = frozen
        mean = {
            key: sum(getattr(line, key) for line in cost.candidates) / max(1, len(cost.candidates))
            for key in ("full_cpu", "memory_cpu")
        }
        known = {CEILING: mean["full_cpu"], cost.memory_set: mean["memory_cpu"]} if cost.candidates else {}
        for task in measured.tasks:
            table.add_row(f"{task}, frozen:")
            for result_set in compared(*frozen):
                cells = _cells(cell, result_set.fidelity[task]["all"])
                table.add_row(f"  {set_name(result_set)}", *cells, _seconds(known.get(result_set.name)))
            table.add_section()
    return table


def _title(frozen: Frozen | None, live: Live | None) -> str:
    result = live[0] if live else frozen[0] if frozen else None
    assert result is not None, "at least one protocol was run"
    return f"{times(len(result.candidates), 'candidate')}, {times(result.seeds, 'seed')}, {100 * result.ratio:.3g}\u00a0% of {result.log}"


def _cells(shown: Callable[..., str], figures: dict[str, Interval]) -> list[str]:
    """Spearman with its interval, the other measures without."""
    spearman = shown("spearman", figures["spearman"], " ")
    return [spearman, *(shown(name, figures[name], " ").split(" (")[0] for name in ("pairs_right", "top1_regret"))]


def _seconds(value: float | None) -> str:
    return "-" if value is None else number(value, 1)
