"""Choice of the students' learning rate, so that candidates rank as on the full log: on earlier blocks, with a few anchors.

    python -m benchmarks.fidelity.protocol kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.fidelity.protocol complete-journey-later --work ANOTHER

WORK may be that of `published_logs.py`. Anchors are a few candidates whose order on the full log is measured once. They are trained on the
full log of the earlier blocks, and on the memory of these blocks with each setting of the students. They are judged on the last blocks on
which the bench trains, as many as the blocks on which the bench judges. The bench then judges the choice on later blocks, where candidates
other than the anchors show whether it generalises. Figures go to benchmarks/results; `ablations.py docs` writes them to the docs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter

from benchmarks.common.tables import markdown
from benchmarks.fidelity.published_logs import LOGS, RESULTS, config, ingested
from diet_ray.candidates import default_pool
from diet_ray.engine.cluster import connect
from diet_ray.judge.fidelity.config import DIET, FidelityConfig
from diet_ray.judge.fidelity.measures import MEASURES, Interval
from diet_ray.judge.fidelity.words import cell
from diet_ray.report.progress import Counted, display

ANCHORS = (
    "lr", "fm", "dnn", "dlrm", "deepfm", "dcnv2", "wukong", "autoint", "dnn-large", "dnn-dropout", "dnn-lr-low", "dnn-lr-high",
)  # fmt: skip
"""The candidates of the default pool at the extremes of what it varies."""

LR = (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2)
"""The students' learning rates to choose from."""

SHOWN = ("pairs_right", "spearman", "auc_gap_mean")

Chosen = dict[str, dict[str, dict[str, Interval]]]
"""`{learning rate: {task: {measure: interval}}}`, over the anchors."""


def of_anchors(name: str, work: Path, method: str) -> dict[str, Any]:
    """The bench's config with the anchors as candidates and one set, not validated yet, so that the caller can change it."""
    anchors = work / "anchors.yaml"
    pool = [spec.model_dump(mode="json") for spec in default_pool().candidates if spec.name in ANCHORS]
    anchors.write_text(yaml.safe_dump({"candidates": pool}), encoding="utf-8")
    base = config(name, work, seeds=3).model_dump(mode="json")
    base |= {
        "candidates": str(anchors),
        "methods": [method],
        "differences": [],
        "cache": str(work / "report" / "cache"),
    }
    return base | {"curve": {"ratios": [], "methods": []}, "stages": {"candidates": [], "methods": []}}


def earlier(name: str, work: Path, lr: float) -> FidelityConfig:
    """The bench on the anchors and the earlier blocks, with one learning rate of the students."""
    base = of_anchors(name, work, str(DIET)) | {"more_candidates": []}
    base["stream"]["blocks"] = LOGS[name].learned - base["test_blocks"]
    base["stream"]["student"] |= {"lr": lr}
    return FidelityConfig.model_validate(base)


def run(name: str, source: Path | None, work: Path) -> None:
    """Measure every learning rate on a log's earlier blocks."""
    from diet_ray.engine.bench_driver import fidelity

    by_rate: Chosen = {}
    with display(quiet=False) as shown, connect():
        count = Counted(shown)
        ingested(name, source, work, count)
        for lr in LR:
            shown.line(f"lr {lr:g}")
            result, _ = fidelity(earlier(name, work, lr), work / "protocol", count)
            (memory_set,) = [result_set for result_set in result.sets if result_set.name == str(DIET)]
            by_rate[f"lr {lr:g}"] = {task: groups["all"] for task, groups in memory_set.fidelity.items()}
            for task, measured in by_rate[f"lr {lr:g}"].items():
                shown.line(f"  {task}: " + intervals_of(measured, SHOWN))
    text = TypeAdapter(Chosen).dump_json(by_rate)
    (RESULTS / f"protocol_{name}.json").write_text(text.decode() + "\n", encoding="utf-8")


def intervals_of(measured: dict[str, Interval], keys: tuple[str, ...]) -> str:
    """Some measures as one line of progress."""
    return ", ".join(f"{key} {measured[key].value:.4f}" for key in keys)


def chosen() -> str:
    """A table of all learning rates for each measure, from the figures; empty where there are none."""
    by_log = {
        name: TypeAdapter(Chosen).validate_json((RESULTS / f"protocol_{name}.json").read_bytes())
        for name in LOGS
        if (RESULTS / f"protocol_{name}.json").exists()
    }
    columns = [(name, task) for name, settings in by_log.items() for task in next(iter(settings.values()))]
    titles = [f"{LOGS[name].title}: {task}" for name, task in columns]
    parts = []
    for key in SHOWN if by_log else ():
        rows = []
        for rate in next(iter(by_log.values())):
            measured = [by_log[name][rate][task][key] for name, task in columns]
            mean = float(np.mean([interval.value for interval in measured]))
            rows.append([rate, *(cell(key, interval, " ") for interval in measured), f"{mean:.4f}"])
        parts += [f"### {MEASURES[key].title}", markdown(["students", *titles, "mean"], rows)]
    return "\n\n".join(parts)


def main() -> None:
    """Measure all learning rates on a log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=LOGS)
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    run(options.log, options.source, options.work)


if __name__ == "__main__":
    main()
