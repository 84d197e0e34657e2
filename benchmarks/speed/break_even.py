"""After how many candidates a memory pays, by shipped defaults, in CPU seconds.

    python -m benchmarks.speed.break_even kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python -m benchmarks.speed.break_even complete-journey --work WORK

Each command ingests a log of 14 blocks and distils all but the last with the shipped defaults, by `diet-ray distill` and, with
`--ray`, on a private Ray. It then judges the default pool as `diet-ray --local sweep` does, with one seed. All these are whole processes,
with the start of Python, of Ray and their imports. A candidate's pass over the full log is measured on the log's last distilled blocks
(`--pass-blocks`, by default one) and scaled by rows; with `--control`, a whole pass of `dnn` shows how exact this is. With `--run`, a run
that `diet-ray distill` made before is taken: its steps have their CPU seconds, and its start is that of resuming it. `--every 3`
judges every third candidate of the pool. Figures go to benchmarks/results/break_even.json.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from benchmarks.common.machine import Machine, cpu_of_family
from benchmarks.common.private_ray import environment
from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import RESULTS
from diet_ray.candidates import CandidateSpec, default_pool
from diet_ray.judge.backfill import Backfill
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.judge.verdict import Clock
from diet_ray.logs.blocks import Log, open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.events import read_events
from diet_ray.memory.layout import events_file
from diet_ray.settings import Settings, parse_json, write_json

RESULT = RESULTS / "break_even.json"
BLOCKS = 14
"""Blocks of each log; all but the last are distilled."""
TARGET = 3
"""Candidates after which a memory is to pay."""
SEEDS = 2
"""Seeds per candidate by sweep's default."""
WAYS = ("diet-ray distill", "diet-ray --cpus 2 distill")
"""How a memory is made: by the shipped defaults, which take no Ray, and on a private Ray."""
LOGS = ("complete-journey", "kuairand")


class Making(Settings):
    """What making a memory took."""

    way: str
    """The command, one of `WAYS`."""
    cpu: float
    """CPU seconds of the whole command and all processes that it started."""
    steps: dict[str, float]
    """CPU seconds of each step in the first worker, over all stages; the rest of `cpu` is starts, imports and Ray."""


class Candidate(Settings):
    """One candidate with one seed, CPU seconds of the training alone."""

    candidate: str
    memory: float
    """Launched from the memory and judged live on the first tenth of the next block."""
    full: float
    """A pass over the distilled blocks and the same live rows, scaled by rows from the rows that were learned."""


class BreakEven(Settings):
    """The figures of one log."""

    log: str
    machine: Machine
    rows: int
    """Rows distilled."""
    units: int
    makings: list[Making]
    candidates: list[Candidate]
    sweep: float
    """CPU seconds of the whole command that judged the candidates."""
    pass_rows: int
    """Rows on which a pass over the full log was measured."""
    control: float | None = None
    """CPU seconds of a whole pass of `dnn` over those of the scaled one; None where it was not measured."""

    @property
    def full(self) -> float:
        """Mean CPU seconds of a candidate on the full log."""
        return sum(one.full for one in self.candidates) / len(self.candidates)

    @property
    def memory(self) -> float:
        """Mean CPU seconds of a candidate on the memory."""
        return sum(one.memory for one in self.candidates) / len(self.candidates)

    def pays_after(self, making: Making, seeds: int) -> float:
        """Candidates of so many seeds from which on making the memory and judging on it costs less than the full log."""
        saved = seeds * (self.full - self.memory)
        return making.cpu / saved if saved > 0 else math.inf


class BreakEvenResult(Settings):
    """The results of this benchmark."""

    logs: list[BreakEven]


def command(*arguments: str, home: Path) -> float:
    """Run `diet-ray`; the CPU seconds of it and of all processes that it started, also of those that outlive their parents."""
    call = [sys.executable, "-c", "from diet_ray.cli import main; main()", "--quiet", *arguments]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, env=environment(home))
    with cpu_of_family(process.pid) as seconds:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its time can be read until it is waited for
    if status := process.wait():
        raise SystemExit(f"{' '.join(arguments)}: exit code {status}")
    return round(sum(seconds.values()), 2)


def step_seconds(run: Path) -> dict[str, float]:
    """CPU seconds of each step of a run in its first worker."""
    steps: dict[str, float] = {}
    for event in read_events(events_file(run))[0]:
        if event["kind"] == "step":
            steps[event["step"]] = round(steps.get(event["step"], 0.0) + event["cpu"], 3)
    return steps


def pass_seconds(spec: CandidateSpec, log: Log, run: Path, first: int, end: int) -> float:
    """CPU seconds of a candidate's pass over some blocks of the log, with the table of its own that it has there."""
    reference = load_memory(run).stage.config.reference
    backfilling = Backfill(log, log.blocks[first:end], reference).start(
        spec, seed=0
    )  # a table is drawn once, not in each block
    with Clock() as clock:
        backfilling.advance(1)
    return clock.cpu


