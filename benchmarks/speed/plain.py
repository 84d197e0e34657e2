"""The cost of the command and of Ray, and the cost of a candidate, each measured in one run on a published log.

    python -m benchmarks.speed.plain kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.speed.plain complete-journey --work WORK

The first command distils with one process that never imports Ray, with the same mathematics and two torch threads. Then it runs
`diet-ray distill`, in its own process and on a private Ray of two CPUs, with the same config. All times include the start of Python and its
imports, and all must write the same memory. The ways take turns. The whole log takes about 4 minutes on two idle cores. The second command
trains candidates on the full log and on a memory of 1 %, for several horizons, in about 5 minutes. Figures go to
benchmarks/results/plain.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.common.machine import Machine
from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import LOGS, RESULTS
from diet_ray.candidates import CandidateSpec
from diet_ray.config import StudentConfig, read_launch
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.judge.baselines import full_log
from diet_ray.judge.verdict import Verdict, judge
from diet_ray.logs.blocks import Log, open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.events import Events
from diet_ray.memory.run_folder import open_run
from diet_ray.memory.units import Units
from diet_ray.report.summary import summarise
from diet_ray.settings import Settings, parse_json, write_json

RESULT = RESULTS / "plain.json"

TARGET = 1.1
"""Target for the time of `diet-ray distill` divided by that of the plain script."""

STEPS = ("reference", "score", "select", "align", "fuse", "refine", "commit")

WAYS = ("plain script", "diet-ray distill", "diet-ray --cpus 2 distill")
"""The ways to distil: a script, by the shipped defaults, which take no Ray, and on a private Ray."""

HORIZONS = (20, 30, 50, 100, 200)
"""Steps of a student; the last is the default."""

CANDIDATES = [CandidateSpec(name=arch, arch=arch) for arch in ("fm", "dnn", "deepfm", "dcnv2")]


class Timing(Settings):
    """The times of one way to distil a log."""

    way: str
    wall: float
    """Seconds from the start of the command to its end."""
    steps: dict[str, float]
    """Seconds of each step, over all stages."""
    stages: float
    """Seconds of all stages; the rest of `wall` is the start and the end of the command."""
    same_bytes: bool
    """Whether the files of the memory have the same bytes as those of the plain script."""
    difference: float
    """Largest difference between the numbers of its units and those of the plain script; inf where the units differ."""


class Case(Settings):
    """One config, distilled in each way, first by the plain script."""

    case: str
    rows: int
    units: int
    timings: list[Timing]

    def ratio(self, timing: Timing) -> float:
        """Wall time divided by that of the plain script, both with the start of the command."""
        return timing.wall / self.timings[0].wall


class Cost(Settings):
    """The cost of a candidate trained for one horizon on the memory, and of a pass over the full log; means over seeds."""

    candidate: str
    steps: int
    full_cpu: float
    """CPU seconds on the full log."""
    memory_cpu: float
    """CPU seconds on the memory."""
    full_auc: float
    """AUC on the block after the distilled ones, trained on the full log."""
    memory_auc: float
    """AUC on the same block, trained on the memory."""

    def ratio(self) -> float:
        """CPU seconds on the full log divided by those on the memory."""
        return self.full_cpu / max(self.memory_cpu, 1e-9)


class PlainResult(Settings):
    """The results of this benchmark."""

    machines: dict[str, Machine]
    """The machine on which each of the two parts below was measured."""
    cases: list[Case]
    costs: list[Cost]


def prepare(name: str, source: Path | None, log: Path) -> None:
    """Ingest a published log unless it exists already."""
    if log.exists():
        return
    files = ["--from", str(source)] if source else []
    cli("ingest", name, *files, "--out", str(log), "--blocks", str(LOGS[name].blocks))


def cli(*arguments: str) -> None:
    """Run `diet-ray`."""
    # By default Ray gives its workers a lower priority than other processes; the plain script has normal priority.
    environment = {"RAY_worker_niceness": "0", **os.environ}
    call = [sys.executable, "-c", "from diet_ray.cli import main; main()", "--quiet", *arguments]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, env=environment)


def distil_plainly(config: Path, run: Path) -> None:
    """Distil the whole stream in this process, which must not import Ray."""
    run, stream, _ = read_launch(config, run)
    committed = open_run(run, stream, resume=False)
    run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(run / "events.jsonl"), committed)
    summarise(run)
    assert "ray" not in sys.modules, "the plain script has imported Ray"


def measure(blocks: int, turns: int, work: Path) -> Case:
    """Distil the log in all ways, which take turns; of each way the turn with the median time is kept."""
    folder = work / time.strftime("%Y%m%dT%H%M%S")
    folder.mkdir()
    config = folder / "run.yaml"
    log = str((work / "log").resolve())
    config.write_text(yaml.safe_dump({"log": log, "blocks": blocks, "cluster": {"threads_per_worker": 2}}))
    taken: dict[str, list[Timing]] = {way: [] for way in WAYS}
    plain = folder / "0-0"
    for turn in range(turns):
        for number, way in enumerate(WAYS):
            run = folder / f"{turn}-{number}"
            options = ["--config", str(config)]
            began = time.perf_counter()
            if number == 0:
                script = [sys.executable, "-m", "benchmarks.speed.plain", "one", *options, "--work", str(run)]
                subprocess.run(script, check=True)
            else:
                cli(*way.split()[1:], *options, "--out", str(run))
            taken[way].append(timing(way, time.perf_counter() - began, run, plain))
            print(f"{way}: {taken[way][-1].wall:.1f} s", flush=True)
    timings = [sorted(times, key=lambda one: one.wall)[(len(times) - 1) // 2] for times in taken.values()]
    summary = summarise(plain)
    return Case(case="default", rows=summary.rows, units=summary.units, timings=timings)


def timing(way: str, wall: float, run: Path, plain: Path) -> Timing:
    """The times of a run, and its memory compared with that of the plain script."""
    summary = summarise(run)
    memory, plain_memory = load_memory(run), load_memory(plain)
    hashes, plain_hashes = ([entry.sha256 for entry in each.stage.memory] for each in (memory, plain_memory))
    return Timing(
        way=way,
        wall=round(wall, 2),
        steps={name: round(sum(stage.steps.get(name, 0.0) for stage in summary.stages), 4) for name in STEPS},
        stages=summary.seconds,
        same_bytes=hashes == plain_hashes,
        difference=difference(memory.units, plain_memory.units),
    )


def difference(units: Units, plain_units: Units) -> float:
    """The largest difference between the float columns of two memories' units; inf where the units differ."""
    if not (np.array_equal(units.unit_id, plain_units.unit_id) and np.array_equal(units.ids, plain_units.ids)):
        return float("inf")
    columns = [field.name for field in fields(Units) if getattr(units, field.name).dtype.kind == "f"]
    return max(float(np.abs(getattr(units, name) - getattr(plain_units, name)).max()) for name in columns)


