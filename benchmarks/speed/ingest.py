"""`diet-ray ingest` compared with a plain polars script and with an earlier build, on a made-up log (`made_up_log.py`).

    python -m benchmarks.speed.ingest run --work WORK --rows 1000000 4000000 --polars PYTHON [--base FOLDER --base-python PYTHON]
    python -m benchmarks.speed.ingest values --work WORK --values 10000000
    python -m benchmarks.speed.ingest show

`PYTHON` is an interpreter that has polars, which diet_ray does not need. The ways take turns, and each is a process of its own: its figures
have the start of Python and the imports in them. CPU seconds and memory are those of all of its processes, sampled; memory is what the
system cannot drop, without pages of mapped files. `values` measures an ingest in which nearly every row has a new value. Figures go to
benchmarks/results/ingest.json; a way is measured anew where its number of rows is the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.common.machine import Machine, cpu_seconds, family, own_memory
from benchmarks.common.private_ray import environment
from benchmarks.common.tables import parsed, show
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed.made_up_log import make
from diet_ray.settings import Settings, write_json

RESULT = RESULTS / "ingest.json"
TARGET = 0.7
"""Target for the rows per CPU second, divided by those of the polars script on one thread."""
LOCAL, WITH_RAY, BASE = "local", "with Ray", "0678e55, with Ray"
POLARS, POLARS_2 = "polars, 1 thread", "polars, 2 threads"
MANY, APPEND = "local, many values", "append of the last of the eight days, local"
MAIN = "from diet_ray.cli import main; main()"


class Figure(Settings):
    """One ingest."""

    way: str
    rows: int
    values: int
    """Values with an id of their own."""
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all processes."""
    peak: int
    """Bytes of all processes."""

    def rate(self) -> float:
        """Rows per CPU second."""
        return self.rows / self.cpu


class IngestResult(Settings):
    """The results of this benchmark."""

    machine: Machine
    figures: list[Figure]

    def of(self, way: str, rows: int) -> Figure | None:
        """The figure of a way."""
        return next((figure for figure in self.figures if (figure.way, figure.rows) == (way, rows)), None)


