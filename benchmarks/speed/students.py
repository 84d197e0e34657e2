"""A student's 200 steps, compared with a plain loop over a torch module with torch's fused Adam and with an earlier build, on one core.

    python -m benchmarks.speed.students [--old FOLDER_OF_A_CHECKOUT] [--old-python PYTHON]

Students are trained on given inputs, behind an adapter, as `diet-ray sweep --live 0` trains them, or launched with a table, as sweep does
by default. The plain loop draws the same labels and trains the same net, written in `benchmarks/speed/plain_nets.py`. Each is a process of
its own with one thread; they take turns, and a ratio is the median over turns of the ratio of CPU seconds. Without `--old`, the figures of
the earlier build are left out; it had no launch. Figures go to benchmarks/results/students.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common.machine import Machine
from benchmarks.common.tables import show
from benchmarks.fidelity.pages import README
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed.passes import OLD, OURS, Passer, passer
from diet_ray.settings import Settings, write_json

RESULT = RESULTS / "students.json"
PLAIN = "a plain loop"
NETS = ("dnn", "dcnv2", "wukong", "autoint")
LAUNCHED = "launched "
TARGET = 0.7
"""Most CPU seconds of a student for each of the plain loop."""


class Trained(Settings):
    """One net, trained by this build and by another."""

    net: str
    launched: bool
    """Whether it learned a table, too."""
    other: str
    ours: list[float]
    """CPU seconds of this build, by turn."""
    theirs: list[float]
    """Those of the other, by turn."""

    def ratio(self) -> float:
        """CPU seconds of this build over those of the other: the median over turns."""
        return statistics.median(our / their for our, their in zip(self.ours, self.theirs, strict=True))


class StudentsResult(Settings):
    """The results of this benchmark."""

    machine: Machine
    shape: str
    units: int
    trained: list[Trained]


def compare(processes: dict[str, Passer], turns: int) -> list[Trained]:
    """Let this build and each other take turns."""
    results = []
    for other in [name for name in processes if name != OURS]:
        for name in [*NETS, *([LAUNCHED + net for net in NETS] if other == PLAIN else [])]:
            for who in (OURS, other):
                processes[who].seconds(name)  # the first steps allocate
            times = [(processes[OURS].seconds(name), processes[other].seconds(name)) for _ in range(turns)]
            ours, theirs = ([round(pair[number], 4) for pair in times] for number in (0, 1))
            net, launched = name.removeprefix(LAUNCHED), name.startswith(LAUNCHED)
            results.append(Trained(net=net, launched=launched, other=other, ours=ours, theirs=theirs))
    return results


def table(result: StudentsResult) -> tuple[list[str], list[list[str]]]:
    """Columns and rows."""
    rows = []
    for one in result.trained:
        best = [f"{min(seconds):.2f}" for seconds in (one.ours, one.theirs)]
        aim = f"<= {TARGET}" if one.other == PLAIN else ""
        rows.append([one.net, "launched" if one.launched else "frozen", one.other, *best, f"{one.ratio():.2f}", aim])
    return ["net", "student", "over", "CPU s, best turn", "the other's", "ratio, median of turns", "aim"], rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="checkout of the earlier build")
    parser.add_argument("--old-python", default=sys.executable, help="Python with what that build needs")
    parser.add_argument("--shape", default="complete-journey")
    parser.add_argument("--units", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    machine, ends = Machine.here(), (options.shape, options.units)
    with ExitStack() as stack:
        processes = {
            OURS: stack.enter_context(passer(sys.executable, "steps_of_build.py", README.parent, *ends)),
            PLAIN: stack.enter_context(passer(sys.executable, "steps_plainly.py", README.parent, *ends)),
        }
        if options.old:
            processes[OLD] = stack.enter_context(passer(options.old_python, "steps_of_build.py", options.old, *ends))
        trained = compare(processes, options.turns)
    result = StudentsResult(machine=machine, shape=options.shape, units=options.units, trained=trained)
    write_json(options.out, result)
    show(*table(result), f"{made_steps(result)}, one thread: {machine}")


def made_steps(result: StudentsResult) -> str:
    """What was trained on, in words."""
    return f"200 steps on {result.units:,} made units of the shape of {result.shape}"


if __name__ == "__main__":
    main()
