"""The fidelity bench on a published log, from its files to the figures of docs/fidelity.md.

    python -m benchmarks.fidelity.published_logs kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.fidelity.published_logs complete-journey --work WORK
    python -m benchmarks.fidelity.published_logs complete-journey-later --work ANOTHER
    python -m benchmarks.fidelity.published_logs docs

The log and the trained models are kept in WORK; run a command again to continue after an interruption. The figures go to
benchmarks/results; the last command writes docs/fidelity.md from them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from benchmarks.common.tables import filled, markdown
from diet_ray.engine.cluster import connect
from diet_ray.judge.fidelity.config import FidelityConfig, Method
from diet_ray.judge.fidelity.live.measures import MEASURES as LIVE_MEASURES
from diet_ray.judge.fidelity.live.page import cost_rows, differences
from diet_ray.judge.fidelity.live.result import BLIND, SAME_ROWS, LiveCost, LiveResult
from diet_ray.judge.fidelity.live.words import KEY as LIVE_KEY
from diet_ray.judge.fidelity.live.words import MEANINGS as LIVE_MEANINGS
from diet_ray.judge.fidelity.live.words import meaning
from diet_ray.judge.fidelity.live.words import cell as live_cell
from diet_ray.judge.fidelity.live.words import lead as live_lead
from diet_ray.judge.fidelity.measures import MEASURES, pooled_pearson
from diet_ray.judge.fidelity.terminal import to_print
from diet_ray.judge.fidelity.result import GROUPS, CostResult, FidelityResult, Scores, SetResult
from diet_ray.judge.fidelity.words import MEANINGS, at_own_ratio, cells, lead, protocol
from diet_ray.logs.readers import READERS
from diet_ray.report.progress import Counted, display
from diet_ray.schema import Schema
from diet_ray.settings import Settings, load_yaml, parse, parse_json

KEY = (
    "auc_gap_mean",
    "auc_gap_max",
    "logloss_gap_mean",
    "spearman",
    "kendall",
    "pearson",
    "spread",
    "pairs_right",
    "top1_regret",
    "top3_regret",
)
"""The measures of the tables."""

README_KEY = ("spearman", "pairs_right", "top1_regret", "gap")
"""The measures of the README's table."""

README_STARTS = {
    SAME_ROWS: "a full backfill (the ceiling of so few rows)",
    "memory": "**the memory**",
    "random": "as many random rows in its place",
    "recent": "the latest 51,200 rows, each once",
    BLIND: "a blind choice (chance)",
}
"""The starts of the README's table, in its words."""

R = TypeVar("R", bound=Settings)
C = TypeVar("C", bound=Settings)

COMMAND = "python -m benchmarks.fidelity.published_logs docs"

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
PRESETS = HERE.parent / "diet_ray" / "presets"
DOCS = HERE.parent / "docs" / "fidelity.md"
README = HERE.parent / "README.md"


@dataclass(frozen=True)
class Published:
    """The settings of the bench for a published log."""

    title: str
    reader: str
    schema: str
    blocks: int
    """Blocks used, the first of the log."""
    learned: int
    """Blocks to train on; the others are for judging."""
    drop: tuple[str, ...]
    """Fields: for each, one candidate is a DNN without it."""
    caveat: str
    """What a reader must know to judge the figures."""
    methods: tuple[str, ...] = ()
    """Sets to compare, only at the ratio of the stream; empty for all sets of the bench, at all its ratios."""
    live: tuple[int, int] | None = None
    """Number and distance of the judging blocks of the protocol `live`; None for the protocol `frozen`."""


