"""How long commands take to start, in this build and in an earlier one.

    python -m benchmarks.speed.start --base PYTHON_OF_EARLIER_BUILD --work WORK

Commands that only read, and mistakes, are measured in CPU and wall seconds of the whole command on a tiny log. `diet-ray distill` is
measured from its start to the first row from which the reference learns, by the event in `events.jsonl`, and to its end, with all its
processes. The builds take turns; figures are medians. Without `--base` only this build is measured. Figures go to
benchmarks/results/start.json. On two idle cores it takes about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common.machine import Machine, cpu_of_family
from benchmarks.common.private_ray import environment
from benchmarks.common.tables import show
from benchmarks.fidelity.published_logs import RESULTS
from diet_ray.memory.events import read_events
from diet_ray.settings import Settings, write_json

RESULT = RESULTS / "start.json"
ROOT = Path(__file__).parents[2]
THIS, EARLIER = "this build", "0678e55"

FAST, READS, FIRST_ROW = 0.3, 1.0, 10.0
"""Aims: CPU seconds of commands that only tell something, of those that read a log or a run or name a mistake; seconds to the first row."""

COMMANDS = {
    "--help": ("--help", FAST),
    "version": ("version", FAST),
    "status RUN": ("status RUN", FAST),
    "gc RUN": ("gc RUN", READS),
    "verify RUN": ("verify RUN", READS),
    "schema FOLDER": ("schema RAW", READS),
    "a mistyped path": ("distill --config WORK/nope.yaml --out NEW", READS),
    "a wrong log": ("distill --config WORK/no_log.yaml --out NEW", READS),
}
"""By name: the words of a command, where capitals stand for paths, and the aim in CPU seconds."""

DISTILS = {
    "distill": ("distill --config WORK/run.yaml --out NEW", None),
    "distill, private Ray": ("--cpus 2 distill --config WORK/run.yaml --out NEW", FIRST_ROW),
    "distill, private Ray, 2 workers": ("--cpus 2 distill --config WORK/two.yaml --out NEW", FIRST_ROW),
}
"""Ways to distil: the words and the aim in seconds to the first row. The earlier build starts a private Ray in each."""


class Started(Settings):
    """One command of one build: a figure per turn."""

    command: str
    build: str
    cpu: list[float]
    """CPU seconds of the command and of all processes that it started."""
    wall: list[float]
    """Seconds from start to end."""
    first_row: list[float] | None = None
    """Of `distill`: seconds from its start to the first row from which the reference learns."""
    aim: float | None = None
    """The target: of `first_row` where there is one, else of `cpu`."""

    @property
    def aimed_at(self) -> float:
        """The figure of the target."""
        return median(self.cpu if self.first_row is None else self.first_row)


class StartResult(Settings):
    """The figures of this benchmark."""

    machine: Machine
    commands: list[Started]

    def of(self, command: str, build: str) -> Started | None:
        """The figures of a command, if that build has it."""
        return next((one for one in self.commands if (one.command, one.build) == (command, build)), None)


class Build(NamedTuple):
    """An installed build."""

    name: str
    program: list[str]
    """How to call `diet-ray`."""
    path: str | None
    """PYTHONPATH."""

    def command(self, words: str, paths: dict[str, Path]) -> list[str]:
        """A command as a list; words in capitals, also before a slash, stand for paths."""
        parts = [word.partition("/") for word in words.split()]
        return [*self.program, *(f"{paths.get(first, first)}{slash}{rest}" for first, slash, rest in parts)]


def table(result: StartResult) -> tuple[list[str], list[list[str]]]:
    """The figures as a table."""
    columns = ["command", "build", "CPU s", "s", "s to the first row", "aim"]
    rows = []
    for one in result.commands:
        first = f"{median(one.first_row):.1f}" if one.first_row else "-"
        unit = "s to the first row" if one.first_row else "CPU s"
        aim = f"<= {one.aim:g} {unit}" if one.aim is not None and one.build == THIS else ""
        rows.append([f"`{one.command}`", one.build, f"{median(one.cpu):.2f}", f"{median(one.wall):.2f}", first, aim])
    return columns, rows


def prepare(work: Path, builds: list[Build], home: Path) -> None:
    """Raw files, a log that all builds read, configs, and a run of each build."""
    rng = np.random.default_rng(0)
    (work / "raw").mkdir(parents=True)
    raw = {
        "event_time": pa.array(1_700_000_000_000 + np.arange(5000) * 60_000, pa.timestamp("ms", "UTC")),
        "user_id": [f"u{number}" for number in rng.integers(0, 300, 5000)],
        "item_id": [f"i{number}" for number in rng.integers(0, 200, 5000)],
        "is_click": rng.integers(0, 2, 5000),
    }
    pq.write_table(pa.table(raw), work / "raw" / "part.parquet")
    call(builds[-1], "--quiet simulate --out WORK/log --rows 3000 --blocks 3", home, WORK=work)
    for name, text in {
        "run": f"log: {work}/log\n",
        "two": f"log: {work}/log\ncluster: {{workers: 2}}\n",
        "no_log": f"log: {work}/nope\n",
    }.items():
        (work / f"{name}.yaml").write_text(text, encoding="utf-8")
    for build in builds:
        run = run_of(work, build)
        call(build, "--quiet distill --config WORK/run.yaml --out RUN", home, WORK=work, RUN=run)


def run_of(work: Path, build: Build) -> Path:
    """The folder of the run that a build has made."""
    return work / f"run-of-{build.name.replace(' ', '-')}"


def call(build: Build, words: str, home: Path, **paths: Path) -> None:
    """Run a command that must succeed."""
    # Not in this folder: Ray's workers import from the folder of their driver, and would find this build in that of the other.
    subprocess.run(
        build.command(words, paths), env=env_of(build, home), cwd=home, check=True, stdout=subprocess.DEVNULL
    )


def env_of(build: Build, home: Path) -> dict[str, str]:
    """The environment of a build."""
    env = environment(home)
    env.pop("PYTHONPATH", None)
    return env if build.path is None else {**env, "PYTHONPATH": build.path}


def timed(build: Build, words: str, paths: dict[str, Path], home: Path) -> tuple[float, float, int]:
    """CPU seconds, seconds and the exit code of a command without helpers."""
    began = time.perf_counter()
    process = subprocess.Popen(
        build.command(words, paths),
        env=env_of(build, home),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began, process.returncode


def distilled(build: Build, words: str, paths: dict[str, Path], home: Path) -> tuple[float, float, float]:
    """CPU seconds of all processes, seconds, and seconds to the first row of a run."""
    run = paths["NEW"]
    shutil.rmtree(run, ignore_errors=True)
    began, at = time.perf_counter(), time.time()
    with (home / "output").open("w") as output:
        process = subprocess.Popen(
            build.command(words, paths), env=env_of(build, home), cwd=home, stdout=output, stderr=subprocess.STDOUT
        )
        with cpu_of_family(process.pid, seconds=0.1) as used:
            code = process.wait()
    wall = time.perf_counter() - began
    if code:
        raise SystemExit(f"{words}: exit code {code}\n{(home / 'output').read_text()[-2000:]}")
    events, _ = read_events(run / "events.jsonl")
    first = next(event["time"] for event in events if event["kind"] == "start" and event["step"] == "reference")
    return sum(used.values()), wall, first - at


def measure(work: Path, builds: list[Build], turns: int, home: Path) -> list[Started]:
    """All commands of all builds, in turns; a command that a build does not have is left out."""
    figures: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    aims = {name: aim for name, (_, aim) in [*COMMANDS.items(), *DISTILS.items()]}
    for turn in range(turns):
        for build in builds if turn % 2 else builds[::-1]:
            paths = {"RUN": run_of(work, build), "RAW": work / "raw", "WORK": work, "NEW": work / "new"}
            for name, (words, _) in COMMANDS.items():
                *seconds, code = timed(build, words, paths, home)
                if code == (2 if name.startswith("a ") else 0):
                    figures.setdefault((name, build.name), []).append(tuple(seconds))
            for name, (words, _) in DISTILS.items():
                figures.setdefault((name, build.name), []).append(distilled(build, words, paths, home))
    started = []
    for name in aims:
        for build in builds:
            if turned := figures.get((name, build.name)):
                cpu, wall, *first = ([round(value, 3) for value in column] for column in zip(*turned, strict=True))
                started.append(
                    Started(
                        command=name,
                        build=build.name,
                        cpu=cpu,
                        wall=wall,
                        first_row=first[0] if first else None,
                        aim=aims[name],
                    )
                )
    return started


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="python of an environment with the earlier build")
    parser.add_argument("--work", type=Path, required=True, help="folder to make for logs and runs")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    machine, work = Machine.here(), args.work.resolve()
    builds = [Build(THIS, [str(Path(sys.executable).with_name("diet-ray"))], str(ROOT))]
    if args.base:
        builds.append(Build(EARLIER, [str(args.base.with_name("diet-ray"))], None))
    with tempfile.TemporaryDirectory(prefix="dr-", dir="/tmp") as home:  # short: it becomes part of socket paths
        prepare(work, builds, Path(home))
        result = StartResult(machine=machine, commands=measure(work, builds, args.turns, Path(home)))
    write_json(args.out, result)
    show(*table(result), "start of commands")


if __name__ == "__main__":
    main()
