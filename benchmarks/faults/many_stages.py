"""What the commands that look at a whole run cost per stage: seconds and memory must be the same per stage at 100 and at 1,000 stages.

    python -m benchmarks.faults.many_stages run     # writes benchmarks/results/many_stages.json
    python -m benchmarks.faults.many_stages docs    # its table into docs/faults.md

The blocks are alike and tiny, and the memory is capped. A run of one stage gives what a command costs in any case: the start of Python and
its imports. Each command is a process of its own; of several turns, the one with the fewest CPU seconds counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.machine import Machine
from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.faults.small_cluster import COMMAND, STREAM
from diet_ray.config import StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.settings import Settings, write_json

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "many_stages.json", ROOT / "docs" / "faults.md"

STAGES = (1, 100, 1000)
TURNS = 2

WORLD: dict[str, Any] = {
    "rows": 40,
    "fields": [{"name": "user", "size": 60}, {"name": "item", "size": 40}, {"name": "hour", "size": 8}],
}

COMMANDS: dict[str, list[str]] = {
    "status": ["status", "RUN"],
    "verify": ["verify", "RUN"],
    "inspect": ["inspect", "RUN"],
    "gc": ["gc", "RUN"],
    "distill --resume": ["--local", "distill", "--config", "CONFIG", "--out", "RUN", "--resume"],
}
"""The commands, each on a finished run: a resumed one checks its stages, finds nothing to do and writes its summary."""

FLAT = 1.5
"""The cost per stage at most stages may be this multiple of that at fewer."""
NOISE_SECONDS, NOISE_MB = 0.1, 0.5
"""How much the start of a command varies: a share of its CPU seconds, and MB."""


class Figure(Settings):
    """A command on a run of so many stages."""

    stages: int
    cpu: float
    """CPU seconds of its process."""
    wall: float
    """Seconds from its start to its end."""
    peak: float
    """Most resident memory, MB."""


class ManyStages(Settings):
    """The results of this benchmark."""

    machine: Machine
    commands: dict[str, list[Figure]]
    """Per command its figures, for the fewest stages first."""


def measure(folder: Path) -> ManyStages:
    """Make the runs in an empty folder and run each command on each of them."""
    machine = Machine.here()
    figures: dict[str, list[Figure]] = {name: [] for name in COMMANDS}
    for stages in STAGES:
        log, run, config = (folder / f"{stages}-{name}" for name in ("log", "run", "config.yaml"))
        simulate(SimulateConfig.model_validate({**WORLD, "blocks": stages + 1}), log)
        stream = {"log": str(log), **STREAM, "refine": {"rounds": 0}}
        config.write_text(yaml.safe_dump(stream), encoding="utf-8")
        distil_locally(run, StreamConfig.model_validate(stream))
        for name, words in COMMANDS.items():
            places = {"RUN": str(run), "CONFIG": str(config)}
            command = [str(COMMAND), "--json", *(places.get(word, word) for word in words)]
            figures[name].append(min((timed(command, stages) for _ in range(TURNS)), key=lambda figure: figure.cpu))
            print(name, figures[name][-1], flush=True)
    return ManyStages(machine=machine, commands=figures)


def timed(command: list[str], stages: int) -> Figure:
    """Run a command to its end. Raises AssertionError where it fails."""
    began = time.perf_counter()
    told = subprocess.run([sys.executable, "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, check=True).stdout
    wall = time.perf_counter() - began
    code, cpu, kib = json.loads(told)
    assert code == 0, command
    return Figure(stages=stages, cpu=round(cpu, 3), wall=round(wall, 3), peak=round(kib * 1024 / 1e6, 1))


_LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""A small process that starts a command and tells what it used: for Linux, a new process has at once had as much memory as its parent."""


def per_stage(figures: list[Figure], at: int) -> tuple[float, float]:
    """CPU seconds and MB per stage of figure `at`, without what the first one, of the fewest stages, takes."""
    first, now = figures[0], figures[at]
    more = now.stages - first.stages
    return (now.cpu - first.cpu) / more, (now.peak - first.peak) / more


def growing(result: ManyStages) -> list[str]:
    """The commands whose cost per stage is higher at most stages than at fewer."""
    grown = []
    for name, figures in result.commands.items():
        (seconds, mb), (more_seconds, more_mb) = per_stage(figures, -2), per_stage(figures, -1)
        between = figures[-2].stages - figures[0].stages
        slower = more_seconds > FLAT * max(seconds, 0) + NOISE_SECONDS * figures[0].cpu / between
        if slower or more_mb > FLAT * max(mb, 0) + NOISE_MB / between:
            grown.append(name)
    return grown


def document(result: ManyStages) -> str:
    """The table of a result."""
    counts = [figure.stages for figure in next(iter(result.commands.values()))]
    rows = []
    for name, figures in result.commands.items():
        costs = [per_stage(figures, at) for at in range(1, len(figures))]
        rows.append(
            [
                f"`{name}`",
                *(f"{figure.cpu:.1f}" for figure in figures),
                *(f"{1000 * max(seconds, 0):.1f}" for seconds, _ in costs),
                *(f"{figure.peak:.0f}" for figure in figures),
                *(f"{1000 * max(mb, 0):.0f}" for _, mb in costs),
            ]
        )
    grown = growing(result)
    noise = NOISE_SECONDS * max(figures[0].cpu for figures in result.commands.values()) / (counts[-2] - counts[0])
    text = (
        f"CPU seconds and peak memory of a command on a finished run. Per stage, {', '.join(grown) if grown else 'no command'} takes more "
        f"at {counts[-1]:,} stages than at {counts[-2]:,}; a start varies by a tenth, which is up to {1000 * noise:.0f} ms per stage at "
        f"{counts[-2]:,}. {result.machine}.\n\n"
    )
    columns = [
        "command",
        *(f"{n:,} stage{'s' * (n > 1)}, s" for n in counts),
        *(f"ms per stage at {n:,}" for n in counts[1:]),
        *(f"{n:,}, MB" for n in counts),
        *(f"kB per stage at {n:,}" for n in counts[1:]),
    ]
    return text + markdown(columns, rows)


def page(text: str, path: Path = RESULT) -> str:
    """docs/faults.md with the table of a result, or with a note that there is none."""
    result = parsed(ManyStages, path)
    part = NOT_YET if result is None else document(result)
    return filled(text, "figures", "python -m benchmarks.faults.many_stages docs", part)


def main() -> None:
    """Run the benchmark, or write its table into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["run", "docs"])
    options = parser.parse_args()
    if options.do == "run":
        with tempfile.TemporaryDirectory(prefix="diet-ray-stages-") as folder:
            write_json(RESULT, measure(Path(folder)))
    else:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
