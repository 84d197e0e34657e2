"""The cost of late stages compared with early ones: a hundred blocks of a drifting log, with a fixed and with a growing memory.

    python -m benchmarks.speed.stream --work WORK

The log is simulated as by `diet-ray simulate`, and distilled twice by the engine without Ray, in this process and one thread: with
`budget.cap`, where time and memory of a stage must not grow, and with `budget.ratio`, where they may grow only in proportion to the number
of units. All bytes that a cluster would send between a worker and the shards of the memory are counted. Figures go to
benchmarks/results/stream.json; `scaling.py` writes them into docs/scaling.md. The default takes about 8 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import theilslopes
from torch import Tensor

from benchmarks.common.machine import Machine, own_memory, watched
from benchmarks.common.repeated_log import write_block
from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import RESULTS
from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import BudgetConfig, RefineConfig, StreamConfig, StudentConfig
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import begin, run_stage
from diet_ray.distill.sharded_memory import LocalShards, ShardedMemory
from diet_ray.logs.blocks import Log, LogManifest, open_log
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.labels import FIRST_DAY, draw
from diet_ray.memory.events import Events, read_events
from diet_ray.memory.run_folder import open_run
from diet_ray.memory.units import Units
from diet_ray.settings import Settings, write_json
from diet_ray.storage.whole_folder import appearing

EARLY, LATE = range(8, 13), range(96, 101)
"""Stages that are compared, counted from 1; several, because a single stage is noisy."""
STEPS = ("reference", "score", "select", "align", "fuse", "refine", "commit")


class StageFigures(Settings):
    """The figures of one stage."""

    units: int
    """Units of the memory after the stage."""
    seconds: float
    """Wall time."""
    cpu: float
    """CPU seconds of the process; other work on the machine affects them less than wall time."""
    peak: int
    """Largest memory of the process in bytes, without mapped files."""
    steps: dict[str, float]
    """Seconds of each step."""
    moved: dict[str, int]
    """Bytes sent to and received from the shards of the memory, by the called method."""
    written: int
    """Bytes of the stage's folder."""


class StreamResult(Settings):
    """The figures of this benchmark."""

    machine: Machine
    rows: int
    """Per block."""
    config: StreamConfig
    """Config of the run with a cap; the other run differs only in its budget."""
    ratio: float
    """The budget of the other run."""
    fields: int
    """F."""
    tasks: int
    """T."""
    n_ids: int
    """Rows of the table."""
    parameters: int
    """Parameters of the committee."""
    proxy_parameters: int
    """Parameters of the first proxy."""
    cap: list[StageFigures]
    """The run with a memory of fixed size."""
    grown: list[StageFigures]
    """The run with a memory that grows."""


