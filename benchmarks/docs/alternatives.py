"""The tables of docs/is-it-for-me.md: when the memory pays, and other ways to choose a candidate, from stored figures.

python -m benchmarks.docs.alternatives
"""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.common.tables import filled, markdown
from benchmarks.docs.figures import Measured, measured
from diet_ray.judge.fidelity.live.result import BLIND, SAME_ROWS

PAGE = Path(__file__).parents[2] / "docs" / "is-it-for-me.md"
COMMAND = "python -m benchmarks.docs.alternatives"

WAYS = {
    "blind": "take any",
    "full backfills of all, a tenth of a block": "backfill all, compare on a tenth of a block",
    "latest rows, from scratch, a tenth of a block": "train on the latest rows only",
    "ASHA, from scratch": "ASHA, from scratch",
    "ASHA, then full backfills of the best 3": "ASHA, then backfill its best 3",
    "race": "**race from the memory**",
    "race, then full backfills of the best 3": "**race from the memory, then backfill its best 3** (`--confirm 3`)",
}
"""Ways to choose, by their names in the figures, in our words."""

STARTS = {
    BLIND: "nothing: a blind choice",
    "scratch": "nothing: nets begin with the block that judges them",
    "table": "the reference's table alone",
    "recent": "the latest rows, each once",
    SAME_ROWS: "a full backfill",
    "random": "as many random rows, with the reference's probabilities",
    "memory": "**the memory**",
}
"""What candidates start from, by the names in the figures, in our words."""


def costs(logs: list[Measured]) -> str:
    """When a memory pays, per log."""
    rows = []
    for log in logs:
        full, launch = log.seconds("full"), log.seconds("memory")
        rows.append(
            [
                f"{log.name}, {log.live.blocks[-1].rows_before:,} rows",
                f"{log.cost.memory_seconds:.0f} s",
                f"{launch:.1f} s",
                f"{full:.1f} s",
                f"{full / launch:.0f}x",
                f"{math.ceil(log.pays_after)}",
            ]
        )
    columns = [
        "log",
        "making the memory",
        "one candidate from it",
        "one full backfill",
        "cheaper",
        "pays from ... candidates",
    ]
    return markdown(columns, rows)


def ways(logs: list[Measured]) -> str:
    """What ways to choose lose and cost, per log."""
    rows = []
    for name, words in WAYS.items():
        row = [words]
        for log in logs:
            choice = next(choice for choice in log.race.choices if choice.name == name)
            row += [f"{choice.regret:.4f}", f"{choice.cost:.1f}" if choice.cost else "0"]
        rows.append(row)
    return markdown(
        ["way to choose", *(f"{log.name}: {what}" for log in logs for what in ("loses, nats", "costs"))], rows
    )


def starts(logs: list[Measured]) -> str:
    """What the first choice loses after a tenth of a block, by what candidates start from."""
    tasks = [(log, task) for log in logs for task in log.live.tasks]
    rows = [[words, *(f"{log.regret(name, task):.4f}" for log, task in tasks)] for name, words in STARTS.items()]
    return markdown(["candidates start from", *(f"{log.name}, {task}" for log, task in tasks)], rows)


def page(text: str) -> str:
    """The page with its tables made anew."""
    logs = list(measured().values())
    for name, part in (("costs", costs(logs)), ("ways", ways(logs)), ("starts", starts(logs))):
        text = filled(text, name, COMMAND, part)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
