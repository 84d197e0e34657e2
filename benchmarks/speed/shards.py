"""A table split over two workers against a whole one in each of them: rows per second of a pass, and memory.

    python -m benchmarks.speed.shards --work WORK
    python -m benchmarks.speed.shards docs

Two processes of this machine train the reference on a block of a simulated log whose ids are nearly all users (as `table.py` has them), by
gloo and without Ray, with whole tables and with shards in turns. Memory is measured in pairs of processes of their own, which also write
the table and its moments; the rest is that of a table of few ids. Figures go to benchmarks/results/shards.json, the second command writes
the table of docs/scaling.md. It takes about three minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.common.machine import Machine
from benchmarks.common.tables import filled, markdown
from benchmarks.fidelity.published_logs import RESULTS
from benchmarks.speed.table_child import memory
from diet_ray.config import ReferenceConfig
from diet_ray.logs.blocks import open_log
from diet_ray.logs.simulation.config import SimulateConfig, SimulatedField
from diet_ray.logs.simulation.simulate import simulate
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.sharded_table import ShardedTable
from diet_ray.training.workers import Group

RESULT = RESULTS / "shards.json"
DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"
COMMAND = "python -m benchmarks.speed.shards docs"
DIM, ROWS, WORKERS = 16, 30_000, 2
WHOLE, SHARDS, MAPPED = "whole", "shards", "shards, mmap"


class Turn(Settings):
    """A pass of each kind, one after the other."""

    seconds: dict[str, float]
    """Wall time of the pass, by kind."""
    cpu: dict[str, float]
    """CPU seconds of the first worker, by kind."""


class ShardsResult(Settings):
    """The figures of this benchmark."""

    machine: Machine
    ids: int
    few: int
    """Ids of the table that shows the rest of a worker's memory."""
    turns: list[Turn]
    peaks: dict[str, int]
    """Largest memory of the first worker, the leader, in bytes, without mapped files; by kind and for few ids (`rest`)."""


def _model(kind: str, log: Path, crew: Group, folder: Path) -> Reference:
    opened, config = open_log(log), ReferenceConfig(dim=DIM)
    n_ids, shards = opened.blocks[0].n_ids, None
    if kind != WHOLE:
        on = "mmap" if kind == MAPPED else "ram"
        shards = ShardedTable(crew, DIM, config.embedding_lr, most_ids=n_ids, on=on, folder=folder)  # type: ignore[arg-type]
    return Reference(opened.schema, config.nets, config, n_ids=n_ids, seed=0, shards=shards)


def _process(rank: int, folder: str, log: str, kinds: list[str], turns: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    crew, peak, end = Group(), [0], threading.Event()
    opened = open_log(Path(log))
    rows = opened.read_block(opened.blocks[0])

    def watch() -> None:
        while not end.wait(0.02):
            peak[0] = max(peak[0], memory()[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    models = {kind: _model(kind, Path(log), crew, Path(folder)) for kind in kinds}
    found = []
    for turn in range(turns):
        seconds, cpu = {}, {}
        for kind in kinds if turn % 2 else reversed(kinds):
            crew.barrier()
            began, used = time.perf_counter(), time.process_time()
            train_pass(models[kind], [rows], crew, rows=len(rows))
            crew.barrier()
            seconds[kind], cpu[kind] = time.perf_counter() - began, time.process_time() - used
        found.append({"seconds": seconds, "cpu": cpu})
    if len(kinds) == 1:
        models[kinds[0]].save(Path(folder) / "table", crew)
        models[kinds[0]].save_moments(Path(folder) / "moments", crew)
    end.set()
    watcher.join()
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps({"turns": found, "peak": peak[0]}))
    crew.barrier()
    dist.destroy_process_group()


def measured(work: Path, log: Path, kinds: list[str], turns: int) -> tuple[list[Turn], int]:
    """The turns of two processes, and the largest memory of the first."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        mp.spawn(_process, args=(folder, str(log), kinds, turns), nprocs=WORKERS)  # type: ignore[attr-defined, no-untyped-call]
        found = json.loads((Path(folder) / "found.json").read_text())
    return [Turn(**turn) for turn in found["turns"]], found["peak"]


def simulated(work: Path, ids: int) -> Path:
    """A log with about so many ids, most of them users."""
    log = work / f"shards-{ids}"
    if not log.exists():
        small = [SimulatedField(name="hour", size=24), SimulatedField(name="item", size=ids // 20, zipf=1.0)]
        users = SimulatedField(name="user", size=ids - ids // 20, zipf=0.7)
        simulate(SimulateConfig(rows=ROWS, blocks=1, fields=(users, *small)), log)
    return log


def run(work: Path, ids: int, turns: int) -> ShardsResult:
    """All measurements, one after the other."""
    os.environ["OMP_NUM_THREADS"] = "1"
    machine, log, few = Machine.here(), simulated(work, ids), simulated(work, ids // 100)
    speed, _ = measured(work, log, [WHOLE, SHARDS, MAPPED], turns + 1)
    peaks = {kind: measured(work, log, [kind], 1)[1] for kind in (WHOLE, SHARDS, MAPPED)}
    peaks["rest"] = measured(work, few, [SHARDS], 1)[1]
    sizes = [open_log(path).blocks[0].n_ids for path in (log, few)]
    return ShardsResult(machine=machine, ids=sizes[0], few=sizes[1], turns=speed[1:], peaks=peaks)


def ratio(result: ShardsResult, kind: str) -> float:
    """Rows per second of a kind over those with whole tables: the median over the turns."""
    return statistics.median(turn.seconds[WHOLE] / turn.seconds[kind] for turn in result.turns)


def tables(result: ShardsResult) -> str:
    """The section of docs/scaling.md, Markdown."""
    table = 3 * 4 * result.ids * DIM
    rows = []
    for kind in (WHOLE, SHARDS, MAPPED):
        seconds = statistics.median(turn.seconds[kind] for turn in result.turns)
        cpu = statistics.median(turn.cpu[kind] for turn in result.turns)
        held = {WHOLE: table, SHARDS: table // WORKERS, MAPPED: 0}[kind]
        rows.append(
            [
                kind,
                f"{ROWS / seconds:,.0f}",
                f"{ratio(result, kind):.2f}",
                f"{cpu:.1f}",
                f"{held >> 20:,}",
                f"{result.peaks[kind] >> 20:,}",
                f"{(result.peaks[kind] - held) / result.peaks['rest']:.2f}",
            ]
        )
    columns = ["table", "rows/s", "over whole", "CPU s of a worker", "its table and moments, MiB", "its peak, MiB"]
    lead = (
        f"A pass over {ROWS:,} rows by {WORKERS} workers, {result.ids:,} ids, d = {DIM}, the default nets, medians of {len(result.turns)} "
        f"turns. {result.machine}. The rest of a worker's memory is {result.peaks['rest'] >> 20:,} MiB ({result.few:,} ids)."
    )
    return f"{lead}\n\n{markdown([*columns, 'peak without table, over the rest'], rows)}"


def main() -> None:
    """Measure, or write the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", nargs="?", choices=["run", "docs"], default="run")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--ids", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    if given.what == "run":
        write_json(RESULT, run(given.work, given.ids, given.turns))
    part = tables(parse_json(ShardsResult, RESULT))
    DOCS.write_text(filled(DOCS.read_text(encoding="utf-8"), "shards", COMMAND, part), encoding="utf-8")


if __name__ == "__main__":
    main()
