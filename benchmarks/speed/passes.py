"""A pass of this build over the log, compared with an earlier build and with the trainer of FuxiCTR, on one core and in one run.

    python -m benchmarks.speed.passes --old FOLDER_OF_A_CHECKOUT [--old-python PYTHON] [--fuxictr PYTHON]

Each build and peer is a process of its own, with one thread, which passes over the same made rows (`benchmarks.speed.made_rows`). They take
turns, so that what else the machine does hits all alike; a ratio is the median over turns of the ratio of CPU seconds. Without `--old` or
`--fuxictr` (a Python that has the package `fuxictr`), their figures are left out. Figures go to benchmarks/results/passes.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.common.machine import Machine
from benchmarks.common.tables import show
from benchmarks.fidelity.pages import README
from benchmarks.fidelity.published_logs import RESULTS
from diet_ray.settings import Settings, write_json

RESULT = RESULTS / "passes.json"
HERE = Path(__file__).parent
OURS, OLD, FUXICTR = "this build", "before", "FuxiCTR"
AIMS = {OLD: 1.8, FUXICTR: 1.5}
"""How many times as many rows a second this build is to learn."""
NETS = {OLD: ("dnn", "dcnv2", "committee"), FUXICTR: ("dnn", "dcnv2, full matrices")}
"""The nets that each is compared on; FuxiCTR has no crosses of low rank."""


class Compared(Settings):
    """One net, learned by this build and by another."""

    net: str
    other: str
    ours: list[float]
    """CPU seconds of this build, by turn."""
    theirs: list[float]
    """Those of the other, by turn."""

    def ratio(self) -> float:
        """Rows a second of this build over those of the other: the median over turns."""
        return statistics.median(their / our for our, their in zip(self.ours, self.theirs, strict=True))


class PassesResult(Settings):
    """The results of this benchmark."""

    machine: Machine
    shape: str
    rows: int
    compared: list[Compared]


class Passer:
    """A process that runs passes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def seconds(self, net: str) -> float:
        """CPU seconds of a pass with a net."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{net}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextmanager
def passer(python: str, script: str, path: Path, shape: str, rows: int) -> Iterator[Passer]:
    """A process of `script` with `path` as its PYTHONPATH; it ends with the body."""
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    call = [python, str(HERE / script), shape, str(rows)]
    with subprocess.Popen(
        call, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=path
    ) as process:
        yield Passer(process)
        assert process.stdin is not None
        process.stdin.close()


def compare(passers: dict[str, Passer], turns: int) -> list[Compared]:
    """Let this build and each other take turns."""
    results = []
    for other in [name for name in NETS if name in passers]:
        for net in NETS[other]:
            for name in (OURS, other):
                passers[name].seconds(net)  # the first pass allocates
            times = [(passers[OURS].seconds(net), passers[other].seconds(net)) for _ in range(turns)]
            ours, theirs = ([round(pair[number], 4) for pair in times] for number in (0, 1))
            results.append(Compared(net=net, other=other, ours=ours, theirs=theirs))
    return results


def table(result: PassesResult) -> tuple[list[str], list[list[str]]]:
    """Columns and rows."""
    rows = []
    for one in result.compared:
        speeds = [f"{result.rows / min(seconds):,.0f}" for seconds in (one.ours, one.theirs)]
        rows.append([one.net, one.other, *speeds, f"{one.ratio():.2f}", f">= {AIMS[one.other]}"])
    return ["net", "over", "rows/s, best turn", "the other's", "ratio, median of turns", "aim"], rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="checkout of the earlier build")
    parser.add_argument("--old-python", default=sys.executable, help="Python with what that build needs")
    parser.add_argument("--fuxictr", help="Python with the package fuxictr")
    parser.add_argument("--shape", default="complete-journey")
    parser.add_argument("--rows", type=int, default=256 * 60)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    machine, ends = Machine.here(), (options.shape, options.rows)
    with ExitStack() as stack:
        passers = {OURS: stack.enter_context(passer(sys.executable, "pass_of_build.py", README.parent, *ends))}
        if options.old:
            passers[OLD] = stack.enter_context(passer(options.old_python, "pass_of_build.py", options.old, *ends))
        if options.fuxictr:
            passers[FUXICTR] = stack.enter_context(passer(options.fuxictr, "pass_of_fuxictr.py", HERE, *ends))
        compared = compare(passers, options.turns)
    result = PassesResult(machine=machine, shape=options.shape, rows=options.rows, compared=compared)
    write_json(options.out, result)
    show(*table(result), f"{options.rows:,} rows of the shape of {options.shape}, one thread: {machine}")


if __name__ == "__main__":
    main()
