"""The results of the benchmark of scoring, and their tables."""

from __future__ import annotations

from statistics import median
from typing import Literal

from benchmarks.common.machine import Machine
from benchmarks.common.tables import markdown
from diet_ray.settings import Settings

Contender = Literal["ray", "plain"]


class Run(Settings):
    """One scoring of a block."""

    path: Contender
    """Ray Data, or the plain loop."""
    workers: int
    """Processes that score, with one core each."""
    rows: int
    """Rows of the block."""
    seconds: float
    """Wall time, with the start of the workers."""
    peak: int
    """Largest memory of all processes together in bytes, without mapped files (`machine.used_memory`)."""


class Parts(Settings):
    """Seconds per row of the work of one scorer and of the leader, measured in one process."""

    read: float
    """Reading, checking and validating a shard."""
    score: float
    """The nets of all checkpoints."""
    sketch: float
    """Selection within the shard."""
    send: float
    """Conversion of the sketch to Arrow."""
    merge: float
    """Conversion back and merging, by the leader."""


class ScoringResult(Settings):
    """The figures of this benchmark."""

    machine: Machine
    log: str
    """Name of the repeated log."""
    rows: int
    """Rows of the whole block."""
    shard_rows: int
    shards: int
    shard_bytes: int
    """Bytes of all shards."""
    fields: int
    dim: int
    n_ids: int
    parameters: int
    """Parameters of the net, without the table."""
    checkpoints: int
    units: int
    """Rows to select."""
    sketch_bytes: int
    """Bytes of the first shard's sketch as it is sent to the leader."""
    parts: Parts
    runs: list[Run]


class Figures:
    """Figures computed from the runs."""

    def __init__(self, result: ScoringResult) -> None:
        self.result = result
        self.most = max(run.workers for run in result.runs)
        self.small = sorted({run.rows for run in result.runs})[-2]

    def seconds(self, path: Contender, workers: int, rows: int) -> float:
        """Median over the rounds."""
        return median(run.seconds for run in self._runs(path, workers, rows))

    def start(self, path: Contender, workers: int) -> float:
        """Seconds for a block of a few rows."""
        return self.seconds(path, workers, min(run.rows for run in self.result.runs if run.workers == workers))

    def rate(self, path: Contender, workers: int, rows: int, *, started: bool) -> float:
        """Rows per second; the time includes the start unless `started`."""
        return rows / (self.seconds(path, workers, rows) - (self.start(path, workers) if started else 0.0))

    def against_plain(self, *, started: bool) -> float:
        """Rows per second of Ray Data divided by those of the plain loop, on the whole block."""
        rows = self.result.rows
        return self.rate("ray", self.most, rows, started=started) / self.rate("plain", self.most, rows, started=started)

    def speedup(self, path: Contender) -> float:
        """Rows per second of all workers divided by those of one, without the start."""
        return self.rate(path, self.most, self.small, started=True) / self.rate(path, 1, self.small, started=True)

    def peak(self, path: Contender, workers: int, rows: int) -> float:
        """Peak memory in bytes, median over the rounds."""
        return median(run.peak for run in self._runs(path, workers, rows))

    def growth(self) -> float:
        """Peak memory on the whole block divided by that on a quarter of it."""
        return self.peak("ray", self.most, self.result.rows) / self.peak("ray", self.most, self.small)

    def columns(self) -> list[str]:
        """Columns of the table."""
        return ["path", "workers", "rows", "seconds", "rows/s", "rows/s without the start", "peak MiB"]

    def rows(self) -> list[list[str]]:
        """Rows of the table."""
        table = []
        for path, workers, rows in dict.fromkeys((run.path, run.workers, run.rows) for run in self.result.runs):
            whole = rows >= self.small
            table.append(
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
        return table

    def ratios(self) -> list[list[str]]:
        """Name, result and target of each ratio."""
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
        return [run for run in self.result.runs if (run.path, run.workers, run.rows) == (path, workers, rows)]


def document(result: ScoringResult) -> str:
    """The tables of docs/scaling.md."""
    figures, parts = Figures(result), result.parts
    lead = (
        f"{result.log}, repeated to {result.rows:,} rows in {result.shards} shards ({result.shard_bytes / result.rows:.0f} bytes per row), "
        f"F = {result.fields}, d = {result.dim}, a table of {result.n_ids:,} ids, K = {result.checkpoints} checkpoints of a net with "
        f"{result.parameters:,} parameters, {result.units:,} units to select. {result.machine}."
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
