"""The texts of the fidelity report: its lead, the meanings of the measures, the protocol, and the format of figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median

from diet_ray.errors import ConfigError
from diet_ray.figures import listed, number, times
from diet_ray.judge.fidelity.config import MEMORIES
from diet_ray.judge.fidelity.measures import MEASURES, Interval
from diet_ray.judge.fidelity.names import AGAIN, ROWS, named, set_name
from diet_ray.judge.fidelity.order import OrderVerdict, judge_order
from diet_ray.judge.fidelity.result import CEILING, CostResult, Difference, FidelityResult, SetResult
from diet_ray.report.export_manifest import ExportManifest
from diet_ray.settings import parse_json

NEXT = "\n"
"""The separator between a value and the small text under it."""

COUNTS = ("pairs", "diverged", "left_out")
DIGITS = {"pairs_right": 0} | dict.fromkeys(("spearman", "kendall", "pearson", "spread"), 2)
"""Digits of the measures that are neither AUC nor nats; those have four."""

KEY = ("auc_gap_mean", "spearman", "kendall", "pairs_right", "top1_regret")
"""The measures of the short tables."""

MEANINGS = [
    ("mean AUC gap, largest AUC gap", "How far a candidate's AUC on the set is from its AUC on the full log, whichever way."),
    ("mean, largest LogLoss gap", "The same for LogLoss, in nats: whether probabilities are as good, not only the order of rows."),
    ("Spearman, Kendall tau-b", "Whether the set ranks the candidates as the full log does: 1 the same order, 0 none, -1 reversed."),
    ("Pearson", "Whether differences between candidates have the same proportions as on the full log."),
    ("spread", "How far apart candidates lie on the set, against the full log: below 1 they are told apart less."),
    ("top-1 regret", "AUC on the full log that is lost by taking the candidate that is best on the set."),
    ("top-3 regret", "The same where the best three on the set are then trained on the full log and the best of those is taken."),
    ("pairs", "Pairs of candidates whose AUC on the full log differs by more than seeds explain (two-sided t-test at 5 %)."),
    ("pairs right", "Share of those pairs that the set puts in the same order; 50 % is a coin."),
    ("diverged, left out", "Trainings on the set that diverged, counted as AUC 0.5 at best; candidates without a result on the full log."),
    (AGAIN, "The full log with other seeds, the noise ceiling: no set can be expected to predict the full log better."),
]  # fmt: skip
"""Name and meaning of the figures in the tables."""


def cell(name: str, interval: Interval, separator: str = NEXT, *, signed: bool = False) -> str:
    """A measure and, after `separator`, its interval."""
    if name in COUNTS:
        return number(interval.value, 0, signed=signed)
    return with_interval(interval, DIGITS.get(name, 4), separator, percent=name == "pairs_right", signed=signed)


def with_interval(
    interval: Interval, digits: int, separator: str, *, percent: bool = False, signed: bool = False
) -> str:
    """A value and, after `separator`, its interval, where it has one; a dash for a value that is undefined."""
    scale, unit = (100.0, "\u00a0%") if percent else (1.0, "")
    value, low, high = (
        number(scale * figure, digits, signed=signed) for figure in (interval.value, interval.low, interval.high)
    )
    if not math.isfinite(interval.value):
        return value
    return f"{value}{unit}" + (f"{separator}({low} to {high})" if math.isfinite(interval.low) else "")


def cells(
    figures: dict[str, Interval], names: tuple[str, ...], separator: str = NEXT, *, signed: bool = False
) -> list[str]:
    """The measures `names`; a dash for a measure that was not computed."""
    return [cell(name, figures[name], separator, signed=signed) if name in figures else "-" for name in names]


def at_own_ratio(result: FidelityResult) -> list[SetResult]:
    """The sets at the stream's own ratio, and those that have none, the noise ceiling first."""
    return [result_set for result_set in result.sets if result_set.ratio is None or result_set.ratio == result.ratio]


def compared(result: FidelityResult, cost: CostResult) -> list[SetResult]:
    """The memory and the sets to compare it with: noise ceiling, memory, the other memory, random rows of each kind."""
    sets = at_own_ratio(result)
    memory = next((result_set for result_set in sets if result_set.name == cost.memory_set), None)
    adapter = memory is not None and memory.method is not None and memory.method.adapter
    labels = memory.method.labels if memory and memory.method else "soft"

    def first(rows: str, labels: str, embeddings: str, *, adapter: bool = False) -> list[SetResult]:
        fits = [
            result_set
            for result_set in sets
            if result_set.method
            and (result_set.method.rows, result_set.method.labels, result_set.method.embeddings)
            == (rows, labels, embeddings)
        ]
        return sorted(fits, key=lambda fit: fit.method is not None and fit.method.adapter != adapter)[:1]

    wanted = [result_set for result_set in sets if result_set.method is None] + ([memory] if memory else [])
    for rows in MEMORIES:
        if memory is None or memory.method is None or memory.method.rows != rows:
            wanted += first(rows, labels, "shared", adapter=adapter)
    drawn = first("random", "drawn", "shared", adapter=adapter) if labels == "drawn" else []
    random = [("soft", "shared"), ("hard", "own"), ("hard", "shared")]
    wanted += drawn + [result_set for kind in random for result_set in first("random", *kind)]
    return list({result_set.name: result_set for result_set in wanted}.values())