def measure(
    name: str,
    source: Path | None,
    work: Path,
    *,
    ray: bool,
    pass_blocks: int,
    every: int,
    before: Path | None,
    control: bool,
    blocks: int = BLOCKS,
) -> BreakEven:
    """The figures of a log of so many blocks, of which all but the last are distilled."""
    machine, log = Machine.here(), work / "log"
    folder = work / time.strftime("%Y%m%dT%H%M%S")
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="dr-") as short:
        home = Path(short)
        if not log.exists():
            files = ["--from", str(source)] if source else []
            command("--local", "ingest", name, *files, "--out", str(log), "--blocks", str(blocks), home=home)
        config = folder / "run.yaml"
        config.write_text(yaml.safe_dump({"log": str(log.resolve())}), encoding="utf-8")
        makings = []
        for number, way in enumerate(WAYS if ray else WAYS[:1]):
            run = before or folder / f"run-{number}"
            resumed = ["--resume"] if before else []
            cpu = command(*way.split()[1:], "--config", str(config), "--out", str(run), *resumed, home=home)
            cpu += sum(step_seconds(run).values()) if before else 0.0
            makings.append(Making(way=way, cpu=round(cpu, 2), steps=step_seconds(run)))
            print(makings[-1], flush=True)
        run, sweep = before or folder / "run-0", folder / "sweep"
        pool = default_pool().candidates[::every]
        few = folder / "pool.yaml"
        few.write_text(
            yaml.safe_dump({"candidates": [spec.model_dump(mode="json") for spec in pool]}), encoding="utf-8"
        )
        words = ["--memory", str(run), "--candidates", str(few), "--out", str(sweep), "--seeds", "1"]
        judging = command("--local", "sweep", *words, home=home)
    board = parse_json(Leaderboard, sweep / "leaderboard.json")
    opened = open_log(log)
    torch.set_num_threads(1)
    stage = load_memory(run).stage
    end = stage.index + 1
    learned = sum(block.rows for block in opened.blocks[end - pass_blocks : end])
    scale = (stage.rows_seen + board.rows) / learned
    on_memory = {verdict.candidate: verdict.train_seconds for verdict in board.verdicts}
    passes = {spec.name: pass_seconds(spec, opened, run, end - pass_blocks, end) for spec in pool}
    ratio = None
    if control:
        dnn = next(spec for spec in default_pool().candidates if spec.name == "dnn")
        part, whole = (pass_seconds(dnn, opened, run, first, end) for first in (end - pass_blocks, 0))
        ratio = round(whole / (part * stage.rows_seen / learned), 3)
    return BreakEven(
        log=name,
        machine=machine,
        rows=stage.rows_seen,
        units=stage.units,
        makings=makings,
        candidates=[
            Candidate(candidate=spec.name, memory=on_memory[spec.name], full=round(passes[spec.name] * scale, 3))
            for spec in pool
        ],
        sweep=judging,
        pass_rows=learned,
        control=ratio,
    )


def table(result: BreakEvenResult) -> tuple[list[str], list[list[str]]]:
    """A row per log and way of making: columns and rows."""
    columns = ["log", "made by", "making, CPU s", "steps alone", "a candidate on the memory", "on the full log"]
    rows = [
        [
            f"{one.log}, {one.rows:,} rows",
            f"`{making.way}`",
            f"{making.cpu:.1f}",
            f"{sum(making.steps.values()):.1f}",
            f"{one.memory:.2f}",
            f"{one.full:.2f}",
            f"{one.pays_after(making, SEEDS):.1f}",
            f"{one.pays_after(making, 1):.1f}",
        ]
        for one in result.logs
        for making in one.makings
    ]
    return [*columns, f"pays after, candidates of {SEEDS} seeds", "of 1 seed"], rows


def step_table(result: BreakEvenResult) -> tuple[list[str], list[list[str]]]:
    """Where the CPU seconds of making go: columns and rows."""
    names = list(dict.fromkeys(name for one in result.logs for making in one.makings for name in making.steps))
    rows = []
    for one in result.logs:
        for making in one.makings:
            steps = [f"{making.steps.get(name, 0.0):.1f}" for name in names]
            rows.append([one.log, making.way, *steps, f"{making.cpu - sum(making.steps.values()):.1f}"])
    return ["CPU s", "made by", *names, "starts, imports, other processes"], rows


def main() -> None:
    """Measure one log; the other's figures stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=LOGS)
    parser.add_argument("--source", type=Path, help="the published files of KuaiRand")
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the runs")
    parser.add_argument("--ray", action="store_true", help="also distil on a private Ray of 2 CPUs")
    parser.add_argument("--pass-blocks", type=int, default=1, help="blocks on which a full pass is measured")
    parser.add_argument("--every", type=int, default=1, help="judge every so many candidates of the pool")
    parser.add_argument("--run", type=Path, help="a run of this log that `diet-ray distill` made; not with --ray")
    parser.add_argument("--control", action="store_true", help="also measure a whole pass of dnn")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.run and options.ray:
        parser.error("--run is for a run without Ray")
    one = measure(
        options.log,
        options.source,
        options.work,
        ray=options.ray,
        pass_blocks=options.pass_blocks,
        every=options.every,
        before=options.run,
        control=options.control,
    )
    before = parse_json(BreakEvenResult, options.out).logs if options.out.exists() else []
    logs = sorted([*(other for other in before if other.log != one.log), one], key=lambda each: LOGS.index(each.log))
    result = BreakEvenResult(logs=logs)
    write_json(options.out, result)
    show(*table(result), f"Target: at most {TARGET} candidates; {one.machine}")
    show(*step_table(result), "Where making goes")


if __name__ == "__main__":
    main()