LOGS = {
    # Candidates are judged on two days: one day has too few rows to distinguish them.
    "kuairand": Published(
        "KuaiRand-Pure, by day",
        "kuairand",
        "kuairand_two_tasks_schema.yaml",
        14,
        12,
        ("user_id", "video_id", "author_id", "tab", "hour", "duration"),
        "The reference's committee, the share of labels that is drawn and the students' learning rate were chosen on this log, and on the "
        "same days on which candidates are judged here. Another log is the fairer test.",
    ),
    "complete-journey": Published(
        "Complete Journey, by week",
        "complete-journey",
        "complete_journey_schema.yaml",
        14,
        13,
        ("household_id", "product_id", "manufacturer_id", "department", "product_category", "store_id"),
        "Nothing was chosen on this log.",
    ),
    "complete-journey-later": Published(
        "Complete Journey judged on eight later weeks",
        "complete-journey",
        "complete_journey_schema.yaml",
        21,
        13,
        ("household_id", "product_id", "manufacturer_id", "department", "product_category", "store_id"),
        "The training weeks are the same thirteen; candidates are judged on eight later weeks instead of one.",
        (
            "random/hard/own",
            "random/hard/shared+adapter",
            "random/soft/shared",
            "random/soft/shared+adapter",
            "random/drawn/shared+adapter",
            "memory/soft/shared+adapter",
            "memory/drawn/shared",
            "memory/drawn/shared+adapter",
            "refined/drawn/shared+adapter",
            "full/hard/shared",
            "full/hard/shared+adapter",
        ),
    ),
    "kuairand-live": Published(
        "KuaiRand-Pure, live",
        "kuairand",
        "kuairand_two_tasks_schema.yaml",
        14,
        13,
        ("user_id", "video_id", "author_id", "tab", "hour", "duration"),
        "The recipe of the launch was chosen on the sixth, eighth and tenth day (is_click alone); candidates are judged here on the last "
        "three days.",
        live=(3, 1),
    ),
    "complete-journey-live": Published(
        "Complete Journey, live",
        "complete-journey",
        "complete_journey_schema.yaml",
        53,
        51,
        ("household_id", "product_id", "manufacturer_id", "department", "product_category", "store_id"),
        "The recipe of the launch was chosen on weeks 14, 20 and 26; candidates are judged here on three weeks of the second half of the "
        "year.",
        live=(3, 9),
    ),
}

ROUNDS = 30
"""Rounds of refinement of the bench's refined memories."""

STARTS = ("memory", "random", "scratch", "table", "recent")
"""The starts that the protocol `live` compares."""


def config(name: str, work: Path, seeds: int) -> FidelityConfig:
    """The bench's config for a log: the defaults, and a candidate for each field dropped."""
    about = LOGS[name]
    dropped = [{"name": f"dnn-no-{field}", "arch": "dnn", "drop_fields": [field]} for field in about.drop]
    few = {"methods": about.methods, "curve": {"ratios": []}, "stages": {"candidates": []}} if about.methods else {}
    if about.live:
        number, every = about.live
        few = {"protocols": ["live"], "live": {"blocks": number, "every": every, "starts": STARTS}}
    return parse(
        FidelityConfig,
        {
            "stream": {"log": work / "log", "blocks": about.learned, "refine": {"rounds": ROUNDS}},
            "test_blocks": about.blocks - about.learned,
            "more_candidates": dropped,
            "seeds": seeds,
            **few,
        },
        where=name,
    )


def ingested(name: str, source: Path | None, work: Path, count: Counted) -> None:
    """Ingest the log, unless it exists already."""
    from diet_ray.logs.ingestion.ingest import ingest

    about = LOGS[name]
    reader = READERS[about.reader]
    if not (work / "log").exists():
        schema = load_yaml(Schema, PRESETS / about.schema)
        prepared = reader.prepare(source, work / "prepared")
        ingest(schema, prepared, work / "log", by=reader.by, blocks=about.blocks, on_progress=count)


def run(name: str, source: Path | None, work: Path, seeds: int) -> None:
    """Ingest the log, run the bench, copy its figures to the results."""
    with display(quiet=False) as shown, connect():
        from diet_ray.engine.bench_driver import fidelity, live_fidelity

        count, bench = Counted(shown), config(name, work, seeds)
        ingested(name, source, work, count)
        if LOGS[name].live:
            measured, spent = live_fidelity(bench, work / "report", count)
            figures: dict[str, Settings] = {"live": measured, "live_cost": spent}
            tables = to_print(None, (measured, spent))
        else:
            result, cost = fidelity(bench, work / "report", count)
            figures, tables = {"fidelity": result, "cost": cost}, to_print((result, cost), None)
    RESULTS.mkdir(exist_ok=True)
    for kind, values in figures.items():
        (RESULTS / f"{kind}_{name}.json").write_text(values.model_dump_json() + "\n", encoding="utf-8")
    for table in tables:
        Console(width=160).print(table)


def figures() -> dict[str, tuple[FidelityResult, CostResult]]:
    """The results of the protocol `frozen` on the logs that have been run."""
    return _stored(FidelityResult, "fidelity", CostResult, "cost")


