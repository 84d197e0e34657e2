"""Can the memory be trusted? The fidelity bench on a published log, from its files to the figures of docs/fidelity.md.

    python -m benchmarks.fidelity.published_logs kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.fidelity.published_logs complete-journey --work WORK
    python -m benchmarks.fidelity.published_logs complete-journey-later --work ANOTHER
    python -m benchmarks.fidelity.published_logs docs

WORK keeps the log and all that is trained; run again, the bench goes on where it was interrupted. The figures go to benchmarks/results,
from which the last command writes docs/fidelity.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.common.tables import filled, markdown
from diet_ray.engine.cluster import connect
from diet_ray.judge.fidelity.config import DIET, FidelityConfig, Method
from diet_ray.judge.fidelity.measures import MEASURES, pooled_pearson
from diet_ray.judge.fidelity.page import tables_to_print
from diet_ray.judge.fidelity.result import CEILING, GROUPS, CostResult, FidelityResult, Scores, SetResult
from diet_ray.judge.fidelity.words import MEANINGS, at_own_ratio, cells, lead, protocol
from diet_ray.logs.readers import READERS
from diet_ray.report.progress import Counted, display
from diet_ray.schema import Schema
from diet_ray.settings import load_yaml, parse, parse_json

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

SHORT = ("auc_gap_mean", "spearman", "pairs_right", "top1_regret")
"""Those of the README's."""

COMMAND = "python -m benchmarks.fidelity.published_logs docs"

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
PRESETS = HERE.parent / "diet_ray" / "presets"
DOCS = HERE.parent / "docs" / "fidelity.md"
README = HERE.parent / "README.md"


@dataclass(frozen=True)
class Published:
    """A published log as the bench uses it."""

    title: str
    reader: str
    schema: str
    blocks: int
    """Blocks used, the first of the log."""
    learned: int
    """Blocks learned from; the others judge."""
    drop: tuple[str, ...]
    """Fields without which a DNN is tried."""
    caveat: str
    """What a reader must know before believing the figures."""
    methods: tuple[str, ...] = ()
    """Sets to compare, at the stream's own ratio alone; empty for all of the bench's own, at all its ratios."""


