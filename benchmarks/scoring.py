"""What does Ray Data cost when a block is scored? Against a plain loop of pyarrow and torch in as many processes.

    python benchmarks/scoring.py kuairand --source FOLDER_OF_KUAIRAND --work WORK
    python benchmarks/scoring.py complete-journey --work WORK
    python benchmarks/scoring.py simulated --work WORK

A log is repeated with ids of its own each time until it has `--rows` rows, and scored under three checkpoints of a DNN 400x400x400. The
plain loop reads Parquet and computes the scores of all rows, nothing else; the path of `diet-ray distill` also checks every file against
its manifest and selects. Both are timed with their start, and on a block of a few rows, which is the start alone. Figures go to
benchmarks/results/scoring.json; `scaling.py` writes them into docs/scaling.md. With the default of 3 million rows and two rounds it
takes about 10 minutes on two cores; `--rows 20000000 --rounds 1` about 35.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from machine import Machine, watched
from published_logs import RESULTS, markdown
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import embedding, linear, relu

from diet_ray.appearing import appearing
from diet_ray.blocks import BlockManifest, Log, LogManifest, Rows, Shard, open_log, read_shard, write_shard
from diet_ray.candidates import CandidateSpec
from diet_ray.cluster import connect
from diet_ray.config import BudgetConfig, ClusterConfig, ReferenceConfig, StreamConfig
from diet_ray.crew import Solo
from diet_ray.ingest import ingest
from diet_ray.memory import LocalShards
from diet_ray.reference import Reference, save_tensors
from diet_ray.scoring import ShardScorer
from diet_ray.select import Sketch, merge
from diet_ray.settings import Settings, write_json

SHARD_ROWS = 31_250
HIDDEN = (400, 400, 400)
CHECKPOINTS = 3
SHARE = 0.01
"""Units that the block gives, of its rows."""
BATCH = 8192
FEW = 64
"""Rows per shard of the block that shows the start alone."""

Contender = Literal["ray", "plain"]


class Run(Settings):
    """One scoring of a block."""

    path: Contender
    """Ray Data, or the plain loop."""
    workers: int
    """Processes that score, a core each."""
    rows: int
    """Of the block."""
    seconds: float
    """Wall time, with the start of the workers."""
    peak: int
    """Bytes of all processes at most, without mapped files (`machine.used_memory`)."""


class Parts(Settings):
    """Seconds per row of what one scorer and the leader do, in one process."""

    read: float
    """Read a shard, check it and validate it."""
    score: float
    """The nets, all checkpoints."""
    sketch: float
    """Selection within the shard."""
    send: float
    """To Arrow and back."""
    merge: float
    """What the leader does with it."""


class ScoringResult(Settings):
    """The figures of this benchmark."""

    machine: Machine
    log: str
    """Which one was repeated."""
    rows: int
    """Of the whole block."""
    shard_rows: int
    shards: int
    shard_bytes: int
    """Bytes of all shards."""
    fields: int
    dim: int
    n_ids: int
    parameters: int
    """Of the net, without the table."""
    checkpoints: int
    units: int
    """What is selected."""
    sketch_bytes: int
    """Bytes of a shard's sketch on its way to the leader, the first shard's."""
    parts: Parts
    runs: list[Run]


def the_config(log: Path, workers: int) -> StreamConfig:
    """A config of which only what scoring needs matters."""
    net = CandidateSpec(name="dnn", arch="dnn", params={"hidden": HIDDEN}, adapter=False)
    return StreamConfig(
        log=log,
        reference=ReferenceConfig(nets=[net], checkpoints=CHECKPOINTS),
        budget=BudgetConfig(ratio=SHARE),
        cluster=ClusterConfig(scorers=workers, cpus_per_scorer=1),
    )


def source_log(name: str, source: Path | None, work: Path) -> Log:
    """The log that is repeated, ingested or simulated unless that is done. Ray must be initialised."""
    from diet_ray.readers import READERS
    from diet_ray.simulate import simulate
    from diet_ray.world import SimulateConfig

    out = work / name
    if not out.exists():
        if name == "simulated":
            simulate(SimulateConfig(rows=50_000, blocks=4), out)
        else:
            reader = READERS[name]
            ingest(reader.schema, reader.prepare(source, work / "prepared"), out, by=reader.by)
    return open_log(out)


def repeated(log: Log, out: Path, rows: int, shard_rows: int = SHARD_ROWS) -> Log:
    """A log of one block with the rows of `log` over and over, each time with vocabulary ids of its own; and one with a few rows."""
    if not out.exists():
        whole = Rows.concat([log.read_block(block) for block in log.blocks])
        order = np.argsort(whole.time, kind="stable")
        whole = whole.take(order)
        with appearing(out, "log") as folder:
            few = [whole.take(np.arange(first, first + FEW)) for first in range(0, 8 * FEW, FEW)]
            times = -(-rows // len(whole))
            static = int(log.schema.first_static_id[-1])
            new = log.blocks[-1].n_ids - static
            n_ids = static + times * new
            blocks = {
                "few": write_block(folder / "blocks" / "few", 0, iter(few), n_ids),
                "many": write_block(folder / "blocks" / "many", 1, _again(whole, rows, shard_rows, static, new), n_ids),
            }
            write_json(folder / "log.json", LogManifest(log_schema=log.schema, blocks=list(blocks)))
    # The few rows are the first of the many: not a log in the order of time, so it is not opened as one.
    manifests = [
        BlockManifest.model_validate_json((out / "blocks" / name / "manifest.json").read_bytes())
        for name in ("few", "many")
    ]
    return Log(out, log.schema, manifests)


def _again(whole: Rows, rows: int, shard_rows: int, static: int, new: int) -> Iterator[Rows]:
    bounds = np.linspace(0, rows, max(1, round(rows / shard_rows)) + 1).astype(np.int64)
    span, ids = int(whole.time[-1] - whole.time[0]) + 1, int(whole.row_id.max()) + 1
    for first, end in pairwise(bounds.tolist()):
        turn, place = np.divmod(np.arange(first, end), len(whole))
        part = whole.take(place)
        yield Rows(
            row_id=part.row_id + turn * ids,
            time=part.time + turn * span,
            user=part.user,
            ids=np.where(part.ids < static, part.ids, part.ids + turn[:, None] * new).astype(np.int32),
            labels=part.labels,
        )


def write_block(folder: Path, index: int, parts: Iterator[Rows], n_ids: int) -> BlockManifest:
    """Write a block, a shard for each part, and its manifest."""
    folder.mkdir(parents=True)
    shards, times = [], []
    for number, part in enumerate(parts):
        shards.append(write_shard(folder / f"shard-{number:05d}.parquet", part))
        times += [int(part.time[0]), int(part.time[-1])]
    manifest = BlockManifest(
        name=folder.name,
        index=index,
        rows=sum(shard.rows for shard in shards),
        n_ids=n_ids,
        time_min=min(times),
        time_max=max(times),
        positives=np.sum([shard.positives for shard in shards], axis=0).tolist(),
        shards=shards,
    )
    write_json(folder / "manifest.json", manifest)
    return manifest


def part_of(block: BlockManifest, n_shards: int) -> BlockManifest:
    """The block as if it had its first shards alone."""
    shards = block.shards[:n_shards]
    return block.model_copy(update={"shards": shards, "rows": sum(shard.rows for shard in shards)})


def write_checkpoints(log: Log, work: Path) -> list[Path]:
    """Three untrained references: what they say costs as much."""
    paths = [work / f"checkpoint-{k}.safetensors" for k in range(CHECKPOINTS)]
    config = the_config(log.path, 1).reference
    for seed, path in enumerate(paths):
        reference = Reference(log.schema, config.nets, config, n_ids=log.blocks[-1].n_ids, seed=seed)
        save_tensors(path, reference.checkpoint())
    return paths


def plain_loop(checkpoints: list[Path], shards: list[Path]) -> float:
    """The plain loop, in one process: EL2N and mean probability of every row, with nothing of diet_ray. Returns the sum of the scores."""
    torch.set_num_threads(1)
    weights, total = [load_file(path) for path in checkpoints], 0.0
    with torch.inference_mode():
        for path in shards:
            table = pq.read_table(path, columns=["ids", "labels"])
            columns = [table[name].combine_chunks() for name in ("ids", "labels")]
            ids, labels = (torch.tensor(one.flatten().to_numpy().reshape(len(table), -1)) for one in columns)
            for some, label in zip(ids.split(BATCH), labels.split(BATCH), strict=True):
                probabilities = torch.stack([torch.sigmoid(_net(one, some)) for one in weights])
                probabilities.mean(dim=0)  # the soft label
                total += float((math.sqrt(2) * (probabilities - label).abs().mean(dim=0)).double().sum())
    return total


def _net(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    x = embedding(ids, weights["table"]).flatten(1)
    for layer in range(len(HIDDEN)):
        name = f"net.members.0.net.mlp.hidden.{layer}"
        x = relu(linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return linear(x, weights["net.members.0.net.mlp.out.weight"], weights["net.members.0.net.mlp.out.bias"])


def score_plainly(log: Log, block: BlockManifest, checkpoints: list[Path], workers: int) -> float:
    """The plain loop over a block, every W-th shard in each of W processes."""
    paths = [log.shard_path(block, shard) for shard in block.shards]
    shares = [paths[rank::workers] for rank in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(partial(plain_loop, checkpoints), shares))


def score_by_ray(log: Log, block: BlockManifest, checkpoints: list[Path], workers: int, units: int) -> Sketch:
    """The path of `diet-ray distill`. Ray must be initialised."""
    from diet_ray.engine import RayEngine

    engine = RayEngine(Solo(), cast(Any, LocalShards(1)))
    return engine.score(log, block, checkpoints, the_config(log.path, workers), units, seed=0)


def timed(
    path: Contender, log: Log, block: BlockManifest, checkpoints: list[Path], workers: int, units: int
) -> tuple[Run, Any]:
    """Score a block; also returns what came out."""
    with watched(0.25) as watch:
        began = time.perf_counter()
        if path == "ray":
            found: Any = score_by_ray(log, block, checkpoints, workers, units)
        else:
            found = score_plainly(log, block, checkpoints, workers)
        seconds = time.perf_counter() - began
    return Run(path=path, workers=workers, rows=block.rows, seconds=round(seconds, 3), peak=watch.peak()), found


def measure_parts(log: Log, block: BlockManifest, checkpoints: list[Path], units: int) -> tuple[Parts, int]:
    """What each part costs on its own, and the bytes of a sketch. The leader is measured at its fullest."""
    torch.set_num_threads(1)
    shard: Shard = block.shards[0]
    scorer = ShardScorer(log, checkpoints, the_config(log.path, 1), keep=units, seed=0)
    read, rows = _seconds(lambda: read_shard(log.shard_path(block, shard), shard, log.schema))
    score, _ = _seconds(lambda: scorer.score(rows))
    both, sketch = _seconds(lambda: scorer.sketch(block, shard))
    send, data = _seconds(lambda: sketch.to_ipc())
    whole = sketch
    for other in block.shards[1:3]:
        whole = merge([whole, scorer.sketch(block, other)], keep=units)
    merging, _ = _seconds(lambda: merge([whole, Sketch.from_ipc(data)], keep=units))
    parts = {"read": read, "score": score, "sketch": max(0.0, both - read - score), "send": send, "merge": merging}
    return Parts(**{name: seconds / shard.rows for name, seconds in parts.items()}), len(data)


def _seconds(do: Callable[[], Any]) -> tuple[float, Any]:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        found = do()
        times.append(time.perf_counter() - began)
    return median(times), found


def run(name: str, source: Path | None, work: Path, rows: int, rounds: int, workers: int) -> ScoringResult:
    """Measure. Ray must be initialised."""
    log = repeated(source_log(name, source, work), work / f"{name}-{rows}", rows)
    if log.schema.n_slots != log.schema.n_fields:
        raise SystemExit(f"{name}: has a field of several values, which the plain loop does not know")
    few, many = log.blocks
    checkpoints, units = write_checkpoints(log, work), max(1, round(rows * SHARE))
    blocks = [
        (many, workers),
        (part_of(many, len(many.shards) // 4), 1),
        (part_of(many, len(many.shards) // 4), workers),
    ]
    blocks += [(part_of(few, n), n) for n in (1, workers)]
    runs = []
    for _ in range(rounds):
        for block, n in blocks:
            found: dict[Contender, Any] = {}
            # One right after the other, so that a busy minute of the machine hits both.
            for path in ("plain", "ray"):
                one, found[path] = timed(path, log, block, checkpoints, n, units)
                runs.append(one)
                print(
                    f"{path:5} {n} workers {block.rows:>10,} rows {one.seconds:8.1f} s {one.peak / 2**20:6.0f} MiB",
                    flush=True,
                )
            if block.rows <= units:
                check(found["ray"], found["plain"])
    parts, sketch_bytes = measure_parts(log, many, checkpoints, units)
    weights = load_file(checkpoints[0])
    return ScoringResult(
        machine=Machine.here(),
        log=name,
        rows=many.rows,
        shard_rows=many.shards[0].rows,
        shards=len(many.shards),
        shard_bytes=sum(shard.bytes for shard in many.shards),
        fields=log.schema.n_fields,
        dim=weights["table"].shape[1],
        n_ids=weights["table"].shape[0],
        parameters=sum(values.numel() for key, values in weights.items() if key != "table"),
        checkpoints=CHECKPOINTS,
        units=units,
        sketch_bytes=sketch_bytes,
        parts=parts,
        runs=runs,
    )


def check(sketch: Sketch, plain: float) -> None:
    """Both paths must have computed the same; `sketch` holds all rows."""
    _, first = np.unique(sketch.scored.rows.row_id, return_index=True)
    ours = float(sketch.scored.score[first].astype(np.float64).sum())
    assert abs(ours - plain) <= 1e-4 * abs(plain), f"the scores differ: {ours} against {plain}"


class Figures:
    """What the runs come to."""

    def __init__(self, result: ScoringResult) -> None:
        self.result = result
        self.most = max(one.workers for one in result.runs)
        self.small = sorted({one.rows for one in result.runs})[-2]

    def seconds(self, path: Contender, workers: int, rows: int) -> float:
        """Median over the rounds."""
        return median(one.seconds for one in self._runs(path, workers, rows))

    def start(self, path: Contender, workers: int) -> float:
        """Seconds that a block of a few rows takes."""
        return self.seconds(path, workers, min(one.rows for one in self.result.runs if one.workers == workers))

    def rate(self, path: Contender, workers: int, rows: int, *, started: bool) -> float:
        """Rows per second, with the start or from then on."""
        return rows / (self.seconds(path, workers, rows) - (self.start(path, workers) if started else 0.0))

    def against_plain(self, *, started: bool) -> float:
        """Rows per second of Ray Data over those of the plain loop, on the whole block."""
        rows = self.result.rows
        return self.rate("ray", self.most, rows, started=started) / self.rate("plain", self.most, rows, started=started)

    def speedup(self, path: Contender) -> float:
        """Rows per second of all workers over those of one, without the start."""
        return self.rate(path, self.most, self.small, started=True) / self.rate(path, 1, self.small, started=True)

    def peak(self, path: Contender, workers: int, rows: int) -> float:
        """Bytes, median over the rounds."""
        return median(one.peak for one in self._runs(path, workers, rows))

    def growth(self) -> float:
        """Peak memory on the whole block over that on a quarter of it."""
        return self.peak("ray", self.most, self.result.rows) / self.peak("ray", self.most, self.small)

    def columns(self) -> list[str]:
        """Of the table."""
        return ["path", "workers", "rows", "seconds", "rows/s", "rows/s without the start", "peak MiB"]

    def rows(self) -> list[list[str]]:
        """Of the table."""
        found = []
        for path, workers, rows in dict.fromkeys((one.path, one.workers, one.rows) for one in self.result.runs):
            whole = rows >= self.small
            found.append(
                [
                    "Ray Data" if path == "ray" else "plain loop",
                    str(workers),
                    f"{rows:,}",
                    f"{self.seconds(path, workers, rows):.1f}",
                    f"{self.rate(path, workers, rows, started=False):,.0f}" if whole else "start alone",
                    f"{self.rate(path, workers, rows, started=True):,.0f}" if whole else "",
                    f"{self.peak(path, workers, rows) / 2**20:,.0f}",
                ]
            )
        return found

    def ratios(self) -> list[list[str]]:
        """What is asked, what was found, what was aimed at."""
        quarter = f"{self.result.rows:,} rows over {self.small:,}"
        return [
            [
                f"rows/s, Ray Data over the plain loop, {self.most} workers",
                f"{self.against_plain(started=False):.2f}",
                ">= 0.85",
            ],
            ["the same without the start", f"{self.against_plain(started=True):.2f}", ""],
            [f"rows/s, {self.most} workers over 1, Ray Data", f"{self.speedup('ray'):.2f}", ">= 1.8 for 2"],
            [f"rows/s, {self.most} workers over 1, plain loop", f"{self.speedup('plain'):.2f}", ""],
            [f"peak memory of Ray Data, {quarter}", f"{self.growth():.2f}", "1"],
        ]

    def _runs(self, path: Contender, workers: int, rows: int) -> list[Run]:
        return [one for one in self.result.runs if (one.path, one.workers, one.rows) == (path, workers, rows)]


def document(result: ScoringResult) -> str:
    """The tables of docs/scaling.md."""
    figures, parts = Figures(result), result.parts
    lead = (
        f"{result.log}, repeated to {result.rows:,} rows in {result.shards} shards ({result.shard_bytes / result.rows:.0f} bytes per row), "
        f"F = {result.fields}, d = {result.dim}, a table of {result.n_ids:,} ids, K = {result.checkpoints} checkpoints of a net with "
        f"{result.parameters:,} parameters, {result.units:,} units wanted. {result.machine}."
    )
    whole = parts.read + parts.score + parts.sketch
    rows = [
        ["a scorer", "read and check a shard", f"{1e6 * parts.read:.2f}", f"{parts.read / whole:.1%}"],
        ["", "the nets", f"{1e6 * parts.score:.2f}", f"{parts.score / whole:.1%}"],
        ["", "select within the shard", f"{1e6 * parts.sketch:.2f}", f"{parts.sketch / whole:.1%}"],
        [
            "the leader",
            "Arrow and merging",
            f"{1e6 * (parts.send + parts.merge):.2f}",
            f"{(parts.send + parts.merge) / whole:.1%}",
        ],
    ]
    return "\n\n".join(
        [
            lead,
            markdown(figures.columns(), figures.rows()),
            markdown(["ratio", "found", "aim"], figures.ratios()),
            markdown(["who", "does what", "microseconds per row", "of a scorer's time"], rows),
        ]
    )


def show(columns: list[str], rows: list[list[str]], title: str) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=["kuairand", "complete-journey", "simulated"])
    parser.add_argument("--source", type=Path, help="the published files; Complete Journey comes as a package")
    parser.add_argument("--work", type=Path, required=True, help="where logs and checkpoints may lie")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "scoring.json")
    options = parser.parse_args()
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # by default Ray's workers give way to others, the plain loop would not
    with connect(cpus=options.workers):
        result = run(options.log, options.source, options.work, options.rows, options.rounds, options.workers)
    options.out.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    figures = Figures(result)
    show(figures.columns(), figures.rows(), f"Scoring {result.log}: {result.machine}")
    show(["ratio", "found", "aim"], figures.ratios(), "Ratios")


if __name__ == "__main__":
    main()