def measured(way: str, rows: int, call: list[str], out: Path, **variables: str) -> Figure:
    """Run a command that makes a log at `out`, and measure it and its descendants every tenth of a second."""
    with tempfile.TemporaryDirectory(prefix="dr-") as home:
        began, cpu, peak = time.perf_counter(), defaultdict[int, float](float), 0
        process = subprocess.Popen(call, env=environment(Path(home)) | variables, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            members = family(process.pid)
            for member in members:
                cpu[member] = max(cpu[member], cpu_seconds(member))
            peak = max(peak, sum(map(own_memory, members)))
            time.sleep(0.1)
        wall = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{way}: exit code {process.returncode}")
    return Figure(
        way=way, rows=rows, values=values_of(out), wall=round(wall, 2), cpu=round(sum(cpu.values()), 2), peak=peak
    )


def values_of(log: Path) -> int:
    """The values in a log's vocabulary."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(log / "vocabulary.parquet").num_rows)


def ingest_call(python: str, source: Path, out: Path, *options: str, blocks: tuple[str, ...] = ()) -> list[str]:
    """The command that ingests the made-up log."""
    files = ["ingest", f"{source}.yaml", "--from", str(source), "--out", str(out), "--by", "day", *blocks]
    return [python, "-c", MAIN, "--quiet", *options, *files]


def run(options: argparse.Namespace) -> None:
    """Measure all ways in turn."""
    here, script = str(Path(__file__).parents[2]), str(Path(__file__).with_name("plain_polars.py"))
    for rows in options.rows:
        source = options.work / f"made-up-{rows}"
        if not source.exists():
            make(source, rows)
        outs = {
            way: options.work / f"out-{number}" for number, way in enumerate((POLARS, LOCAL, POLARS_2, WITH_RAY, BASE))
        }
        calls = {
            POLARS: ([options.polars, script, str(source), str(outs[POLARS])], {"POLARS_MAX_THREADS": "1"}),
            LOCAL: (ingest_call(sys.executable, source, outs[LOCAL], "--local"), {"PYTHONPATH": here}),
            POLARS_2: ([options.polars, script, str(source), str(outs[POLARS_2])], {"POLARS_MAX_THREADS": "2"}),
            WITH_RAY: (ingest_call(sys.executable, source, outs[WITH_RAY], "--cpus", "2"), {"PYTHONPATH": here}),
        }
        if options.base:
            call = ingest_call(options.base_python or sys.executable, source, outs[BASE], "--cpus", "2")
            calls[BASE] = (call, {"PYTHONPATH": str(options.base)})
        for way in options.ways or calls:
            call, variables = calls[way]
            shutil.rmtree(outs[way], ignore_errors=True)
            keep(measured(way, rows, call, outs[way], **variables))
        for out in outs.values():
            shutil.rmtree(out, ignore_errors=True)


def many_values(options: argparse.Namespace) -> None:
    """Measure an ingest of about so many values, and the append of its last day."""
    rows = int(options.values / options.per_row)
    source, out = options.work / f"values-{rows}", options.work / "out-values"
    if not source.exists():
        make(source, rows, distinct=10.0, least=1)
    variables = {"PYTHONPATH": str(Path(__file__).parents[2])}
    for way, blocks in ((MANY, ()), (APPEND, ("--blocks", "7"))):
        shutil.rmtree(out, ignore_errors=True)
        figure = measured(
            way, rows, ingest_call(sys.executable, source, out, "--local", blocks=blocks), out, **variables
        )
        if way == APPEND:
            figure = measured(
                way, rows, ingest_call(sys.executable, source, out, "--local", blocks=("--append",)), out, **variables
            )
        keep(figure)
    shutil.rmtree(out, ignore_errors=True)


def keep(figure: Figure) -> None:
    """Store a figure in place of the earlier one of its way."""
    before = parsed(IngestResult, RESULT)
    kept = [old for old in before.figures if (old.way, old.rows) != (figure.way, figure.rows)] if before else []
    write_json(RESULT, IngestResult(machine=Machine.here(), figures=[*kept, figure]))
    print(figure, flush=True)


def table(result: IngestResult) -> tuple[list[str], list[list[str]]]:
    """All figures, as columns and rows."""
    columns = [
        "rows",
        "way",
        "values with an id",
        "rows per CPU s",
        "over polars on 1 thread",
        "CPU s",
        "wall s",
        "peak MB",
    ]
    lines = []
    for figure in sorted(result.figures, key=lambda figure: figure.rows):
        peer = result.of(POLARS, figure.rows)
        ratio = f"{figure.rate() / peer.rate():.2f}" if peer and figure.way != APPEND else ""
        rate = "" if figure.way == APPEND else f"{figure.rate():,.0f}"
        seconds = [f"{figure.cpu:.1f}", f"{figure.wall:.1f}"]
        lines.append(
            [f"{figure.rows:,}", figure.way, f"{figure.values:,}", rate, ratio, *seconds, f"{figure.peak / 1e6:,.0f}"]
        )
    return columns, lines


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "values", "show"))
    parser.add_argument("--work", type=Path, help="folder for the logs")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--ways", nargs="+", help="measure only these")
    parser.add_argument("--polars", default=sys.executable, help="interpreter that has polars")
    parser.add_argument("--base", type=Path, help="checkout of an earlier build")
    parser.add_argument("--base-python", help="interpreter with what the earlier build needs")
    parser.add_argument("--values", type=int, default=10_000_000)
    parser.add_argument("--per-row", type=float, default=1.45, help="values with an id per row of that log")
    options = parser.parse_args()
    if options.action != "show":
        os.makedirs(options.work, exist_ok=True)
        (run if options.action == "run" else many_values)(options)
    if result := parsed(IngestResult, RESULT):
        show(*table(result), f"Ingest. {result.machine}")


if __name__ == "__main__":
    main()
