"""The report of the fidelity bench: one HTML page that answers whether the memory can be trusted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from diet_ray.figures import mean_sd, number
from diet_ray.judge.fidelity.live.page import live_sections
from diet_ray.judge.fidelity.live.pictures import LivePictures
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.live.words import lead as live_lead
from diet_ray.judge.fidelity.live.words import live_verdict
from diet_ray.judge.fidelity.measures import MEASURES
from diet_ray.judge.fidelity.names import AGAIN, ROWS, named, set_name
from diet_ray.judge.fidelity.order import OrderVerdict
from diet_ray.judge.fidelity.pictures import Pictures
from diet_ray.judge.fidelity.plots import mean_and_sd
from diet_ray.judge.fidelity.result import CostResult, FidelityResult
from diet_ray.judge.fidelity.words import KEY, MEANINGS, NEXT, cells, frozen_verdicts, lead, protocol
from diet_ray.report.page import Section, Source, seed_names, write_page

THEMES = {
    "order of the candidates": ("spearman", "kendall", "pearson", "pairs_right"),
    "choice of a candidate": ("top1_regret", "top3_regret", "pairs", "diverged", "left_out"),
    "level": ("auc_gap_mean", "auc_gap_max", "logloss_gap_mean", "logloss_gap_max", "spread"),
}
"""The measures of each table. Tables are narrow, so that they can be read on a phone."""


def write_report(
    out: Path, frozen: tuple[FidelityResult, CostResult] | None, live: tuple[LiveResult, LiveCost] | None = None
) -> list[Path]:
    """Write `fidelity.html`, which needs no other file and no network, and its pictures as SVG beside it.

    Args:
        out: an existing folder.
        frozen: result and costs of the protocol `frozen`.
        live: result and costs of the protocol `live`. At least one protocol is given.

    Returns:
        The files, the page first.
    """
    log, seeds, verdicts = "", 0, verdicts_of(frozen, live)
    leads: list[str] = []
    sections: list[Section] = []
    written: list[Path] = []
    if live:
        result, cost = live
        drawn = LivePictures(out, result)
        leads += live_lead(result, cost)
        sections += live_sections(drawn, cost)
        log, seeds, written = result.log, result.seeds, drawn.written
    if frozen:
        pictures = Pictures(out, *frozen)
        leads += lead(*frozen)
        sections += _frozen_sections(pictures)
        log, seeds, written = pictures.result.log, pictures.result.seeds, written + pictures.written
    path = out / "fidelity.html"
    answers = [f"{verdict.sentence}." for verdict in verdicts]
    if not answers:  # no memory was compared, which the first line of the others says
        answers, leads = leads[:1], leads[1:]
    source = Source(log, seed_names(seeds))
    write_page(path, f"Fidelity of the memory: {log}", answers, sections, source, remarks=leads, contents=True)
    return [path, *written]


def verdicts_of(
    frozen: tuple[FidelityResult, CostResult] | None, live: tuple[LiveResult, LiveCost] | None
) -> list[OrderVerdict]:
    """The verdicts of both protocols, per task, from their figures, which a file of an earlier release has, too."""
    verdicts = [live_verdict(live[0], task) for task in live[0].tasks] if live else []
    return verdicts + (frozen_verdicts(frozen[0], frozen[1].memory_set) if frozen else [])


def _frozen_sections(pictures: Pictures) -> list[Section]:
    result, cost = pictures.result, pictures.cost
    meanings = [list(pair) for pair in MEANINGS]
    return [
        _glance(pictures),
        *pictures.scatters(),
        *pictures.curves(),
        *pictures.stages(),
        *_costs(pictures),
        *_every_set(result),
        *_differences(result),
        *_every_candidate(pictures),
        Section("What the measures mean", columns=["measure", "in plain words"], rows=meanings),
        Section("Protocol", columns=["", "this run"], rows=protocol(result, cost)),
    ]


def _glance(pictures: Pictures) -> Section:
    result = pictures.result
    tasks = ["task"] if len(result.tasks) > 1 else []
    rows = [
        [
            set_name(result_set),
            *([task] if tasks else []),
            f"{result_set.units:,}",
            *cells(result_set.fidelity[task]["all"], KEY),
        ]
        for task in result.tasks
        for result_set in pictures.chosen
    ]
    note = (
        "In small letters: 95 % intervals from resampling candidates and seeds; with few seeds they are too narrow. The noise ceiling, "
        f"called {AGAIN}, is how well the full log predicts itself."
    )
    return Section(
        "At a glance",
        intro="How well a set ranks the candidates as the full log does: Spearman, 1 for the same order, with its 95 % interval.",
        panels=pictures.agreement(),
        columns=["trained on", *tasks, "units", *_titles(KEY)],
        rows=rows,
        note=note,
    )


def _costs(pictures: Pictures) -> list[Section]:
    cost, result = pictures.cost, pictures.result
    making, sizes = [], [["log", f"{result.rows:,}", f"{cost.log_bytes:,}", "1"]]
    for distillation in cost.distillations:
        pays = f"{distillation.pays_after:,.0f}" if math.isfinite(distillation.pays_after) else "never"
        making.append(
            [
                ROWS[distillation.set],
                f"{distillation.units:,}",
                f"{distillation.seconds:,.0f}",
                f"{distillation.reference_seconds:,.0f}",
                pays,
            ]
        )
        sizes.append(
            [
                ROWS[distillation.set],
                f"{distillation.units:,}",
                f"{distillation.bytes:,}",
                f"{distillation.bytes / cost.log_bytes:.3f}",
            ]
        )
    sizes.append(["embedding table", "", f"{cost.table_bytes:,}", f"{cost.table_bytes / cost.log_bytes:.3f}"])
    return [
        Section(
            "Cost",
            intro=f"Mean CPU time of one training, measured on {cost.machine}. The number beside a mark says how many times cheaper "
            "the set is.",
            panels=[pictures.cost_bars()],
        ),
        Section(
            "Making the memory",
            columns=["", "units", "seconds", "of them in\nthe reference", "pays after\ncandidates"],
            rows=making,
            note="Wall seconds on one core, all steps. Pays after: the number of candidates from which distilling and training on the "
            "memory is cheaper than training each on the full log.",
            level=3,
        ),
        Section(
            "Bytes",
            columns=["", "rows or units", "bytes", "share of\nthe log's"],
            rows=sizes,
            note="Units need the embedding table; a candidate with embeddings of its own has a table of the same size.",
            level=3,
        ),
    ]


def _every_set(result: FidelityResult) -> list[Section]:
    sections = [
        Section(
            "Every set",
            intro="Unless the name says otherwise, candidates learn a set as they learn a memory: labels are partly drawn from the "
            "reference's probabilities, the table is the reference's, and an adapter stands in front of the net. Soft labels are these "
            "probabilities, hard labels the rows' own; with an own table a candidate learns its embeddings anew. Rows are as many as the "
            "memory has units; another size is part of the name. In small letters: 95 % intervals.",
        )
    ]

    def table(heading: str, task: str, group: str, names: tuple[str, ...], note: str = "") -> Section:
        rows = [
            [set_name(result_set), f"{result_set.units:,}", *cells(result_set.fidelity[task][group], names)]
            for result_set in result.sets
        ]
        return Section(heading, columns=["trained on", "units", *_titles(names)], rows=rows, note=note, level=3)

    for task in result.tasks:
        sections += [table(f"{task}: {theme}", task, "all", names) for theme, names in THEMES.items()]
        note = "Only candidates that use every field and the run's learning rate: their differences are smaller and harder to rank."
        sections.append(table(f"{task}: architectures alone", task, "architectures", KEY, note))
    if len(result.tasks) > 1:
        rows = [[named(name), *(number(value, 2) for value in both)] for name, both in result.pooled_pearson.items()]
        note = "Over all (task, candidate) points. Differences between the tasks inflate the raw value; quote the centred one."
        columns = ["trained on", "raw", "each task centred"]
        sections.append(Section("Pearson over all tasks", columns=columns, rows=rows, note=note, level=3))
    return sections


def _differences(result: FidelityResult) -> list[Section]:
    rows = [
        [
            f"{named(difference.first)} minus {named(difference.second)}",
            task,
            *cells(difference.fidelity[task]["all"], KEY, signed=True),
        ]
        for difference in result.differences
        for task in result.tasks
    ]
    note = "From the same bootstrap draws. An interval that contains 0 shows no difference."
    columns = ["sets", "task", *_titles(KEY)]
    return [Section("Differences between sets", columns=columns, rows=rows, note=note)] if rows else []


def _every_candidate(pictures: Pictures) -> list[Section]:
    memory = next((chosen for chosen in pictures.chosen if chosen.name == pictures.cost.memory_set), None)
    if memory is None:
        return []
    note = f"Mean and, in small letters, standard deviation over seeds; the best on the full log first. The set is the {set_name(memory)}."
    sections = [Section("Every candidate", intro=note)]
    columns = ["candidate"]
    columns += [f"{metric}\n{source}" for metric in ("AUC", "LogLoss") for source in ("full log", "set", "difference")]
    for task in pictures.result.tasks:
        rows = [[name] for name in pictures.names]
        for metric in ("auc", "logloss"):
            (full, full_sd), (small, small_sd) = (
                mean_and_sd(part) for part in (pictures.full[task, metric], pictures.scores(memory, task, metric))
            )
            for row, a, a_sd, b, b_sd in zip(rows, full, full_sd, small, small_sd, strict=True):
                row += [mean_sd(a, a_sd, NEXT), mean_sd(b, b_sd, NEXT), number(b - a, 4, signed=True)]
        auc = mean_and_sd(pictures.full[task, "auc"])[0]
        order = np.argsort(-np.nan_to_num(auc, nan=-1.0), kind="stable")
        sections.append(Section(f"{task}: candidates", columns=columns, rows=[rows[place] for place in order], level=3))
    return sections


def _titles(names: tuple[str, ...]) -> list[str]:
    return [MEASURES[name].title for name in names]
