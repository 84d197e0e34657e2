"""The fidelity bench on a published log, from its files to the figures of docs/fidelity.md and docs/fidelity/.

    python -m benchmarks.fidelity.published_logs kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.fidelity.published_logs complete-journey --work WORK
    python -m benchmarks.fidelity.published_logs complete-journey-later --work ANOTHER
    python -m benchmarks.fidelity.published_logs docs

The log and the trained models are kept in WORK; run a command again to continue after an interruption. The figures go to
benchmarks/results; the last command writes the pages from them (`benchmarks.fidelity.pages`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from diet_ray.engine.cluster import connect
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.result import CostResult, FidelityResult
from diet_ray.judge.fidelity.terminal import to_print
from diet_ray.logs.readers import READERS
from diet_ray.report.progress import Counted, display
from diet_ray.schema import Schema
from diet_ray.settings import Settings, load_yaml, parse, parse_json

R = TypeVar("R", bound=Settings)
C = TypeVar("C", bound=Settings)

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results"
PRESETS = HERE.parent / "diet_ray" / "presets"


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
            shown_at_the_end = to_print(None, (measured, spent))
        else:
            result, cost = fidelity(bench, work / "report", count)
            figures, shown_at_the_end = {"fidelity": result, "cost": cost}, to_print((result, cost), None)
    RESULTS.mkdir(exist_ok=True)
    for kind, values in figures.items():
        (RESULTS / f"{kind}_{name}.json").write_text(values.model_dump_json() + "\n", encoding="utf-8")
    for part in shown_at_the_end:
        Console(width=100).print(part)


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


def log_of(name: str) -> str:
    """The log's own name."""
    return LOGS[name].title.partition(",")[0]


def main() -> None:
    """Run the bench on a log, or write the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*LOGS, "docs"])
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.task == "docs":
        from benchmarks.fidelity.pages import write_pages

        write_pages()
    elif options.work is None:
        parser.error("--work: missing; give a folder for the log and the trained models")
    else:
        run(options.task, options.source, options.work, options.seeds)


if __name__ == "__main__":
    main()