def costs(log: Log, run: Path, horizons: tuple[int, ...], seeds: int) -> list[Cost]:
    """Train candidates on the full log and on the memory of a run over the same blocks; judge them on the next block."""
    torch.set_num_threads(1)
    memory = load_memory(run)
    blocks, judging = log.blocks[: memory.stage.index + 1], log.blocks[memory.stage.index + 1]
    rows, stream = log.read_block(judging), memory.stage.config
    results = []
    for spec in CANDIDATES:
        full = [full_log(spec, log, blocks, rows, stream.reference, seed=seed) for seed in range(seeds)]
        for steps in horizons:
            student = StudentConfig(**{**stream.student.model_dump(), "steps": steps})
            small = [
                judge(spec, memory.examples(), memory.table, rows, log.schema, student, seed=seed, trained_on="memory")
                for seed in range(seeds)
            ]
            results.append(
                Cost(
                    candidate=spec.name,
                    steps=steps,
                    full_cpu=_cpu(full),
                    memory_cpu=_cpu(small),
                    full_auc=_auc(full),
                    memory_auc=_auc(small),
                )
            )
    return results


def _cpu(verdicts: list[Verdict]) -> float:
    return round(float(np.mean([verdict.train_seconds for verdict in verdicts])), 4)


def _auc(verdicts: list[Verdict]) -> float:
    return round(float(np.mean([task["auc"] for verdict in verdicts for task in verdict.metrics.values()])), 5)


