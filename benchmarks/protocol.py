"""How should students learn, so that candidates rank as the full log ranks them? Chosen on earlier blocks with a few anchors.

    python benchmarks/protocol.py kuairand --work WORK
    python benchmarks/protocol.py complete-journey --work WORK

WORK is that of `published_logs.py`, which must have run. Anchors are candidates whose order on the full log is worth knowing once: they
are trained on the earlier blocks' full log and on their memory under each of the students' settings, and judged on the two blocks before
those that the bench keeps for its verdict. What is chosen so is judged by the bench on later blocks, where candidates other than the
anchors show whether the choice carries over. Figures go to benchmarks/results; `ablations.py docs` writes them out.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from published_logs import LOGS, RESULTS, config, markdown
from pydantic import TypeAdapter

from diet_ray.candidates import default_pool
from diet_ray.cluster import connect
from diet_ray.fidelity.config import DIET, FidelityConfig
from diet_ray.fidelity.measures import MEASURES, Interval
from diet_ray.fidelity.words import cell
from diet_ray.progress import Counted, display

ANCHORS = (
    "lr", "fm", "dnn", "dlrm", "deepfm", "dcnv2", "wukong", "autoint", "dnn-large", "dnn-dropout", "dnn-lr-low", "dnn-lr-high",
)  # fmt: skip
"""Of the default pool: what it varies, at its extremes."""

LR = (5e-3, 1e-2, 2e-2, 4e-2, 8e-2)
DRAW = (0.75, 1.0)

Chosen = dict[str, dict[str, dict[str, Interval]]]
"""`{setting: {task: {measure: interval}}}`, over the anchors."""


def setting(lr: float, draw: float) -> str:
    """How a setting is written."""
    return f"lr {lr:g}, {draw:.0%} drawn"


def earlier(name: str, work: Path, lr: float, draw: float) -> FidelityConfig:
    """The bench on the anchors and the earlier blocks, with one setting of the students."""
    anchors = work / "protocol" / "anchors.yaml"
    anchors.parent.mkdir(parents=True, exist_ok=True)
    pool = [spec.model_dump(mode="json") for spec in default_pool().candidates if spec.name in ANCHORS]
    anchors.write_text(yaml.safe_dump({"candidates": pool}), encoding="utf-8")
    base = config(name, work, seeds=3).model_dump(mode="json")
    base["stream"]["blocks"] = LOGS[name].learned - base["test_blocks"]
    base["stream"]["student"] |= {"lr": lr, "draw": draw}
    base |= {"candidates": str(anchors), "more_candidates": [], "methods": [str(DIET)], "differences": []}
    base |= {"curve": {"ratios": [], "methods": []}, "stages": {"candidates": [], "methods": []}}
    return FidelityConfig.model_validate(base | {"cache": str(work / "report" / "cache")})


def run(name: str, work: Path) -> None:
    """Measure every setting on a log's earlier blocks."""
    from diet_ray.fidelity.bench import fidelity

    found: Chosen = {}
    with display(quiet=False) as shown, connect():
        for lr, draw in product(LR, DRAW):
            shown.line(setting(lr, draw))
            result, _ = fidelity(earlier(name, work, lr, draw), work / "protocol" / "report", Counted(shown))
            (one,) = [one for one in result.sets if one.name == str(DIET)]
            found[setting(lr, draw)] = {task: groups["all"] for task, groups in one.fidelity.items()}
            for task, measured in found[setting(lr, draw)].items():
                told = (f"{key} {measured[key].value:.4f}" for key in ("pairs_right", "spearman", "auc_gap_mean"))
                shown.line(f"  {task}: {', '.join(told)}")
    text = TypeAdapter(Chosen).dump_json(found)
    (RESULTS / f"protocol_{name}.json").write_text(text.decode() + "\n", encoding="utf-8")


def chosen() -> list[str]:
    """The part of docs/ablations.md on the students' settings, from the figures."""
    parts = [
        "## How the students' settings were chosen",
        "By `python benchmarks/protocol.py LOG --work WORK`, without a look at the blocks that judge above: on each log the last two "
        "blocks learned from were the judges, what lay before them was learned from, and "
        f"{len(ANCHORS)} anchors ({', '.join(ANCHORS)}) were to be ordered.",
        "The default is the setting that decides the largest share of pairs rightly, in the mean over logs and tasks.",
    ]
    found = {
        name: TypeAdapter(Chosen).validate_json((RESULTS / f"protocol_{name}.json").read_bytes())
        for name in LOGS
        if (RESULTS / f"protocol_{name}.json").exists()
    }
    columns = [(name, task) for name, settings in found.items() for task in next(iter(settings.values()))]
    titles = [f"{LOGS[name].title.partition(',')[0]}, {task}" for name, task in columns]
    for key in ("pairs_right", "spearman", "auc_gap_mean"):
        rows = []
        for one in next(iter(found.values()), {}):
            measured = [found[name][one][task][key] for name, task in columns]
            mean = float(np.mean([interval.value for interval in measured]))
            rows.append([one, *(cell(key, interval, " ") for interval in measured), f"{mean:.4f}"])
        parts += [f"### {MEASURES[key].title}", markdown(["students", *titles, "mean"], rows)]
    return parts


def main() -> None:
    """Run the settings on a log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=LOGS)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    run(options.what, options.work)


if __name__ == "__main__":
    main()
