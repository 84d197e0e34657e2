"""What does Ray cost, and what does a candidate? Both measured in one run, on a published log.

    python -m benchmarks.speed.plain kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.speed.plain complete-journey --work WORK

The first distils with one process that never imports Ray: the same mathematics, torch on two threads. Then `diet-ray distill` does the
same with two CPUs and the same config. Both begin as a command does, with Python and its imports, and must leave the same memory. It is
done with the default config and once more without refinement. The whole log takes about 17 minutes on two idle cores; `--blocks 4`, in
which starting weighs more, takes 8. The second trains candidates on the full log and on a memory of 1 %, for several
horizons, in about 5 minutes. Figures go to benchmarks/results/plain.json.
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

TARGET = 1.5
"""Times the plain script's time that `diet-ray distill` may take."""

STEPS = ("reference", "score", "select", "align", "fuse", "refine", "commit")

WAYS: dict[str, dict[str, int]] = {
    "plain": {"threads_per_worker": 2},
    "with Ray": {"workers": 1, "threads_per_worker": 2},
}
"""The ways of distilling, with the keys of `cluster` that differ."""

CASES: dict[str, dict[str, object]] = {"default": {}, "without refinement": {"refine": {"rounds": 0}}}

HORIZONS = (20, 30, 50, 100, 200)
"""Steps of a student; the last is the default."""

CANDIDATES = [CandidateSpec(name=arch, arch=arch) for arch in ("fm", "dnn", "deepfm", "dcnv2")]


class Timing(Settings):
    """One way of distilling a log."""

    way: str
    wall: float
    """Seconds from the start of the command to its end."""
    steps: dict[str, float]
    """Seconds of each step, over all stages."""
    stages: float
    """Seconds of all stages; the rest of `wall` is starting and ending."""
    same_bytes: bool
    """Whether the memory's files are those of the plain script, byte for byte."""
    difference: float
    """Largest difference between a number of its units and one of the plain script's; inf where they are other units."""


class Case(Settings):
    """One config, distilled in each way, the plain one first."""

    case: str
    rows: int
    units: int
    timings: list[Timing]

    def ratio(self, timing: Timing) -> float:
        """Times the plain script's time, with all starts."""
        return timing.wall / self.timings[0].wall


class Cost(Settings):
    """A candidate trained for one horizon on the memory, beside a pass over the full log; means over seeds."""

    candidate: str
    steps: int
    full_cpu: float
    """CPU seconds on the full log."""
    memory_cpu: float
    """CPU seconds on the memory."""
    full_auc: float
    """On the block behind those that were distilled."""
    memory_auc: float

    def ratio(self) -> float:
        """Times as many CPU seconds on the full log."""
        return self.full_cpu / max(self.memory_cpu, 1e-9)


class PlainResult(Settings):
    """All that this benchmark has found."""

    machines: dict[str, Machine]
    """Where each of the two parts below was measured."""
    cases: list[Case]
    costs: list[Cost]


def prepare(name: str, source: Path | None, log: Path) -> None:
    """Ingest a published log unless that is done."""
    if log.exists():
        return
    given = ["--from", str(source)] if source else []
    cli("ingest", name, *given, "--out", str(log), "--blocks", str(LOGS[name].blocks))


def cli(*arguments: str) -> None:
    """Run `diet-ray` on two CPUs."""
    # By default Ray makes its workers give way to other processes; the plain script does not.
    environment = {"RAY_worker_niceness": "0", **os.environ}
    call = [sys.executable, "-c", "from diet_ray.cli import main; main()", "--quiet", "--cpus", "2", *arguments]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, env=environment)


def distil_plainly(config: Path, run: Path) -> None:
    """The whole stream in this process; what this imports must not be Ray."""
    run, stream, _ = read_launch(config, run)
    committed = open_run(run, stream, resume=False)
    run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(run / "events.jsonl"), committed)
    summarise(run)
    assert "ray" not in sys.modules, "the plain script has imported Ray"


def measure(case: str, more: dict[str, object], blocks: int, work: Path) -> Case:
    """Distil the log in each way, one after the other."""
    timings: list[Timing] = []
    folder = work / f"{case.replace(' ', '-')}-{time.strftime('%Y%m%dT%H%M%S')}"
    folder.mkdir()
    first: Path | None = None
    for number, (way, cluster) in enumerate(WAYS.items()):
        config, run = folder / f"{number}.yaml", folder / str(number)
        config.write_text(
            yaml.safe_dump({"log": str((work / "log").resolve()), "blocks": blocks, "cluster": cluster, **more})
        )
        began = time.perf_counter()
        if first is None:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.speed.plain", "one", "--config", str(config), "--work", str(run)],
                check=True,
            )
            first = run
        else:
            cli("distill", "--config", str(config), "--out", str(run))
        wall = time.perf_counter() - began
        timings.append(timing(way, wall, run, first))
    summary = summarise(first or folder)
    return Case(case=case, rows=summary.rows, units=summary.units, timings=timings)


def timing(way: str, wall: float, run: Path, plain: Path) -> Timing:
    """A run's figures, and its memory beside that of the plain one."""
    summary = summarise(run)
    mine, its = load_memory(run), load_memory(plain)
    return Timing(
        way=way,
        wall=round(wall, 2),
        steps={name: round(sum(stage.steps.get(name, 0.0) for stage in summary.stages), 4) for name in STEPS},
        stages=summary.seconds,
        same_bytes=[entry.sha256 for entry in mine.stage.memory] == [entry.sha256 for entry in its.stage.memory],
        difference=difference(mine.units, its.units),
    )