LOGS = {
    # Two days judge: one has too few rows to tell candidates apart.
    "kuairand": Published(
        "KuaiRand-Pure, by day",
        "kuairand",
        "kuairand_two_tasks_schema.yaml",
        14,
        12,
        ("user_id", "video_id", "author_id", "tab", "hour", "duration"),
        "The reference's committee, the share of labels that is drawn and the students' learning rate were chosen on this log with an eye "
        "on these very days. Another log is the fairer test.",
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
        "The same thirteen weeks to learn from, and eight later ones to judge on in place of one.",
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
}


def config(name: str, work: Path, seeds: int) -> FidelityConfig:
    """The bench's config for a log: the defaults, and a candidate for each field dropped."""
    about = LOGS[name]
    dropped = [{"name": f"dnn-no-{field}", "arch": "dnn", "drop_fields": [field]} for field in about.drop]
    few = {"methods": about.methods, "curve": {"ratios": []}, "stages": {"candidates": []}} if about.methods else {}
    return parse(
        FidelityConfig,
        {
            "stream": {"log": work / "log", "blocks": about.learned},
            "test_blocks": about.blocks - about.learned,
            "more_candidates": dropped,
            "seeds": seeds,
            **few,
        },
        where=name,
    )


def ingested(name: str, source: Path | None, work: Path, count: Counted) -> None:
    """Ingest the log, unless that is done."""
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
        from diet_ray.engine.bench_driver import fidelity

        count = Counted(shown)
        ingested(name, source, work, count)
        result, cost = fidelity(config(name, work, seeds), work / "report", count)
    RESULTS.mkdir(exist_ok=True)
    for kind, found in (("fidelity", result), ("cost", cost)):
        (RESULTS / f"{kind}_{name}.json").write_text(found.model_dump_json() + "\n", encoding="utf-8")
    for table in tables_to_print(result, cost):
        Console(width=160).print(table)


def figures() -> dict[str, tuple[FidelityResult, CostResult]]:
    """What was found on the logs that have been run."""
    return {
        name: (
            parse_json(FidelityResult, RESULTS / f"fidelity_{name}.json"),
            parse_json(CostResult, RESULTS / f"cost_{name}.json"),
        )
        for name in LOGS
        if (RESULTS / f"fidelity_{name}.json").exists()
    }


def readme(text: str) -> str:
    """The README with its short table as the figures have it, between the two marks."""
    rows = []
    for name, (result, cost) in figures().items():
        shown = {CEILING, "random/hard/own", "random/soft/shared", str(DIET), cost.memory_set}
        for task in result.tasks:
            for one in at_own_ratio(result):
                if one.name in shown:
                    where = f"{LOGS[name].title.partition(',')[0]}, {task}"
                    rows.append([where, one.name, f"{one.units:,}", *cells(one.fidelity[task]["all"], SHORT, " ")])
    table = markdown(["log, task", "trained on", "units", *(MEASURES[name].title for name in SHORT)], rows)
    return filled(text, "figures", COMMAND, table, gap="\n")


def document() -> str:
    """docs/fidelity.md, from the figures."""
    found = figures()
    parts = [
        "# Can the memory be trusted?",
        "Written by `python -m benchmarks.fidelity.published_logs docs` from the figures in `benchmarks/results`, which the same script "
        "makes, one command per log (see its first lines). `diet-ray fidelity` does the same for a log of yours. Intervals are 95 %, from "
        "resampling candidates and seeds; with three seeds they are too narrow rather than too wide.",
        "## What the measures mean",
        markdown(["measure", "in plain words"], [list(pair) for pair in MEANINGS]),
    ]
    for name, (result, cost) in found.items():
        parts += _log(LOGS[name], name, result, cost)
    return "\n\n".join([*parts, *_pooled({name: result for name, (result, _) in found.items()})]) + "\n"


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
            rows = [_line(one.name, one, task, group) for one in at_own_ratio(result)]
            parts += [f"### {task}, {title}", markdown(["trained on", "units", *_titles()], rows)]
        curve = [result_set for result_set in result.sets if result_set.ratio and result_set.method in _curve(result)]
        rows = [_line(f"{one.method} at {one.ratio:.2%}", one, task, "all") for one in sorted(curve, key=_by_method)]
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


def _pooled(found: dict[str, FidelityResult]) -> list[str]:
    """Pearson over the candidates of all logs and tasks, raw beside centred."""
    common = [
        result_set.name
        for result_set in next(iter(found.values())).sets
        if all(result_set.name in _names(other) for other in found.values())
    ]
    rows = []
    for name in common:
        points = [
            (_means(result.full, task), _means([score for score in result.scores if score.set == name], task))
            for result in found.values()
            for task in result.tasks
        ]
        rows.append([name, *(f"{one:.2f}" for one in pooled_pearson(points))])
    return [
        "## All logs and tasks together",
        "One Pearson correlation over all (log, task, candidate) points. The raw one is inflated by what lies between the logs: it is near "
        "1 whatever the candidates do. The centred one takes each log's and task's mean off first.",
        markdown(["trained on", "raw", "centred"], rows),
    ]


def _means(scores: list[Scores], task: str) -> np.ndarray:
    return np.array([np.mean(score.values[task]["auc"]) for score in scores])


def _names(result: FidelityResult) -> set[str]:
    return {result_set.name for result_set in result.sets}


def _curve(result: FidelityResult) -> set[Method | None]:
    """The methods that were tried at several sizes."""
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
    parser.add_argument("what", choices=[*LOGS, "docs"])
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "docs":
        DOCS.write_text(document(), encoding="utf-8")
        README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    elif options.work is None:
        parser.error("--work: say where the log and all that is trained may lie")
    else:
        run(options.what, options.source, options.work, options.seeds)


if __name__ == "__main__":
    main()