def lead(result: FidelityResult, cost: CostResult) -> list[str]:
    """What the verdicts rest on: the basis, the figures of each task, the differences between sets, and the cost, a paragraph each."""
    sets = {result_set.name: result_set for result_set in result.sets}
    ceiling, memory = sets.get(CEILING), sets.get(cost.memory_set)
    scope = (
        f"{times(len(result.candidates), 'candidate')} learned from {result.rows:,} rows of {result.log} and from sets of "
        f"{100 * result.ratio:.3g}\u00a0% of that size, with {times(result.seeds, 'seed')} each, and were judged on "
        f"{result.test_rows:,} later rows."
    )
    if memory is None or memory.method is None or not memory.method.of_memory:
        return [f"{scope} No memory is among the sets that were compared."]
    beside = {"the memory": memory} | ({f"the {AGAIN}": ceiling} if ceiling else {})
    rows = [row for row in compared(result, cost) if row.method and row.method.rows == "random"]
    for labels in ("drawn", "soft", "hard"):
        for random in [row for row in rows if row.method and row.method.labels == labels][:1]:
            own = random.method is not None and random.method.embeddings == "own"
            beside[f"random rows with {labels} labels" + (" and embeddings of their own" if own else "")] = random
    differences = [
        f"Spearman of {named(difference.first)} minus that of {named(difference.second)}: "
        f"{listed([_differs(task, difference) for task in result.tasks])}."
        for difference in result.differences
    ]
    return [
        f"{scope} The memory is {set_name(memory)}, {memory.units:,} units.",
        *(_one_task(task, memory, beside, result.noise) for task in result.tasks),
        *([" ".join(differences)] if differences else []),
        *_cost(cost),
    ]


def frozen_verdicts(result: FidelityResult, memory_set: str) -> list[OrderVerdict]:
    """May I trust the order of frozen students? A verdict per task; none where `memory_set` is no memory.

    The order is shown to be worse than the full log's own where its Spearman lies below the interval of the noise ceiling.
    """
    sets = {result_set.name: result_set for result_set in result.sets}
    memory, ceiling = sets.get(memory_set), sets.get(CEILING)
    if memory is None or memory.method is None or not memory.method.of_memory:
        return []
    verdicts = []
    for task in result.tasks:
        figures = memory.fidelity[task]["all"]
        own = ceiling.fidelity[task]["all"]["spearman"] if ceiling else None
        left_out = figures["left_out"].value if "left_out" in figures else 0
        verdicts.append(
            judge_order(
                "frozen",
                task,
                figures["spearman"],
                candidates=len(result.candidates) - int(left_out if math.isfinite(left_out) else 0),
                seeds=result.seeds,
                ceiling=own,
                lower=own is not None and figures["spearman"].value < own.low,
            )
        )
    return verdicts


def protocol(result: FidelityResult, cost: CostResult) -> list[list[str]]:
    """All facts that a reader needs to repeat or to question the run."""
    memory = next((result_set for result_set in result.sets if result_set.name == cost.memory_set), None)
    student = result.student
    lines = {
        "log": f"{result.log}; tasks {', '.join(result.tasks)}",
        "learned from": f"{result.rows:,} rows, {_blocks(result.blocks)}",
        "judged on": f"{result.test_rows:,} rows, {_blocks(result.test_blocks)}; nothing was trained on them",
        "size of the sets": f"{result.ratio:.3g} of the rows" + (f", {memory.units:,} units" if memory else ""),
        "bytes": ", ".join(
            [
                f"log {cost.log_bytes:,}",
                *(f"{ROWS[distillation.set]} {distillation.bytes:,}" for distillation in cost.distillations),
                f"embedding table {cost.table_bytes:,} beside the memory",
            ]
        ),
        "students": f"{student.steps} steps of {student.batch_size} rows or units, Adam at {student.lr:g}; the full log in one pass",
        "seeds": f"{times(result.seeds, 'seed')} of every set and of the full log, {times(result.students, 'student')} per candidate and "
        "seed. A seed of a reduced set is a reference, a selection and students of its own.",
        "intervals": f"95 % percentile, {result.replicates:,} bootstrap replicates over candidates and seeds",
        "seed noise": "; ".join(f"{task} {number(sd, 4)} AUC" for task, sd in result.noise.items())
        + " (standard deviation of one candidate on the full log, pooled)",
        "candidates": f"{len(result.candidates)}: " + ", ".join(spec.name for spec in result.candidates),
        "machine": cost.machine,
        "versions": ", ".join(f"{name} {version}" for name, version in cost.versions.items()),
    }
    return [list(line) for line in lines.items()]


