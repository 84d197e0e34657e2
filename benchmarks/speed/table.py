"""What a large table costs: memory, seconds per block and bytes per stage, against an earlier commit.

    python -m benchmarks.speed.table --work WORK --base FOLDER_OF_COMMIT_0678e55 --base-python ITS_PYTHON
    python -m benchmarks.speed.table docs

The log is simulated; nearly all of its ids are users, so that a block looks up few of them. Each run is a process of its own, without Ray.
Figures go to benchmarks/results/table.json, the second command writes the table of docs/scaling.md. With 10^6 and 10^7 ids it takes about
ten minutes on two idle cores, and 8 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.common.machine import Machine
from benchmarks.common.tables import filled, markdown
from benchmarks.fidelity.published_logs import RESULTS
from diet_ray.logs.simulation.config import SimulateConfig, SimulatedField
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.settings import Settings, parse_json, write_json

RESULT = RESULTS / "table.json"
DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"
CHILD = Path(__file__).with_name("table_child.py")
DIM, ROWS, STAGES, CHECKPOINTS = 16, 30_000, 3, 3
BASE, NOW = "0678e55", "now"

HELD = {BASE: CHECKPOINTS + 3, NOW: 3}
"""Tables in the memory of the process that trains, by the model of docs/scaling.md."""


class TableFigures(Settings):
    """One run."""

    commit: str
    ids: int
    """Rows of the table."""
    seconds: list[float]
    """Of each stage, wall time."""
    cpu_seconds: float
    """Of all stages."""
    peak: int
    """Largest memory of the process in bytes, without mapped files."""
    peak_with_files: int
    """The same with the pages of mapped files."""
    stage_bytes: list[int]
    """Bytes of the files that each stage's manifest names."""
    written: int
    """Bytes that the process wrote, with files that it removed before a commit."""
    kept: int
    """Bytes of the run folder's stages at the end."""
    changed: list[int | None]
    """Rows that each stage has in its table; None for a whole table."""


class TableResult(Settings):
    """The figures of this benchmark."""

    machine: Machine
    rows: int
    """Per block."""
    dim: int
    """Width of the table."""
    runs: list[TableFigures]


def measured(commit: str, python: str, tree: Path, log: Path, work: Path, stream: dict[str, Any]) -> TableFigures:
    """Distil in a process of its own, with the package in `tree`."""
    run = work / f"run-{commit}"
    shutil.rmtree(run, ignore_errors=True)
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, str(CHILD), str(log), str(run), json.dumps(stream)], env=env, stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    ids = found.pop("n_ids")
    result = TableFigures(
        commit=commit, ids=ids, changed=[_rows(folder) for folder in sorted(run.glob("stages/*"))], **found
    )
    shutil.rmtree(run)
    return result


def as_then(log: Path, out: Path) -> Path:
    """The same log without the checksums that block manifests did not have at that commit."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(log, out)
    for path in out.glob("blocks/*/manifest.json"):
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "id_checksums"})
        )
    return out


def _rows(folder: Path) -> int | None:
    files = sorted(folder.glob("checkpoint-*.safetensors"))
    if not files:
        return None
    with safe_open(files[-1], framework="np") as file:
        return int(file.get_slice("table/rows").get_shape()[0]) if "table/rows" in set(file.keys()) else None


def run(work: Path, sizes: list[int], base: Path, base_python: str) -> TableResult:
    """All runs, one after the other."""
    machine, runs = Machine.here(), []
    stream = {"reference": {"dim": DIM}, "refine": {"rounds": 0}, "budget": {"ratio": 0.01}}
    for size in sizes:
        log = work / f"log-{size}"
        if not log.exists():
            small = [SimulatedField(name="hour", size=24), SimulatedField(name="item", size=size // 20, zipf=1.0)]
            users = SimulatedField(name="user", size=size - size // 20, zipf=0.7)
            simulate(SimulateConfig(rows=ROWS, blocks=STAGES + 1, fields=(users, *small)), log)
        runs.append(measured(BASE, base_python, base, as_then(log, work / f"log-{size}-then"), work, stream))
        # So that all its rows can be counted, three stages are kept.
        kept = {**stream, "checkpoints": {"keep": STAGES}}
        runs.append(measured(NOW, sys.executable, CHILD.parents[2], log, work, kept))
    return TableResult(machine=machine, rows=ROWS, dim=DIM, runs=runs)


def tables(result: TableResult) -> str:
    """The section of docs/scaling.md, Markdown."""
    changed = {one.ids: one.changed[-1] or 0 for one in result.runs if one.commit == NOW}
    columns = [
        "ids",
        "commit",
        "peak, MiB",
        "with mapped files, MiB",
        "CPU s per block",
        "bytes of the last stage, MB",
        "by the model, MB",
        "over those of its changed rows",
        "written by the process, MB",
        "kept, MB",
    ]
    rows = [
        [
            f"{one.ids:,}",
            one.commit,
            f"{one.peak >> 20:,}",
            f"{one.peak_with_files >> 20:,}",
            f"{one.cpu_seconds / STAGES:,.0f}",
            f"{one.stage_bytes[-1] / 1e6:,.1f}",
            f"{stage_bytes(one, result.dim) / 1e6:,.1f}",
            f"{one.stage_bytes[-1] / (3 * 4 * result.dim * max(changed[one.ids], 1)):,.2f}",
            f"{one.written / 1e6:,.0f}",
            f"{one.kept / 1e6:,.0f}",
        ]
        for one in result.runs
    ]
    lead = f"{STAGES} blocks of {result.rows:,} rows, 3 fields, d = {result.dim}, K = 3, one process without Ray. {result.machine}."
    looked_up = "; ".join(f"{rows:,} of {ids:,}" for ids, rows in changed.items())
    parts = [f"{lead} Rows that the last block changed: {looked_up}.", markdown(columns, rows)]
    return "\n\n".join([*parts, *growth(result)])


def stage_bytes(one: TableFigures, dim: int) -> int:
    """Bytes of the tables of a stage by the model of docs/scaling.md: K checkpoints and moments, or changed rows and their ids twice."""
    changed = one.changed[-1]
    return (CHECKPOINTS + 2) * 4 * dim * one.ids if changed is None else changed * (3 * 4 * dim + 2 * 4)


def growth(result: TableResult) -> list[str]:
    """How many tables the peak holds, from the smallest and the largest table of each commit."""
    found = []
    for commit in dict.fromkeys(one.commit for one in result.runs):
        runs = sorted((one for one in result.runs if one.commit == commit), key=lambda one: one.ids)
        if len(runs) > 1:
            first, last = runs[0], runs[-1]
            tables = (last.peak - first.peak) / (4 * result.dim * (last.ids - first.ids))
            found.append([commit, f"{tables:.1f}", str(HELD[commit])])
    if not found:
        return []
    lead = (
        "Tables of `4 I d` bytes by which the peak grows with the ids. The model counts the table and its moments, at the earlier commit "
        "also K checkpoints, and no copies:"
    )
    return [lead, markdown(["commit", "found", "by the model"], found)]


def main() -> None:
    """Measure, or write the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", nargs="?", choices=["run", "docs"], default="run")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--ids", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--base-python", default=sys.executable)
    given = parser.parse_args()
    if given.what == "run":
        write_json(RESULT, run(given.work, given.ids, given.base, given.base_python))
    part = tables(parse_json(TableResult, RESULT))
    DOCS.write_text(
        filled(DOCS.read_text(encoding="utf-8"), "table", "python -m benchmarks.speed.table docs", part),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
