"""Compares candidates trained on a memory with the same candidates trained on the full log and on random rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.baselines import FULL, HARD_OWN, SOFT, as_examples, full_log, random_rows, sample_own
from diet_ray.judge.verdict import Verdict, judge
from diet_ray.logs.blocks import Log, open_log
from diet_ray.mapper import Mapper, in_turn
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.same_log import check_log_of
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings
from diet_ray.training.device import torch_threads
from diet_ray.training.predictor import Predictor


class Compression(Settings):
    """How much smaller a memory is than the rows that it stands for."""

    rows: int
    """Rows of the log that were distilled."""
    units: int
    """Units of the memory."""
    log_bytes: int
    """Bytes of those rows' shards (Parquet, zstd)."""
    memory_bytes: int
    """Bytes of the memory's shards (Arrow, zstd)."""
    table_bytes: int
    """Bytes of the shared embedding table, float32: needed with the memory, and also by every candidate trained on the log."""

    def cells(self) -> list[list[str]]:
        """One line per quantity: its name, its value for the log, its value for the memory."""
        return [
            ["rows / units", f"{self.rows:,}", f"{self.units:,}"],
            ["bytes on disk", f"{self.log_bytes:,}", f"{self.memory_bytes:,}"],
            ["embedding table, bytes", "", f"{self.table_bytes:,}"],
        ]

    def table(self) -> Table:
        """Units and bytes as ratios."""
        table = Table(title="Compression")
        for heading in ("", "log", "memory", "ratio"):
            table.add_column(heading, justify="right")
        ratios = [f"{self.rows / self.units:.0f}x", f"{self.log_bytes / self.memory_bytes:.1f}x", ""]
        for cells, ratio in zip(self.cells(), ratios, strict=True):
            table.add_row(*cells, ratio)
        return table


def compression(run: Path, log: Log) -> Compression:
    """Compare the memory of a run with the blocks that it has seen."""
    memory = load_memory(run)
    blocks = log.blocks[: memory.stage.index + 1]
    return Compression(
        rows=memory.stage.rows_seen,
        units=len(memory),
        log_bytes=sum(shard.bytes for block in blocks for shard in block.shards),
        memory_bytes=sum(entry.bytes for entry in memory.stage.memory),
        table_bytes=memory.table_bytes,
    )


def compare(
    run: Path,
    specs: list[CandidateSpec],
    methods: list[str],
    *,
    seeds: int,
    on_progress: Callable[[int, int], None] | None = None,
    each: Mapper = in_turn,
) -> list[Verdict]:
    """Train each candidate in each of the ways `methods`, and judge it on the block after the memory's last.

    There are as many random rows as the memory has units. They are drawn uniformly from all blocks that it has seen, anew for each seed.
    All methods but the full log train for the memory's horizon. `HARD` and `SOFT` use the reference's embeddings of the rows, as the
    memory's students do; `HARD_OWN` and `FULL` learn embeddings of their own.

    Args:
        run: the run folder.
        specs: the candidates.
        methods: some of `FULL`, `HARD_OWN`, `HARD`, `SOFT`.
        seeds: seeds per candidate and method, 0 to `seeds - 1`.
        on_progress: called with the number of trainings done and their total.
        each: runs the trainings: in this process, or on a cluster (`diet_ray.engine.fan_out`).
    """
    work = [
        Comparison(run=str(run), candidate=spec, method=method, seed=seed).model_dump_json()
        for method in methods
        for spec in specs
        for seed in range(seeds)
    ]
    verdicts = []
    for done, verdict in enumerate(each(train_described, work), start=1):
        verdicts.append(Verdict.model_validate_json(verdict))
        if on_progress:
            on_progress(done, len(work))
    return verdicts


def train_otherwise(run: Path, spec: CandidateSpec, method: str, seed: int) -> Verdict:
    """One training of `compare`, in this process."""
    memory = load_memory(run)
    stage, log = memory.stage, open_log(memory.stage.config.log)
    check_log_of(run, log)
    blocks, rows = log.blocks[: stage.index + 1], log.read_block(log.blocks[stage.index + 1])
    config, student = stage.config.reference, stage.config.student
    if method == FULL:
        return full_log(spec, log, blocks, rows, config, seed=seed)
    sample = random_rows(log, blocks, len(memory), seed=derive_seed(seed, "sample"))
    if method == HARD_OWN:
        return sample_own(spec, log, sample, rows, config, student, n_ids=stage.n_ids, seed=seed)
    slots = log.schema.field_of_slot
    drawn, judged = (memory.rows.local(part.ids, slots) for part in (sample, rows))
    phi = Predictor(log.schema, config.nets, {"table": drawn.table, **memory.rows.others})
    examples = as_examples(replace(sample, ids=drawn.ids), phi, soft=method == SOFT)
    rows = replace(rows, ids=judged.ids)
    return judge(spec, examples, judged.table, rows, log.schema, student, seed=seed, trained_on=method)


class Comparison(Settings):
    """The description of one training of `compare`, as a worker gets it."""

    run: str
    candidate: CandidateSpec
    method: str
    seed: int


def train_described(description: str) -> bytes:
    """The function for the mapper: do the training that a `Comparison` describes."""
    comparison = Comparison.model_validate_json(description)
    with torch_threads(1):
        verdict = train_otherwise(Path(comparison.run), comparison.candidate, comparison.method, comparison.seed)
    return verdict.model_dump_json().encode()
