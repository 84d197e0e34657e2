"""The cost of Ray Data in scoring a block, compared with a plain loop of pyarrow and torch in as many processes.

    python -m benchmarks.speed.scoring kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.speed.scoring complete-journey --work WORK
    python -m benchmarks.speed.scoring simulated --work WORK

A log is repeated, with new ids each time, until it has `--rows` rows, and is scored under three checkpoints of a DNN 400x400x400. The
plain loop reads Parquet and computes the scores of all rows, nothing else; `diet-ray distill` also checks every file against its manifest
and selects rows. Both times include the start of the processes; both are also timed on a block of a few rows, which gives the time of the
start. Figures go to benchmarks/results/scoring.json; `scaling.py` writes them into docs/scaling.md. With the default of 3 million rows and
two rounds it takes about 10 minutes on two cores; `--rows 20000000 --rounds 1` about 35.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.common.machine import Machine, watched
from benchmarks.common.repeated_log import part_of, repeated, source_log
from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed.plain_loop import HIDDEN, score_plainly
from benchmarks.speed.scoring_figures import Contender, Figures, Parts, Run, ScoringResult
from diet_ray.candidates import CandidateSpec
from diet_ray.config import BudgetConfig, ClusterConfig, ReferenceConfig, StreamConfig
from diet_ray.distill.score import ScoreJob, Scorer
from diet_ray.distill.select import Sketch, merge, merge_as_they_come
from diet_ray.distill.sharded_memory import LocalShards
from diet_ray.engine.cluster import connect
from diet_ray.logs.block_rows import BlockRows
from diet_ray.logs.blocks import BlockManifest, Log, LogShard, read_shard
from diet_ray.storage.tensors import save_tensors
from diet_ray.training.reference import Reference
from diet_ray.training.workers import Solo

CHECKPOINTS = 3
SHARE = 0.01
"""Share of the block's rows that are selected as units."""


def the_config(log: Path, workers: int) -> StreamConfig:
    """A config for scoring; keys that scoring does not use have their defaults."""
    net = CandidateSpec(name="dnn", arch="dnn", params={"hidden": HIDDEN}, adapter=False)
    return StreamConfig(
        log=log,
        reference=ReferenceConfig(nets=[net], checkpoints=CHECKPOINTS),
        budget=BudgetConfig(ratio=SHARE),
        cluster=ClusterConfig(scorers=workers, cpus_per_scorer=1),
    )


def write_checkpoints(log: Log, work: Path) -> list[Path]:
    """Checkpoints of three untrained references, whose predictions cost the same as those of trained ones."""
    paths = [work / f"checkpoint-{k}.safetensors" for k in range(CHECKPOINTS)]
    config = the_config(log.path, 1).reference
    for seed, path in enumerate(paths):
        reference = Reference(log.schema, config.nets, config, n_ids=log.blocks[-1].n_ids, seed=seed)
        save_tensors(path, reference.checkpoint())
    return paths


def score_by_ray(log: Log, block: BlockManifest, checkpoints: list[Path], workers: int, units: int) -> Sketch:
    """Score as `diet-ray distill` does. Ray must be initialised."""
    from diet_ray.engine.ray_engine import RayEngine

    engine = RayEngine(Solo(), cast(Any, LocalShards(1)))
    job = ScoreJob.of(log, block, checkpoints, the_config(log.path, workers), keep=units, seed=0)
    return engine.score(job, BlockRows(log, block))


def timed(
    path: Contender, log: Log, block: BlockManifest, checkpoints: list[Path], workers: int, units: int
) -> tuple[Run, Any]:
    """Score a block; returns the measurements and the result of the scoring."""
    with watched(0.25) as watch:
        began = time.perf_counter()
        if path == "ray":
            output: Any = score_by_ray(log, block, checkpoints, workers, units)
        else:
            shards = [log.shard_path(block, shard) for shard in block.shards]
            output = score_plainly(shards, checkpoints, workers)
        seconds = time.perf_counter() - began
    return Run(path=path, workers=workers, rows=block.rows, seconds=round(seconds, 3), peak=watch.peak()), output


