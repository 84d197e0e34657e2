"""Ablations: the effect of each part of the method, one change at a time, measured by the fidelity bench.

    python -m benchmarks.fidelity.ablations kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.fidelity.ablations complete-journey-later --work ANOTHER
    python -m benchmarks.fidelity.ablations docs

WORK may be that of `published_logs.py`: the log and trained models are shared. Run a command again to continue after an interruption. The
figures go to benchmarks/results; the last command writes the tables of docs/ablations.md from them. Because there are many changes, only
half of the bench's candidates are used: the anchors of `protocol.py` and, for each of three fields, a DNN without it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.common.tables import NOT_YET, filled, markdown
from benchmarks.fidelity.protocol import chosen, intervals_of, of_anchors
from benchmarks.fidelity.published_logs import LOGS, RESULTS, ingested
from diet_ray.engine.cluster import connect
from diet_ray.judge.fidelity.config import DIET, FidelityConfig
from diet_ray.judge.fidelity.measures import MEASURES, Interval
from diet_ray.judge.fidelity.names import AGAIN, named
from diet_ray.judge.fidelity.result import CEILING
from diet_ray.judge.fidelity.words import cells
from diet_ray.report.progress import Counted, display

DOCS = Path(__file__).parents[2] / "docs" / "ablations.md"
DROPPED = 3
"""Candidates with a field dropped."""

COMMAND = "python -m benchmarks.fidelity.ablations docs"

KEY = ("auc_gap_mean", "auc_gap_max", "logloss_gap_mean", "spearman", "spread", "pairs_right", "top1_regret")
METHOD = str(DIET)
CEILING_TITLE = "full log, other seeds: the noise ceiling"


def _net(arch: str, **params: Any) -> dict[str, Any]:
    return {"name": arch, "arch": arch, "params": params, "adapter": False}


def _stream(key: str, **values: Any) -> dict[str, Any]:
    return {"stream": {key: values}}


ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "as it is": (METHOD, {}),
    "random rows, the same labels": ("random/drawn/shared+adapter", {}),
    "random rows, soft labels, no adapter": ("random/soft/shared", {}),
    "random rows, their own labels and embeddings": ("random/hard/own", {}),
    "full log, the same embeddings": ("full/hard/shared+adapter", {}),
    "labels: soft, nothing drawn": ("memory/soft/shared+adapter", {}),
    "labels: half drawn": (METHOD, _stream("student", draw=0.5)),
    "labels: all drawn": (METHOD, _stream("student", draw=1.0)),
    "labels: the rows' own": ("memory/hard/shared+adapter", {}),
    "students: no adapter": ("memory/drawn/shared", {}),
    "students: two, averaged": (METHOD, {"students": 2}),
    "students: lr 2.5e-3": (METHOD, _stream("student", lr=2.5e-3)),
    "students: lr 5e-3": (METHOD, _stream("student", lr=5e-3)),
    "students: lr 2e-2": (METHOD, _stream("student", lr=2e-2)),
    "students: 50 steps": (METHOD, _stream("student", steps=50)),
    "students: 100 steps": (METHOD, _stream("student", steps=100)),
    "students: 400 steps": (METHOD, _stream("student", steps=400)),
    "reference: DNN alone": (METHOD, _stream("reference", nets=[_net("dnn", hidden=(128, 64))])),
    "reference: LR alone": (METHOD, _stream("reference", nets=[_net("lr")])),
    "reference: LR and DNN": (METHOD, _stream("reference", nets=[_net("lr"), _net("dnn", hidden=(128, 64))])),
    "rows: uniform": (METHOD, _stream("select", strategy="random")),
    "rows: top EL2N": (METHOD, _stream("select", strategy="top")),
    "rows: CCS": (METHOD, _stream("select", strategy="ccs")),
    "old units: ridge": (METHOD, _stream("align", method="ridge")),
    "old units: Procrustes": (METHOD, _stream("align", method="procrustes")),
    "old units: stay as they are": (METHOD, _stream("align", method="none")),
    "old units: keep their labels": (METHOD, _stream("align", relabel=0.0)),
    "refined": ("refined/drawn/shared+adapter", {}),
}
"""Per change: the set to train on, and the changed keys of the bench's config."""

Figures = dict[str, dict[str, dict[str, dict[str, Interval]]]]
"""`{change: {task: {group: {measure: interval}}}}`."""


def ablated(name: str, work: Path, method: str, changes: dict[str, Any]) -> FidelityConfig:
    """The bench's config with one change and one set."""
    base = of_anchors(name, work, method)
    base["more_candidates"] = base["more_candidates"][:DROPPED]
    for key, value in changes.get("stream", {}).items():
        base["stream"][key] = {**base["stream"][key], **value}
    base["students"] = changes.get("students", base["students"])
    return FidelityConfig.model_validate(base)


def run(name: str, source: Path | None, work: Path) -> None:
    """Measure every change on a log."""
    from diet_ray.engine.bench_driver import fidelity

    by_change: Figures = {}
    with display(quiet=False) as shown, connect():
        count = Counted(shown)
        ingested(name, source, work, count)
        for change, (method, changes) in ABLATIONS.items():
            shown.line(change)
            result, _ = fidelity(ablated(name, work, method, changes), work / "ablations", count)
            by_name = {result_set.name: result_set.fidelity for result_set in result.sets}
            by_change = {CEILING_TITLE: by_name[CEILING]} | by_change | {change: by_name[method]}
            # Written after each change, so that the page can be made before the end.
            text = TypeAdapter(Figures).dump_json(by_change)
            (RESULTS / f"ablations_{name}.json").write_text(text.decode() + "\n", encoding="utf-8")
            for task, groups in by_change[change].items():
                shown.line(f"  {task}: " + intervals_of(groups["all"], KEY))


def tables() -> str:
    """A table of all changes for each log that has been run and each of its tasks."""
    parts = []
    for name, about in LOGS.items():
        path = RESULTS / f"ablations_{name}.json"
        if not path.exists():
            continue
        by_change = TypeAdapter(Figures).validate_json(path.read_bytes())
        for task in next(iter(by_change.values())):
            rows = [[_title(change), *cells(measured[task]["all"], KEY, " ")] for change, measured in by_change.items()]
            titles = [MEASURES[measure].title for measure in KEY]
            parts += [f"### {about.title}: {task}", markdown(["change", *titles], rows)]
    return "\n\n".join(parts) or NOT_YET


def _title(change: str) -> str:
    """A change in the words of `judge.fidelity.names` where it is nothing but another set to train on."""
    if change == CEILING_TITLE:
        return f"{AGAIN}: the noise ceiling"
    method, changes = ABLATIONS[change]
    return change if changes or method.startswith("memory/") else named(method)


def document(text: str) -> str:
    """The page with its tables, made from the figures, between the marks."""
    return filled(filled(text, "ablations", COMMAND, tables()), "protocol", COMMAND, chosen() or NOT_YET)


def main() -> None:
    """Run the ablations on a log, or write the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*LOGS, "docs"])
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.task == "docs":
        DOCS.write_text(document(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
    elif options.work is None:
        parser.error("--work: missing; give a folder for the log and the trained models")
    else:
        run(options.task, options.source, options.work)


if __name__ == "__main__":
    main()
