"""The verdict of the protocol `live`, and what it rests on, in sentences."""

from __future__ import annotations

import math
from statistics import median

from diet_ray.figures import listed, number, times
from diet_ray.judge.fidelity.live.config import MEANINGS as STARTS
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS, LiveCost, LiveResult
from diet_ray.judge.fidelity.measures import Interval
from diet_ray.judge.fidelity.names import start_name
from diet_ray.judge.fidelity.order import OrderVerdict, judge_order
from diet_ray.judge.fidelity.words import COUNTS, NEXT, with_interval

KEY = ("spearman", "one_seed", "pairs_right", "top1_regret", "gap")
"""The measures of the short tables."""

MEANINGS = [
    ("Spearman", "Whether the first rows order the candidates as the full log does over the whole block: 1 the same order, 0 none."),
    ("Spearman, one seed", "The same where each candidate is launched once, as in a sweep with one seed."),
    ("Kendall tau-b", "Like Spearman, by pairs."),
    ("pairs", "Pairs of candidates whose losses on the full log differ by more than seeds explain (two-sided t-test at 5 %)."),
    ("pairs right", "Share of those pairs that are ordered rightly; 50 % is a coin."),
    ("regret@1, regret@3", "Nats on the full log that are lost by taking the candidate that looks best, or the best of the three that do."),
    ("mean gap", "How far a candidate's loss is from that of its full backfill on the same rows."),
    ("diverged, left out", "Trainings from this start that diverged, ranked last; candidates without a result on the full log."),
]  # fmt: skip
"""Name and meaning of the figures in the tables."""

DIGITS = dict.fromkeys(("gap", "top1_regret", "top3_regret"), 4) | {"pairs_right": 0}
"""Digits of the measures that have not two."""


def cell(name: str, interval: Interval, separator: str = NEXT, *, signed: bool = False) -> str:
    """A measure and, after `separator`, its interval; alone where the interval is a point, as that of a distance from itself."""
    if name in COUNTS:
        return number(interval.value, 0, signed=signed)
    if interval.low == interval.high:
        interval = interval.model_copy(update={"low": math.nan})
    return with_interval(interval, DIGITS.get(name, 2), separator, percent=name == "pairs_right", signed=signed)


def meaning(start: str) -> str:
    """What a candidate has before it goes live, in words."""
    ceilings = {
        SAME_ROWS: "a full backfill, on the same first rows: the ceiling of so few rows",
        OTHER_SEED: "a full backfill with one seed, against the mean of the other seeds",
        BLIND: "no information: what chance reaches",
    }
    return ceilings.get(start) or STARTS[start]  # type: ignore[index]


def memory_of(starts: list[str]) -> str:
    """The start that stands for the memory: the refined one where it was measured."""
    return "refined" if "refined" in starts else "memory"


def live_verdict(result: LiveResult, task: str, *, share: int = 0) -> OrderVerdict:
    """May I trust the order of the candidates after a share of a block, given by its number?

    The order is shown to be worse than the full log's own where the interval of the difference to full backfills after the same rows lies
    below 0.
    """
    figures = {start.name: start.measured[task][share] for start in result.starts}
    memory = memory_of([*figures])
    left_out = figures[memory]["left_out"].value
    against = _against(result, task, memory, share)
    return judge_order(
        "live",
        task,
        figures[memory]["spearman"],
        candidates=len(result.candidates) - int(left_out if math.isfinite(left_out) else 0),
        seeds=result.seeds,
        ceiling=figures[SAME_ROWS]["spearman"],
        lower=SAME_ROWS in against and against[SAME_ROWS].high < 0,
    )


def lead(result: LiveResult, cost: LiveCost) -> list[str]:
    """What the verdicts rest on, the choice and the rivals of each task, and the cost, a paragraph each."""
    share, rows = f"{100 * result.shares[0]:.3g}\u00a0%", sum(block.rows for block in result.blocks)
    return [
        f"Live: {times(len(result.candidates), 'candidate')} with {times(result.seeds, 'seed')} each were launched from a memory of "
        f"{100 * result.ratio:.3g}\u00a0% of the log and judged on the first {share} of {times(len(result.blocks), 'block')} "
        f"({', '.join(block.name for block in result.blocks)}; {rows:,} rows in all), each row just before it was learned. The truth is "
        "the same candidates after a full backfill, over all rows of these blocks.",
        *(_choice(result, task) for task in result.tasks),
        *_cost(result, cost),
    ]


def _against(result: LiveResult, task: str, memory: str = "memory", share: int = 0) -> dict[str, Interval]:
    """Spearman of a memory minus that of each other start."""
    return {
        difference.second: difference.measured[task][share]["spearman"]
        for difference in result.differences
        if difference.first == memory
    }


def _choice(result: LiveResult, task: str) -> str:
    """What the first choice loses, and how the memory compares with its rivals."""
    figures, noise = {start.name: start.measured[task][0] for start in result.starts}, result.noise[task]
    text = (
        f"{task}: taking the first choice loses {cell('top1_regret', figures['memory']['top1_regret'], ' ')} nats, a blind choice "
        f"{cell('top1_regret', figures[BLIND]['top1_regret'], ' ')}"
    )
    text += f"; a full backfill moves by {number(noise, 4)} between seeds." if math.isfinite(noise) else "."
    against = {
        name: interval for name, interval in _against(result, task).items() if name in STARTS and name != "refined"
    }
    for names, words in (
        ([name for name, interval in against.items() if interval.low > 0], "orders the candidates better than"),
        (
            [name for name, interval in against.items() if interval.low <= 0 <= interval.high],
            "is not shown to differ from",
        ),
        ([name for name, interval in against.items() if interval.high < 0], "orders the candidates worse than"),
    ):
        if names:
            text += f" The memory {words} {listed([start_name(name) for name in names])}."
    return text


def _cost(result: LiveResult, cost: LiveCost) -> list[str]:
    ratios = [candidate.full / candidate.memory for candidate in cost.candidates if candidate.memory > 0]
    before = round(sum(block.rows_before for block in result.blocks) / len(result.blocks))
    if not ratios:
        return []
    return [
        f"Cost. A launch and the first rows take {median(ratios):.1f} times less CPU than a backfill of the {before:,} rows before (mean "
        f"over the judging blocks) and the same rows (median over candidates; {min(ratios):.1f} to {max(ratios):.1f}). Distilling took "
        f"{cost.memory_seconds:,.0f} s on one core. The memory has {cost.memory_bytes:,.0f} bytes, the table {cost.table_bytes:,.0f}, its "
        f"moments twice as many."
    ]
