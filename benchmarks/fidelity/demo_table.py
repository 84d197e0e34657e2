"""The demo's table in README.md: candidates of `diet-ray demo`, trained on its memory and in other ways, over several seeds.

    python -m benchmarks.fidelity.demo_table measure --work WORK --seeds 0,1,2
    python -m benchmarks.fidelity.demo_table docs

With seed s, the memory is that of `diet-ray demo --seed s`, and the candidates are trained with seed s. A seed takes about two minutes of
CPU time; figures go to benchmarks/results/demo.json. `measure` also makes the short demo of the tests, two weeks of the log with seed 0;
the tests hold it against the code within `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from benchmarks.common.machine import Machine
from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.fidelity.pages import README
from benchmarks.fidelity.published_logs import RESULTS
from diet_ray.candidates import CandidateSpec, default_pool
from diet_ray.config import StreamConfig
from diet_ray.demo import FULL_LOG_CANDIDATES
from diet_ray.distill.local import distil_locally
from diet_ray.figures import times
from diet_ray.judge.baselines import FULL, HARD, HARD_OWN, SOFT
from diet_ray.judge.comparison import train_otherwise
from diet_ray.judge.verdict import Verdict, judge
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.readers import READERS
from diet_ray.memory.dataset import load_memory
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.training.device import torch_threads

RESULT = RESULTS / "demo.json"
COMMAND = "python -m benchmarks.fidelity.demo_table docs"
WEEKS, SHORT = 14, 2
"""Weeks of the demo, and of the short demo of the tests."""
TOLERANCE = 0.02
"""How far an AUC or a LogLoss (nats) of the short demo may be from the one here on another processor, whose sums round otherwise."""
MEMORY = "memory"
WAYS = {
    FULL: "the full log, own embeddings",
    MEMORY: "**the memory, {units:,} units, {steps} steps**",
    SOFT: "as many random rows, reference embeddings, its probabilities as labels",
    HARD: "as many random rows, reference embeddings, hard labels",
    HARD_OWN: "as many random rows, own embeddings, hard labels",
}
"""The ways of training, as the table names them."""


class Trained(Settings):
    """One candidate, trained in one way with one seed."""

    candidate: str
    trained_on: str
    seed: int
    """Of the memory and of the candidate."""
    auc: float
    logloss: float
    """Nats."""
    cpu: float
    """CPU seconds of the training."""


class DemoFigures(Settings):
    """The results of this benchmark."""

    machine: Machine
    rows: int
    """Rows distilled."""
    units: int
    steps: int
    """Of a candidate on the memory."""
    trained: list[Trained]
    short: list[Trained]
    """The same of the short demo."""


def pool() -> list[CandidateSpec]:
    """The candidates that the demo trains in all ways."""
    return [spec for spec in default_pool().candidates if spec.name in FULL_LOG_CANDIDATES]


def made_log(work: Path, weeks: int) -> Path:
    """The demo's log, made where it is missing."""
    out, reader = work / f"log-{weeks}", READERS["complete-journey"]
    if not out.exists():
        sources = reader.prepare(None, work / "prepared")
        ingest(reader.schema, sources, out, by=reader.by, blocks=weeks)
        shutil.rmtree(work / "prepared")
    return out


def trained(log: Path, run: Path, seed: int, candidates: list[CandidateSpec]) -> list[Trained]:
    """Candidates trained in all ways with a seed; the memory is made where it is missing."""
    if not run.exists():
        distil_locally(run, StreamConfig(log=log, seed=seed))
    memory = load_memory(run)
    stage, opened = memory.stage, open_log(log)
    rows = opened.read_block(opened.blocks[stage.index + 1])
    examples, verdicts = memory.examples(), list[Verdict]()
    with torch_threads(1):
        for spec in candidates:
            verdicts += [
                judge(
                    spec,
                    examples,
                    memory.table,
                    rows,
                    opened.schema,
                    stage.config.student,
                    seed=seed,
                    trained_on=MEMORY,
                ),
                *(train_otherwise(run, spec, way, seed) for way in WAYS if way != MEMORY),
            ]
    task = opened.schema.tasks[0]
    return [
        Trained(
            candidate=one.candidate,
            trained_on=one.trained_on,
            seed=seed,
            auc=round(one.metrics[task]["auc"], 6),
            logloss=round(one.metrics[task]["logloss"], 6),
            cpu=one.train_seconds,
        )
        for one in verdicts
    ]


def measure(work: Path, seeds: list[int]) -> DemoFigures:
    """The figures of the demo with these seeds, and of the short demo."""
    machine = Machine.here()
    whole, short = made_log(work, WEEKS), made_log(work, SHORT)
    of_short = trained(short, work / "run-short", 0, pool())
    figures = [one for seed in seeds for one in trained(whole, work / f"run-{seed}", seed, pool())]
    stage = load_memory(work / f"run-{seeds[0]}").stage
    return DemoFigures(
        machine=machine,
        rows=stage.rows_seen,
        units=stage.units,
        steps=stage.config.student.steps,
        trained=figures,
        short=of_short,
    )


def table(figures: DemoFigures) -> str:
    """The README's table; its first heading says what the figures are."""
    seeds = len({one.seed for one in figures.trained})
    rows = []
    for way, words in WAYS.items():
        cells = [_cell(figures, way, name) for name in FULL_LOG_CANDIDATES]
        cpu = np.mean([one.cpu for one in figures.trained if (one.trained_on, one.candidate) == (way, "dnn")])
        rows.append([words.format(units=figures.units, steps=figures.steps), *cells, f"{cpu:.1f}"])
    of_seeds = f"means ± sd over {times(seeds, 'seed')}" if seeds > 1 else "one seed"
    return markdown([f"trained on (AUC / LogLoss, {of_seeds})", *FULL_LOG_CANDIDATES, "CPU s (dnn)"], rows)


def _cell(figures: DemoFigures, way: str, name: str) -> str:
    of_way = [one for one in figures.trained if (one.trained_on, one.candidate) == (way, name)]
    parts = []
    for values, digits in (([one.auc for one in of_way], 4), ([one.logloss for one in of_way], 3)):
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        parts.append(f"{np.mean(values):.{digits}f}{spread}".replace("0.", "."))
    return " / ".join(parts)


def readme(text: str, result: Path = RESULT) -> str:
    """The README with the table between its marks."""
    figures = parsed(DemoFigures, result)
    return filled(text, "demo", COMMAND, table(figures) if figures else NOT_YET, gap="\n")


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "docs"])
    parser.add_argument("--work", type=Path, help="folder for logs and runs; what is there is used")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas; those measured before stay")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.what == "docs":
        README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
        return
    if options.work is None:
        parser.error("measure needs --work")
    found = measure(options.work, [int(seed) for seed in options.seeds.split(",")])
    before = parse_json(DemoFigures, options.out).trained if options.out.exists() else []
    seeds = {one.seed for one in found.trained}
    both = sorted([*(one for one in before if one.seed not in seeds), *found.trained], key=lambda one: one.seed)
    write_json(options.out, found.model_copy(update={"trained": both}))


if __name__ == "__main__":
    main()