def live_figures() -> dict[str, tuple[LiveResult, LiveCost]]:
    """The results of the protocol `live` on the logs that have been run."""
    return _stored(LiveResult, "live", LiveCost, "live_cost")


def _stored(result: type[R], kind: str, cost: type[C], cost_kind: str) -> dict[str, tuple[R, C]]:
    """The results and costs that lie in the results folder, by the name of the log."""
    return {
        name: (
            parse_json(result, RESULTS / f"{kind}_{name}.json"),
            parse_json(cost, RESULTS / f"{cost_kind}_{name}.json"),
        )
        for name in LOGS
        if (RESULTS / f"{kind}_{name}.json").exists()
    }


def readme(text: str) -> str:
    """The README with its short table, made from the figures, between the two marks."""
    rows = []
    for name, (result, _) in live_figures().items():
        for task in result.tasks:
            for start in result.starts:
                if start.name in README_STARTS:
                    where = f"{_log_of(name)}, {task}"
                    figures = start.measured[task][0]
                    rows.append(
                        [where, README_STARTS[start.name], *(live_cell(key, figures[key], " ") for key in README_KEY)]
                    )
    titles = [LIVE_MEASURES[key].title for key in README_KEY]
    return filled(text, "figures", COMMAND, markdown(["log, task", "candidates start from", *titles], rows), gap="\n")


def document() -> str:
    """docs/fidelity.md, from the figures."""
    by_log, live_by_log = figures(), live_figures()
    answers = [
        f"- {_log_of(name)}. {answer(result, task)}"
        for name, (result, _) in live_by_log.items()
        for task in result.tasks
    ]
    answers += [f"- {LOGS[name].title}. Frozen: {lead(*both)[0]}" for name, both in by_log.items()]
    parts = [
        "# Can the memory be trusted?",
        "## May I trust the order of the candidates?",
        "Candidates are ranked after they met the first rows of a block *live*, launched from the memory, or as *frozen* students that the "
        "memory has trained; [the method page](method.md#fidelity) explains both. Per log and protocol:",
        "\n".join(answers),
        "`python -m benchmarks.fidelity.published_logs docs` writes this page from the figures in `benchmarks/results`. The same script "
        "measures the figures, with one command per log (see its first lines). `diet-ray fidelity` does the same for your own log. "
        "Intervals are 95 % intervals; with only three seeds they are probably too narrow.",
        "# Live",
        markdown(["measure", "in plain words"], [list(pair) for pair in LIVE_MEANINGS]),
        markdown(
            ["start", "what a candidate has before its first live row"],
            [[name, meaning(name)] for name in _starts(live_by_log)],
        ),
    ]
    for name, (measured, spent) in live_by_log.items():
        parts += _live_log(LOGS[name], name, measured, spent)
    parts += [
        "# Frozen",
        "Intervals are from resampling candidates and seeds.",
        "## What the measures mean",
        markdown(["measure", "in plain words"], [list(pair) for pair in MEANINGS]),
    ]
    for name, (result, cost) in by_log.items():
        parts += _log(LOGS[name], name, result, cost)
    return "\n\n".join([*parts, *_pooled({name: result for name, (result, _) in by_log.items()})]) + "\n"


def _log_of(name: str) -> str:
    """The log's own name."""
    return LOGS[name].title.partition(",")[0]


def _starts(results: dict[str, tuple[LiveResult, LiveCost]]) -> list[str]:
    return list(dict.fromkeys(start.name for result, _ in results.values() for start in result.starts))


def _live_log(about: Published, name: str, result: LiveResult, cost: LiveCost) -> list[str]:
    parts = [
        f"## {about.title}",
        *live_lead(result, cost),
        about.caveat,
        f"Made by `python -m benchmarks.fidelity.published_logs {name} --work WORK`; figures in `benchmarks/results/live*_{name}.json`. "
        f"Candidates: {', '.join(spec.name for spec in result.candidates)}.",
    ]
    titles = [measure.title for measure in LIVE_MEASURES.values()]
    for task in result.tasks:
        for number, share in enumerate(result.shares):
            rows = [
                [start.name, *(live_cell(key, start.measured[task][number][key], " ") for key in LIVE_MEASURES)]
                for start in result.starts
            ]
            parts += [f"### {task}, {100 * share:.3g} % of the block", markdown(["start", *titles], rows)]
    keys = [LIVE_MEASURES[key].title for key in LIVE_KEY]
    first = f"{100 * result.shares[0]:.3g} %"
    return [
        *parts,
        f"### Starts against each other, {first} of the block",
        markdown(["difference", "task", *keys], differences(result, " ")),
        "### Cost of one candidate, CPU seconds",
        markdown(["start", "before the block", f"{first} of it, live"], cost_rows(cost)),
    ]