def case_table(case: Case) -> tuple[list[str], list[list[str]]]:
    """Seconds of each step for each way: columns and rows."""
    rows = []
    for timed in case.timings:
        same = "bytes" if timed.same_bytes else f"to {timed.difference:.0e}"
        between = timed.stages - sum(timed.steps.values())
        seconds = [*(timed.steps[name] for name in STEPS), between, timed.wall - timed.stages, timed.wall]
        ratios = [f"{case.ratio(timed):.2f}", f"{timed.stages / case.timings[0].stages:.2f}"]
        rows.append([timed.way, *(f"{value:.1f}" for value in seconds), *ratios, same])
    return ["seconds", *STEPS, "between", "start, end", "all", "ratio", "ratio of stages", "same memory"], rows


def cost_table(results: list[Cost]) -> tuple[list[str], list[list[str]]]:
    """CPU seconds and AUC by horizon: columns and rows."""
    rows = []
    for cost in results:
        times = [f"{cost.full_cpu:.2f}", f"{cost.memory_cpu:.3f}", f"{cost.ratio():.1f}x"]
        rows.append([cost.candidate, str(cost.steps), *times, f"{cost.full_auc:.4f}", f"{cost.memory_auc:.4f}"])
    return ["candidate", "steps", "full CPU s", "memory CPU s", "ratio", "full AUC", "memory AUC"], rows


def keep(result: Path, machine: Machine, **parts: object) -> None:
    """Write the results of one part; the other part of the file does not change."""
    before = parse_json(PlainResult, result) if result.exists() else PlainResult(machines={}, cases=[], costs=[])
    machines = before.machines | dict.fromkeys(parts, machine)
    write_json(result, before.model_copy(update={"machines": machines, **parts}))


def main() -> None:
    """Measure one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=["kuairand", "complete-journey", "one"])
    parser.add_argument(
        "--source", type=Path, help="the published files of KuaiRand; Complete Journey comes as a package"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the runs")
    parser.add_argument("--blocks", type=int, help="blocks to distil; default: all of KuaiRand, 13 of Complete Journey")
    parser.add_argument("--seeds", type=int, default=2, help="seeds per candidate")
    parser.add_argument("--turns", type=int, default=3, help="turns that the ways take")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.log == "one":  # the plain script itself, in its own process
        distil_plainly(options.config, options.work)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    work, machine = options.work, Machine.here()
    log = work / "log"
    prepare(options.log, options.source, log)
    if options.log == "kuairand":
        blocks = options.blocks or LOGS[options.log].blocks
        cases = [measure(blocks, options.turns, work)]
        keep(options.out, machine, cases=cases)
        for case in cases:
            show(*case_table(case), f"{case.rows:,} rows to {case.units:,} units, config: {case.case}")
        ratios = ", ".join(f"{case.ratio(case.timings[-1]):.2f}x ({case.case})" for case in cases)
        print(f"target: at most {TARGET}x; measured: {ratios}; {machine}")
    else:
        run = work / f"memory-{time.strftime('%Y%m%dT%H%M%S')}"
        stream = {"log": str(log.resolve()), "blocks": options.blocks or 13}
        config = work / "memory.yaml"
        config.write_text(yaml.safe_dump(stream))
        distil_plainly(config, run)
        results = costs(open_log(log), run, HORIZONS, options.seeds)
        keep(options.out, machine, costs=results)
        show(*cost_table(results), f"One training of a candidate, full log against memory: {machine}")


if __name__ == "__main__":
    main()