def trust_in(path: Path) -> Callable[[ExportManifest], str]:
    """How far an export can be trusted according to a bench, in Markdown, for the export's card.

    Args:
        path: `fidelity.json` of the bench.

    Returns:
        A function of the export's manifest, which raises ConfigError where the bench was of another log.

    Raises:
        CorruptArtefactError: the file is missing or damaged.
    """
    result = parse_json(FidelityResult, path)

    def trust(about: ExportManifest) -> str:
        if result.log != about.log:
            raise ConfigError(
                f"--fidelity: {path} is of the log {result.log!r}, the memory of {about.log!r}; give a bench of that log"
            )
        lines = [
            f"{len(result.candidates)} nets were trained on the full log ({result.rows:,} rows, {len(result.blocks)} blocks) and on sets "
            f"of {result.ratio:.3g} of its rows for {result.student.steps} steps, {result.seeds} seeds each, and judged on "
            f"{result.test_rows:,} later rows. The memories there were made anew for each seed: the figures are of the method on this "
            f"log, not of exactly these {about.units:,} units. With 95 % intervals:",
        ]
        for task in result.tasks:
            titles = [MEASURES[name].title for name in KEY]
            lines += ["", *(f"{verdict.sentence}." for verdict in result.verdicts if verdict.task == task)]
            lines += ["", f"| {task}: trained on | units | {' | '.join(titles)} |", "|---|---|" + "---|" * len(titles)]
            for result_set in result.sets:
                if result_set.method is None or result_set.method.of_memory or result_set.method.rows == "random":
                    shown = " | ".join(cells(result_set.fidelity[task]["all"], KEY, " "))
                    lines.append(f"| {set_name(result_set)} | {result_set.units:,} | {shown} |")
        return "\n".join(lines)

    return trust


def _one_task(task: str, memory: SetResult, beside: dict[str, SetResult], noise: dict[str, float]) -> str:
    intervals = memory.fidelity[task]["all"]
    text = f"{task}: Spearman with the full log is {_beside(task, 'spearman', 'for', beside)}. "
    if intervals["pairs"].value > 0:
        text += (
            f"Ordered rightly of {times(int(intervals['pairs'].value), 'pair')} that the full log tells apart: "
            f"{_beside(task, 'pairs_right', 'by', beside)}. "
        )
    else:
        text += "The full log tells no pair of candidates apart. "
    text += f"Taking the memory's best candidate loses {cell('top1_regret', intervals['top1_regret'], ' ')} AUC"
    sd = noise.get(task, math.nan)
    return text + (
        f"; a candidate's own AUC moves by {number(sd, 4)} (sd) between seeds." if math.isfinite(sd) else "."
    )


def _beside(task: str, name: str, link: str, beside: dict[str, SetResult]) -> str:
    """The first two, memory and noise ceiling, with their interval; the others without it, because the table below has theirs."""
    cells = [(words, cell(name, result_set.fidelity[task]["all"][name])) for words, result_set in beside.items()]
    first = [f"{text.replace(NEXT, ' ')} {link} {words}" for words, text in cells[:2]]
    return listed(first + [f"{text.split(NEXT)[0]} {link} {words}" for words, text in cells[2:]])


def _differs(task: str, difference: Difference) -> str:
    interval = difference.fidelity[task]["all"]["spearman"]
    value, low, high = (number(figure, 2, signed=True) for figure in (interval.value, interval.low, interval.high))
    shown = interval.low > 0 or interval.high < 0
    return f"{value} ({low} to {high}{'' if shown else ', no difference shown'}) on {task}"


def _cost(cost: CostResult) -> list[str]:
    ratios = [candidate.full_cpu / candidate.memory_cpu for candidate in cost.candidates if candidate.memory_cpu > 0]
    if not ratios:
        return []
    text = (
        f"Cost. One training on the memory takes {median(ratios):.1f} times less CPU than on the full log (median over candidates; "
        f"{min(ratios):.1f} to {max(ratios):.1f})."
    )
    for made in cost.distillations:
        pays = f"pays after {made.pays_after:,.0f} candidates" if math.isfinite(made.pays_after) else "never pays here"
        text += f" Making the {ROWS[made.set]} took {made.seconds:,.0f} s on one core, and {pays}."
    return [text]


def _blocks(names: list[str]) -> str:
    return f"block {names[0]}" if len(names) == 1 else f"{len(names)} blocks, {names[0]} to {names[-1]}"
