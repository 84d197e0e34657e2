"""The answer of the protocol `live` in sentences: may I trust the order?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from diet_ray.figures import number
from diet_ray.judge.fidelity.live.config import MEANINGS as STARTS
from diet_ray.judge.fidelity.live.result import BLIND, OTHER_SEED, SAME_ROWS, LiveCost, LiveResult
from diet_ray.judge.fidelity.measures import Interval
from diet_ray.judge.fidelity.words import NEXT, times

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

DIGITS = {"gap": 4, "top1_regret": 4, "top3_regret": 4, "pairs_right": 0, "pairs": 0, "diverged": 0, "left_out": 0}


def cell(name: str, interval: Interval, separator: str = NEXT, *, signed: bool = False) -> str:
    """A measure and, after `separator`, its interval."""
    scale, unit = (100.0, "\u00a0%") if name == "pairs_right" else (1.0, "")
    value, low, high = (
        number(scale * figure, DIGITS.get(name, 2), signed=signed)
        for figure in (interval.value, interval.low, interval.high)
    )
    if not math.isfinite(interval.value):
        return "-"
    counted = name in ("pairs", "diverged", "left_out")
    known = math.isfinite(interval.low) and interval.low < interval.high and not counted
    return f"{value}{unit}" + (f"{separator}({low} to {high})" if known else "")


def meaning(start: str) -> str:
    """What a candidate has before it goes live, in words."""
    ceilings = {
        SAME_ROWS: "a full backfill, on the same first rows: the ceiling of so few rows",
        OTHER_SEED: "a full backfill with one seed, against the mean of the other seeds",
        BLIND: "no information: what chance reaches",
    }
    return ceilings.get(start) or STARTS[start]  # type: ignore[index]


def answer(result: LiveResult, cost: LiveCost) -> list[str]:
    """The answer per task, what it rests on, and the cost, a paragraph each. No paragraph claims more than the figures show."""
    share = f"{100 * result.shares[0]:.3g}\u00a0%"
    rows = sum(block.rows for block in result.blocks)
    return [
        *(f"{task}: {_answer(result, task)}" for task in result.tasks),
        f"{times(len(result.candidates), 'candidate')} with {times(result.seeds, 'seed')} each were launched from a memory of "
        f"{100 * result.ratio:.3g}\u00a0% of the log and judged live on the first {share} of {times(len(result.blocks), 'block')} "
        f"({', '.join(block.name for block in result.blocks)}; {rows:,} rows in all). The truth is the same candidates after a full "
        "backfill, over all rows of these blocks.",
        _cost(result, cost),
    ]


def _answer(result: LiveResult, task: str) -> str:
    """May I trust the order, in sentences."""
    figures = {start.name: start.measured[task][0] for start in result.starts}
    memory, ceiling = figures["memory"], figures[SAME_ROWS]
    against = {
        difference.second: difference.measured[task][0]["spearman"]
        for difference in result.differences
        if difference.first == "memory"
    }
    spearman, right = memory["spearman"], memory["pairs_right"]
    if not math.isfinite(spearman.value):
        return "The order cannot be measured."
    if not spearman.low > 0:
        verdict = "No: the order after the first rows cannot be told from chance."
    elif against[SAME_ROWS].low > 0:
        verdict = "Yes: the order is nearer to the full log's than that of full backfills after the same rows."
    elif against[SAME_ROWS].high >= 0:
        verdict = "Yes, as far as so few rows can tell: full backfills are not shown to order the candidates better after the same rows."
    else:
        verdict = "In part: the order is better than chance, but full backfills order the candidates better after the same rows."
    text = (
        f"May I trust the order? {verdict} Spearman is {cell('spearman', spearman, ' ')} for the memory and "
        f"{cell('spearman', ceiling['spearman'], ' ')} for full backfills."
    )
    if math.isfinite(right.value):
        text += f" Of the pairs that differ on the full log {cell('pairs_right', right, ' ')} are ordered rightly (chance: 50\u00a0%)."
    noise = result.noise[task]
    text += (
        f" Taking the first choice loses {cell('top1_regret', memory['top1_regret'], ' ')} nats (blind choice: "
        f"{cell('top1_regret', figures[BLIND]['top1_regret'], ' ')}"
    )
    text += f"; a backfill moves by {number(noise, 4)} between seeds)." if math.isfinite(noise) else ")."
    rivals = [name for name in ("scratch", "table", "recent", "table+recent", "random") if name in against]
    better = [name for name in rivals if against[name].low > 0]
    worse = [name for name in rivals if against[name].high < 0]
    unclear = [name for name in rivals if name not in better + worse]
    for names, words in (
        (better, "orders the candidates better than"),
        (unclear, "is not shown to differ from"),
        (worse, "orders the candidates worse than"),
    ):
        if names:
            text += f" The memory {words} the start{'' if len(names) == 1 else 's'} {_and(names)}."
    return text


def _cost(result: LiveResult, cost: LiveCost) -> str:
    ratios = [candidate.full / candidate.memory for candidate in cost.candidates if candidate.memory > 0]
    before = round(sum(block.rows_before for block in result.blocks) / len(result.blocks))
    if not ratios:
        return ""
    return (
        f"Cost. A launch and the first rows take {median(ratios):.1f} times less CPU than a backfill of the {before:,} rows before (mean "
        f"over the judging blocks) and the same rows (median over candidates; {min(ratios):.1f} to {max(ratios):.1f}). Distilling took "
        f"{cost.memory_seconds:,.0f} s on one core. The memory has {cost.memory_bytes:,.0f} bytes, the table {cost.table_bytes:,.0f}, its "
        f"moments twice as many."
    )


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