def _log(about: Published, name: str, result: FidelityResult, cost: CostResult) -> list[str]:
    command = f"`python -m benchmarks.fidelity.published_logs {name} --work WORK`"
    parts = [
        f"## {about.title}",
        *lead(result, cost),
        about.caveat,
        f"Made by {command}; figures in `benchmarks/results/*_{name}.json`.",
    ]
    parts.append(markdown(["", "this run"], protocol(result, cost)))
    for task in result.tasks:
        for group, title in zip(GROUPS, ("all candidates", "architectures alone"), strict=True):
            rows = [_line(result_set.name, result_set, task, group) for result_set in at_own_ratio(result)]
            parts += [f"### {task}, {title}", markdown(["trained on", "units", *_titles()], rows)]
        curve = [result_set for result_set in result.sets if result_set.ratio and result_set.method in _curve(result)]
        rows = [
            _line(f"{result_set.method} at {result_set.ratio:.2%}", result_set, task, "all")
            for result_set in sorted(curve, key=_by_method)
        ]
        parts += [f"### {task}, by size", markdown(["trained on", "units", *_titles()], rows)]
    rows = [
        [
            f"{difference.first} minus {difference.second}",
            task,
            *cells(difference.fidelity[task]["all"], KEY, " ", signed=True),
        ]
        for difference in result.differences
        for task in result.tasks
    ]
    parts += ["### Sets against each other", markdown(["sets", "task", *_titles()], rows)]
    rows = [
        [
            candidate.candidate,
            f"{candidate.full_cpu:.2f}",
            f"{candidate.memory_cpu:.2f}",
            f"{candidate.full_cpu / candidate.memory_cpu:.1f}x",
        ]
        for candidate in cost.candidates
    ]
    parts += [
        "### Cost of one training, CPU seconds",
        markdown(["candidate", "full log", cost.memory_set, "ratio"], rows),
    ]
    return parts


def _pooled(results: dict[str, FidelityResult]) -> list[str]:
    """Pearson correlation over the candidates of all logs and tasks, raw and centred."""
    common = [
        result_set.name
        for result_set in next(iter(results.values())).sets
        if all(result_set.name in _names(result) for result in results.values())
    ]
    rows = []
    for name in common:
        points = [
            (_means(result.full, task), _means([score for score in result.scores if score.set == name], task))
            for result in results.values()
            for task in result.tasks
        ]
        rows.append([name, *(f"{correlation:.2f}" for correlation in pooled_pearson(points))])
    return [
        "## All logs and tasks together",
        "One Pearson correlation over all (log, task, candidate) points. The differences between logs inflate the raw correlation: it is "
        "near 1 for any candidates. The centred correlation first subtracts the mean of each log and task.",
        markdown(["trained on", "raw", "centred"], rows),
    ]


def _means(scores: list[Scores], task: str) -> np.ndarray:
    return np.array([np.mean(score.values[task]["auc"]) for score in scores])


def _names(result: FidelityResult) -> set[str]:
    return {result_set.name for result_set in result.sets}


def _curve(result: FidelityResult) -> set[Method | None]:
    """The methods that were measured at several sizes."""
    return {
        result_set.method
        for result_set in result.sets
        if result_set.ratio is not None and result_set.ratio != result.ratio
    }


def _by_method(set_result: SetResult) -> tuple[str, float]:
    return str(set_result.method), set_result.ratio or 0.0


def _line(title: str, set_result: SetResult, task: str, group: str) -> list[str]:
    return [title, f"{set_result.units:,}", *cells(set_result.fidelity[task][group], KEY, " ")]


def _titles() -> list[str]:
    return [MEASURES[name].title for name in KEY]


def main() -> None:
    """Run the bench on a log, or write the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*LOGS, "docs"])
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.task == "docs":
        DOCS.write_text(document(), encoding="utf-8")
        README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    elif options.work is None:
        parser.error("--work: missing; give a folder for the log and the trained models")
    else:
        run(options.task, options.source, options.work, options.seeds)


if __name__ == "__main__":
    main()
