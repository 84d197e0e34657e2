"""How well do candidates trained on 1 % of KuaiRand stand for candidates trained on all of it? One table, one JSON.

    python benchmarks/kuairand_table.py --source FOLDER_OF_KUAIRAND --out benchmarks/results

The log is cut into 14 day-blocks; 12 are distilled, the last two judge. Every candidate is trained on the full log (embeddings of its own,
one pass per block) and on each reduced set (as many rows or units, the memory's 200 steps), with the same seeds. The reference is trained
once. About 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from diet_ray.baselines import as_examples, full_log, random_rows, sample_own
from diet_ray.blocks import Rows, open_log
from diet_ray.candidates import CandidateSpec, default_pool
from diet_ray.cluster import connect
from diet_ray.config import RefineConfig, StreamConfig
from diet_ray.dataset import load_memory
from diet_ray.engine import distil
from diet_ray.ingest import ingest
from diet_ray.judge import Verdict, judge, standings
from diet_ray.progress import display, follow
from diet_ray.readers import READERS
from diet_ray.reference import Predictor, load_tensors
from diet_ray.seeds import derive_seed
from diet_ray.store import stage_folder
from diet_ray.summary import summarise

TRAIN_BLOCKS = 12
TASK = "is_click"
FULL = "full log"
METHODS = {
    "random rows, own embeddings, hard labels": ("own", False),
    "random rows, reference embeddings, hard labels": ("random-hard", False),
    "random rows, reference embeddings, soft labels": ("random-soft", False),
    "the same, with adapter": ("random-soft", True),
    "p ~ EL2N, re-embedded, relabelled": ("unrefined", False),
    "the same, with adapter ": ("unrefined", True),
    "the same, refined": ("refined", True),
}


def candidates() -> list[CandidateSpec]:
    """The nine architectures of the table and six experiments with a field dropped."""
    archs = [*default_pool().candidates, CandidateSpec(name="dnn-large", arch="dnn", params={"hidden": (512, 256)})]
    dropped = ["user_id", "video_id", "author_id", "tab", "hour", "duration"]
    return archs + [CandidateSpec(name=f"dnn-no-{name}", arch="dnn", drop_fields=[name]) for name in dropped]


def train(log_path: Path, runs: dict[str, Path], spec: CandidateSpec, method: str, seed: int) -> Verdict:
    """One candidate, one method, one seed."""
    log = open_log(log_path)
    seen, test = log.blocks[:TRAIN_BLOCKS], Rows.concat([log.read_block(block) for block in log.blocks[TRAIN_BLOCKS:]])
    memory = load_memory(runs["unrefined"])
    stage = memory.stage
    if method == FULL:
        return full_log(spec, log, seen, test, stage.config.reference, seed=seed)
    source, adapter = METHODS[method]
    spec = spec.model_copy(update={"adapter": adapter})
    sample = random_rows(log, seen, len(memory), seed=derive_seed(seed, "sample"))
    if source == "own":
        config, student = stage.config.reference, stage.config.student
        return sample_own(spec, log, sample, test, config, student, n_ids=stage.n_ids, seed=seed)
    if source in runs:
        memory = load_memory(runs[source])
        examples = memory.examples()
    else:
        weights = load_tensors(stage_folder(runs["unrefined"], stage.index) / stage.checkpoints[-1].path)
        phi = Predictor(log.schema, stage.config.reference.net, weights)
        examples = as_examples(sample, phi, soft=source == "random-soft")
    return judge(spec, examples, memory.table, test, log.schema, stage.config.student, seed=seed, trained_on=method)


@ray.remote(num_cpus=1)
def train_elsewhere(*arguments: Any) -> str:
    """`train` on some node of the cluster."""
    import torch

    torch.set_num_threads(1)
    return train(*arguments).model_dump_json()


def line(method: str, verdicts: list[Verdict], full: dict[str, float], archs: set[str]) -> dict[str, Any]:
    """One row of the table: per seed, then mean over seeds."""
    found = {name: np.mean([v.metrics[TASK]["auc"] for v in verdicts if v.candidate == name]) for name in full}
    names = list(full)
    only = [name for name in names if name in archs]

    def rank(which: list[str]) -> float:
        return float(spearmanr([full[n] for n in which], [found[n] for n in which]).statistic)

    return {
        "method": method,
        "auc_gap": float(np.mean([abs(full[n] - found[n]) for n in names])),
        "auc_gap_archs": float(np.mean([abs(full[n] - found[n]) for n in only])),
        "spearman": rank(names),
        "spearman_archs": rank(only),
        "cpu_seconds": float(np.mean([v.train_seconds for v in verdicts])),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=RefineConfig().rounds)
    options = parser.parse_args()
    began = time.perf_counter()
    reader, specs = READERS["kuairand"], candidates()
    archs = {spec.name for spec in specs if not spec.drop_fields}
    with tempfile.TemporaryDirectory() as scratch, display(quiet=False) as shown, connect():
        work = Path(scratch)
        ingest(reader.schema, reader.prepare(options.source, work / "prepared"), work / "log", by="day")
        log = open_log(work / "log")
        runs = {}
        for name, rounds in (("unrefined", 0), ("refined", options.rounds)):
            runs[name] = work / name
            config = StreamConfig(log=log.path, blocks=TRAIN_BLOCKS, refine=RefineConfig(rounds=rounds))
            blocks = [(block.name, block.rows) for block in log.blocks[:TRAIN_BLOCKS]]
            with follow(runs[name], blocks, shown):
                distil(runs[name], config)
        summaries = {name: summarise(run) for name, run in runs.items()}
        tasks = [(spec, method, seed) for method in (FULL, *METHODS) for spec in specs for seed in range(options.seeds)]
        pending = [train_elsewhere.remote(log.path, runs, *task) for task in tasks]
        waiting = pending
        while waiting:
            _, waiting = ray.wait(waiting)
            shown.status(f"trainings {len(pending) - len(waiting)}/{len(pending)}")
        # `adapter` is part of the method here, so the record says the method's name, not the training function's.
        verdicts = [
            Verdict.model_validate_json(found).model_copy(update={"trained_on": method})
            for (_, method, _), found in zip(tasks, ray.get(pending), strict=True)
        ]
        rows, units = summaries["unrefined"].rows, summaries["unrefined"].units
        test_rows = sum(block.rows for block in log.blocks[TRAIN_BLOCKS:])
    by = {method: [v for v in verdicts if v.trained_on == method] for method in (FULL, *METHODS)}
    full = {s.name: float(np.mean([v.metrics[TASK]["auc"] for v in by[FULL] if v.candidate == s.name])) for s in specs}
    halves = [{v.candidate: v.metrics[TASK]["auc"] for v in by[FULL] if v.seed == seed} for seed in (0, 1)]
    ceiling = float(spearmanr(list(halves[0].values()), list(halves[1].values())).statistic)
    result = {
        "command": f"python benchmarks/kuairand_table.py --source FOLDER --out DIR --seeds {options.seeds} --rounds {options.rounds}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "log": "KuaiRand-Pure, 25 April to 8 May 2022, is_click",
        "rows": rows,
        "test_rows": test_rows,
        "units": units,
        "memory_bytes": {name: summary.memory_bytes for name, summary in summaries.items()},
        "table_bytes": summaries["unrefined"].table_bytes,
        "student_steps": StreamConfig(log=Path()).student.steps,
        "seeds": options.seeds,
        "reference_seeds": 1,
        "full_log_auc": full,
        "full_log_cpu_seconds": float(np.mean([v.train_seconds for v in by[FULL]])),
        "spearman_full_seed_0_vs_1": ceiling,
        "lines": [line(method, by[method], full, archs) for method in METHODS],
        "stages_refined_kept": [stage.refined for stage in summaries["refined"].stages],
        "distil_seconds": {name: summary.seconds for name, summary in summaries.items()},
        "wall_seconds": round(time.perf_counter() - began, 1),
        "standings": [one.model_dump() for one in standings(verdicts)],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kuairand_table.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = Table(
        title=f"{result['log']}: {rows:,} rows -> {units:,} units; {len(specs)} candidates, {options.seeds} seeds"
    )
    for heading in ("trained on", "AUC gap", "gap, archs", "Spearman", "Spearman, archs", "CPU s"):
        table.add_column(heading, justify="left" if heading == "trained on" else "right")
    for one in result["lines"]:
        table.add_row(
            one["method"],
            *(f"{one[key]:.4f}" for key in ("auc_gap", "auc_gap_archs")),
            *(f"{one[key]:.2f}" for key in ("spearman", "spearman_archs")),
            f"{one['cpu_seconds']:.2f}",
        )
    table.add_row(
        "full log, seed 0 against seed 1", "", "", f"{ceiling:.2f}", "", f"{result['full_log_cpu_seconds']:.2f}"
    )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