class CountingShards(LocalShards):
    """Shards in this process that count the bytes that a cluster would send."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.moved: Counter[str] = Counter()

    def call(self, method: str, *arguments: Any, each: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """See `Shards.call`."""
        results = super().call(method, *arguments, each=each)
        per_shard = each if each is not None else [arguments] * self.size
        self.moved[method] += n_bytes(per_shard) + n_bytes(results)
        return results


def n_bytes(value: Any) -> int:
    """Bytes of all arrays in a value."""
    if isinstance(value, np.ndarray | Tensor):
        return int(value.nbytes)
    if isinstance(value, Units):
        return sum(n_bytes(getattr(value, part.name)) for part in fields(value))
    return sum(n_bytes(part) for part in value) if isinstance(value, list | tuple) else 0


def drifting_log(out: Path, rows: int, blocks: int) -> Log:
    """The log that `diet-ray simulate` writes by default, but with one shard per block; made if it does not exist yet."""
    if not out.exists():
        config = SimulateConfig(rows=rows, blocks=blocks)
        schema, names = config.log_schema, [str(FIRST_DAY + block) for block in range(blocks)]
        with appearing(out, "log") as folder:
            for block, name in enumerate(names):
                part = iter([draw(config, block, 0, rows)])
                write_block(folder / "blocks" / name, block, part, int(schema.first_static_id[-1]))
            write_json(folder / "log.json", LogManifest(log_schema=schema, blocks=names))
    return open_log(out)


def the_config(log: Path, budget: BudgetConfig, blocks: int) -> StreamConfig:
    """The default reference; a short horizon and few rounds, so that a hundred stages take minutes."""
    return StreamConfig(
        log=log,
        blocks=blocks,
        budget=budget,
        student=StudentConfig(steps=40, batch_size=128),
        refine=RefineConfig(
            rounds=4,
            window=10,
            proxies=[CandidateSpec(name="dnn", arch="dnn", params={"hidden": (128, 64)})],
            hard_batch=512,
            active=2048,
            address_every=2,
        ),
    )


def distil(run: Path, log: Log, config: StreamConfig) -> list[StageFigures]:
    """Distil the blocks and measure each stage."""
    shutil.rmtree(run, ignore_errors=True)
    engine, shards = LocalEngine(config), CountingShards(config.cluster.memory_shards)
    engine.memory = ShardedMemory(shards)
    torch.set_num_threads(config.cluster.threads_per_worker)
    stream = begin(run, log, config, engine, Events(run / "events.jsonl"), open_run(run, config, resume=False))
    figures, offset = [], 0
    with watched(0.05, lambda: own_memory(os.getpid())) as watch:
        for block in log.blocks[: config.blocks]:
            shards.moved.clear()
            began, cpu = time.time(), time.process_time()
            run_stage(stream, block)
            ended, cpu = time.time(), time.process_time() - cpu
            events, offset = read_events(run / "events.jsonl", offset)
            folder = run / "stages" / f"{block.index:04d}"
            figures.append(
                StageFigures(
                    units=len(engine.memory),
                    seconds=round(ended - began, 4),
                    cpu=round(cpu, 4),
                    peak=watch.peak(began, ended),
                    steps={event["step"]: event["seconds"] for event in events if event["kind"] == "step"},
                    moved={name: n for name, n in sorted(shards.moved.items()) if n},
                    written=sum(path.stat().st_size for path in folder.iterdir()),
                )
            )
            # Only the next stage needs the files of a stage.
            if block.index:
                shutil.rmtree(run / "stages" / f"{block.index - 1:04d}")
    return figures


def run(work: Path, rows: int, blocks: int, cap: int, ratio: float) -> StreamResult:
    """Distil the log twice."""
    machine = Machine.here()
    log = drifting_log(work / f"log-{rows}-{blocks}", rows, blocks)
    capped = the_config(log.path, BudgetConfig(cap=cap), blocks)
    runs = {}
    for name, config in (("cap", capped), ("grown", the_config(log.path, BudgetConfig(ratio=ratio), blocks))):
        runs[name] = distil(work / name, log, config)
        last, seconds = runs[name][-1], sum(stage.seconds for stage in runs[name])
        print(f"{name}: {seconds:.0f} s, {last.units:,} units at the end", flush=True)
    schema, nets, dim = log.schema, capped.reference.nets, capped.reference.dim

    def size(specs: list[CandidateSpec]) -> int:
        built = [build(spec, schema.field_names, dim, schema.n_tasks, seed=0) for spec in specs]
        return sum(weight.numel() for net in built for weight in net.parameters())

    return StreamResult(
        machine=machine,
        rows=rows,
        # The path of the log does not matter.
        config=capped.model_copy(update={"log": Path("log")}),
        ratio=ratio,
        fields=schema.n_fields,
        tasks=schema.n_tasks,
        n_ids=log.blocks[-1].n_ids,
        parameters=size(nets),
        proxy_parameters=size(capped.refine.proxies[:1]),
        cap=runs["cap"],
        grown=runs["grown"],
    )


def among(stages: list[StageFigures], which: range) -> list[StageFigures]:
    """The stages with the numbers `which`; of a shorter run, those of them that it has, or its last stage if it has none."""
    return [stages[number - 1] for number in which if number <= len(stages)] or stages[-1:]


def at(stages: list[StageFigures], which: range, figure: str) -> float:
    """Median over some stages of the seconds of a step, or of `seconds`, `cpu`, `peak` or `units`."""
    chosen = among(stages, which)
    return median(stage.steps[figure] if figure in STEPS else getattr(stage, figure) for stage in chosen)


def line(stages: list[StageFigures], step: str) -> tuple[float, float]:
    """Seconds of a step as `a + b * units`: the line with the median slope between two stages (Theil 1950, Sen 1968), which is robust to
    single disturbed stages."""
    seconds, units = [stage.steps[step] for stage in stages], [stage.units for stage in stages]
    fitted = cast(Any, theilslopes(seconds, units, method="joint"))
    return float(fitted.intercept), float(fitted.slope)


def ratios(result: StreamResult) -> list[list[str]]:
    """Name, result and target of each ratio."""
    rows = []
    for name, stages in (("cap", result.cap), ("ratio", result.grown)):
        single = range(min(10, len(stages)), min(10, len(stages)) + 1), range(len(stages), len(stages) + 1)
        for figure, title in (("seconds", "seconds"), ("cpu", "CPU seconds"), ("peak", "peak memory")):
            for (early, late), which in (((EARLY, LATE), "stages 96-100 over 8-12"), (single, "stage 100 over 10")):
                ratio = at(stages, late, figure) / at(stages, early, figure)
                rows.append([f"{name}: {title}, {which}", f"{ratio:.2f}", "0.9 to 1.1" if name == "cap" else ""])
    return rows


def steps_table(result: StreamResult) -> tuple[list[str], list[list[str]]]:
    """Seconds of each step in early and late stages, and the additional time per unit."""
    stages = "stages 8-12", "96-100"
    columns = ["seconds", f"cap: {stages[0]}", stages[1], f"ratio: {stages[0]}", stages[1], "microseconds per unit"]
    runs = [(run, which) for run in (result.cap, result.grown) for which in (EARLY, LATE)]
    slopes = {step: f"{1e6 * line(result.grown, step)[1]:.2f}" for step in STEPS}
    titles = {"seconds": "whole stage", "cpu": "whole stage, CPU"}
    rows = [
        [titles.get(figure, figure), *(f"{at(run, which, figure):.3f}" for run, which in runs), slopes.get(figure, "")]
        for figure in (*STEPS, "seconds", "cpu")
    ]
    rows.append(["peak, MiB", *(f"{at(run, which, 'peak') / 2**20:,.0f}" for run, which in runs), ""])
    rows.append(["units", *(f"{at(run, which, 'units'):,.0f}" for run, which in runs), ""])
    return columns, rows


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the runs")
    parser.add_argument("--rows", type=int, default=10_000, help="per block")
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--cap", type=int, default=5_000)
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=RESULTS / "stream.json")
    options = parser.parse_args()
    result = run(options.work, options.rows, options.blocks, options.cap, options.ratio)
    options.out.write_text(result.model_dump_json() + "\n", encoding="utf-8")
    show(*steps_table(result), f"{options.blocks} stages of {options.rows:,} rows: {result.machine}")
    show(["ratio", "found", "aim"], ratios(result), "Ratios")


if __name__ == "__main__":
    main()