def difference(units: Units, its: Units) -> float:
    """The largest difference of two memories' deltas, logits and influences; inf where they are other units."""
    if not (np.array_equal(units.unit_id, its.unit_id) and np.array_equal(units.ids, its.ids)):
        return float("inf")
    numbers = [field.name for field in fields(Units) if getattr(units, field.name).dtype.kind == "f"]
    return max(float(np.abs(getattr(units, name) - getattr(its, name)).max()) for name in numbers)


def costs(log: Log, run: Path, horizons: tuple[int, ...], seeds: int) -> list[Cost]:
    """Candidates on the full log and on the memory of a run over the same blocks, judged on the next block."""
    torch.set_num_threads(1)
    memory = load_memory(run)
    blocks, judging = log.blocks[: memory.stage.index + 1], log.blocks[memory.stage.index + 1]
    rows, stream = log.read_block(judging), memory.stage.config
    found = []
    for spec in CANDIDATES:
        full = [full_log(spec, log, blocks, rows, stream.reference, seed=seed) for seed in range(seeds)]
        for steps in horizons:
            student = StudentConfig(**{**stream.student.model_dump(), "steps": steps})
            small = [
                judge(spec, memory.examples(), memory.table, rows, log.schema, student, seed=seed, trained_on="memory")
                for seed in range(seeds)
            ]
            found.append(
                Cost(
                    candidate=spec.name,
                    steps=steps,
                    full_cpu=_cpu(full),
                    memory_cpu=_cpu(small),
                    full_auc=_auc(full),
                    memory_auc=_auc(small),
                )
            )
    return found


def _cpu(verdicts: list[Verdict]) -> float:
    return round(float(np.mean([verdict.train_seconds for verdict in verdicts])), 4)


def _auc(verdicts: list[Verdict]) -> float:
    return round(float(np.mean([task["auc"] for verdict in verdicts for task in verdict.metrics.values()])), 5)


def case_table(case: Case) -> tuple[list[str], list[list[str]]]:
    """Seconds of each step, beside each other: columns and rows."""
    rows = []
    for one in case.timings:
        same = "bytes" if one.same_bytes else f"to {one.difference:.0e}"
        between = one.stages - sum(one.steps.values())
        seconds = [*(one.steps[name] for name in STEPS), between, one.wall - one.stages, one.wall]
        ratios = [f"{case.ratio(one):.2f}", f"{one.stages / case.timings[0].stages:.2f}"]
        rows.append([one.way, *(f"{value:.1f}" for value in seconds), *ratios, same])
    return ["seconds", *STEPS, "between", "start, end", "all", "ratio", "ratio of stages", "same memory"], rows


def cost_table(found: list[Cost]) -> tuple[list[str], list[list[str]]]:
    """CPU seconds and AUC by horizon: columns and rows."""
    rows = []
    for one in found:
        times = [f"{one.full_cpu:.2f}", f"{one.memory_cpu:.3f}", f"{one.ratio():.1f}x"]
        rows.append([one.candidate, str(one.steps), *times, f"{one.full_auc:.4f}", f"{one.memory_auc:.4f}"])
    return ["candidate", "steps", "full CPU s", "memory CPU s", "ratio", "full AUC", "memory AUC"], rows


def keep(result: Path, machine: Machine, **parts: object) -> None:
    """Write what was found; the other part stays as it was."""
    before = parse_json(PlainResult, result) if result.exists() else PlainResult(machines={}, cases=[], costs=[])
    machines = before.machines | dict.fromkeys(parts, machine)
    write_json(result, before.model_copy(update={"machines": machines, **parts}))


def main() -> None:
    """Measure one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kuairand", "complete-journey", "one"])
    parser.add_argument(
        "--source", type=Path, help="the published files of KuaiRand; Complete Journey comes as a package"
    )
    parser.add_argument("--work", type=Path, required=True, help="for the log and the runs")
    parser.add_argument("--blocks", type=int, help="blocks to distil: all of KuaiRand, 13 of Complete Journey")
    parser.add_argument("--seeds", type=int, default=2, help="of candidates")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "one":
        distil_plainly(options.config, options.work)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    work, machine = options.work, Machine.here()
    log = work / "log"
    prepare(options.what, options.source, log)
    if options.what == "kuairand":
        cases = [measure(name, more, options.blocks or LOGS[options.what].blocks, work) for name, more in CASES.items()]
        keep(options.out, machine, cases=cases)
        for case in cases:
            show(*case_table(case), f"{case.rows:,} rows to {case.units:,} units, config: {case.case}")
        ratios = ", ".join(f"{case.ratio(case.timings[-1]):.2f}x ({case.case})" for case in cases)
        print(f"wanted: at most {TARGET}x; found: {ratios}; {machine}")
    else:
        run = work / f"memory-{time.strftime('%Y%m%dT%H%M%S')}"
        stream = {"log": str(log.resolve()), "blocks": options.blocks or 13, "refine": {"rounds": 0}}
        config = work / "memory.yaml"
        config.write_text(yaml.safe_dump(stream))
        distil_plainly(config, run)
        found = costs(open_log(log), run, HORIZONS, options.seeds)
        keep(options.out, machine, costs=found)
        show(*cost_table(found), f"One training of a candidate, full log against memory: {machine}")


if __name__ == "__main__":
    main()