def measure_parts(log: Log, block: BlockManifest, checkpoints: list[Path], units: int) -> tuple[Parts, int]:
    """The cost of each part on its own, and the bytes of a sketch. Merging is measured with a sketch that is already full."""
    torch.set_num_threads(1)
    shard: LogShard = block.shards[0]
    scorer = Scorer(ScoreJob.of(log, block, checkpoints, the_config(log.path, 1), keep=units, seed=0))
    read, rows = _seconds(lambda: read_shard(log.shard_path(block, shard), shard, log.schema))
    score, _ = _seconds(lambda: scorer.score(rows))
    both, sketch = _seconds(lambda: scorer.sketch_shard(shard))
    send, data = _seconds(lambda: sketch.to_ipc())
    more_sketches = (scorer.sketch_shard(other) for other in block.shards[1:3])
    whole = merge_as_they_come([sketch, *more_sketches], keep=units)
    merging, _ = _seconds(lambda: merge([whole, Sketch.from_ipc(data)], keep=units))
    parts = {"read": read, "score": score, "sketch": max(0.0, both - read - score), "send": send, "merge": merging}
    return Parts(**{name: seconds / shard.rows for name, seconds in parts.items()}), len(data)


def _seconds(do: Callable[[], Any]) -> tuple[float, Any]:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        output = do()
        times.append(time.perf_counter() - began)
    return median(times), output


def run(name: str, source: Path | None, work: Path, rows: int, rounds: int, workers: int) -> ScoringResult:
    """Measure. Ray must be initialised."""
    machine = Machine.here()
    log = repeated(source_log(name, source, work), work / f"{name}-{rows}", rows)
    if log.schema.n_slots != log.schema.n_fields:
        raise SystemExit(f"{name}: has a field of several values, which the plain loop does not support")
    few, many = log.blocks
    checkpoints, units = write_checkpoints(log, work), max(1, round(rows * SHARE))
    blocks = [
        (many, workers),
        (part_of(many, len(many.shards) // 4), 1),
        (part_of(many, len(many.shards) // 4), workers),
    ]
    blocks += [(part_of(few, n), n) for n in (1, workers)]
    runs = []
    for _ in range(rounds):
        for block, n in blocks:
            outputs: dict[Contender, Any] = {}
            # One directly after the other, so that other work on the machine affects both.
            for path in ("plain", "ray"):
                timing, outputs[path] = timed(path, log, block, checkpoints, n, units)
                runs.append(timing)
                print(
                    f"{path:5} {n} workers {block.rows:>10,} rows {timing.seconds:8.1f} s "
                    f"{timing.peak / 2**20:6.0f} MiB",
                    flush=True,
                )
            if block.rows <= units:
                check(outputs["ray"], outputs["plain"])
    parts, sketch_bytes = measure_parts(log, many, checkpoints, units)
    weights = load_file(checkpoints[0])
    return ScoringResult(
        machine=machine,
        log=name,
        rows=many.rows,
        shard_rows=many.shards[0].rows,
        shards=len(many.shards),
        shard_bytes=sum(shard.bytes for shard in many.shards),
        fields=log.schema.n_fields,
        dim=weights["table"].shape[1],
        n_ids=weights["table"].shape[0],
        parameters=sum(values.numel() for key, values in weights.items() if key != "table"),
        checkpoints=CHECKPOINTS,
        units=units,
        sketch_bytes=sketch_bytes,
        parts=parts,
        runs=runs,
    )


def check(sketch: Sketch, plain: float) -> None:
    """Check that both paths have computed the same scores; `sketch` holds all rows."""
    _, first = np.unique(sketch.scored.rows.row_id, return_index=True)
    ours = float(sketch.scored.score[first].astype(np.float64).sum())
    assert abs(ours - plain) <= 1e-4 * abs(plain), f"the scores differ: {ours} against {plain}"


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=["kuairand", "complete-journey", "simulated"])
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path, required=True, help="folder for logs and checkpoints")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "scoring.json")
    options = parser.parse_args()
    # By default Ray gives its workers a lower priority than other processes; the plain loop has normal priority.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with connect(cpus=options.workers):
        result = run(options.log, options.source, options.work, options.rows, options.rounds, options.workers)
    options.out.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    figures = Figures(result)
    show(figures.columns(), figures.rows(), f"Scoring {result.log}: {result.machine}")
    show(["ratio", "found", "aim"], figures.ratios(), "Ratios")


if __name__ == "__main__":
    main()
