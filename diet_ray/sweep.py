"""Judging a pool of candidates on a memory with Ray Tune: one trial per candidate and seed, a leaderboard at the end."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.table import Column, Table

from diet_ray.blocks import BlockManifest, Log, Rows, open_log
from diet_ray.candidates import CandidateFile, CandidateSpec
from diet_ray.config import StudentConfig
from diet_ray.dataset import Memory, load_memory
from diet_ray.errors import ConfigError
from diet_ray.judge import Standing, Verdict, judge, standings
from diet_ray.report import standings_rows
from diet_ray.settings import Settings, write_json
from diet_ray.tuning import run_trials


class Leaderboard(Settings):
    """What a sweep found."""

    memory: str
    """The memory's folder."""
    units: int
    """Units in it."""
    stage: int
    """Its stage."""
    log: str
    """The log whose rows judged."""
    block: str
    """The block whose rows judged: later than all that the memory has seen."""
    rows: int
    """Number of those rows."""
    tasks: list[str]
    """The log's tasks."""
    student: StudentConfig
    """How the candidates were trained."""
    standings: list[Standing]
    """One line per candidate, the best first."""
    verdicts: list[Verdict]
    """Every trial."""

    def table(self) -> Table:
        """The leaderboard for a terminal: mean +- sd over seeds."""
        title = (
            f"{len(self.standings)} candidates on {self.units:,} units, judged on {self.rows:,} rows of {self.block}"
        )
        return leaderboard_table(title, self.standings, self.tasks)


def sweep(
    memory: Path,
    candidates: CandidateFile,
    *,
    out: Path,
    log: Path | None = None,
    block: str | None = None,
    seeds: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Leaderboard:
    """Train every candidate on the memory with each seed and judge it on a block that the memory has not seen.

    Writes `leaderboard.json` and `leaderboard.csv` to `out`; needs a connected Ray.

    Args:
        memory: a run folder or one of its stages.
        candidates: the pool.
        out: where the results go.
        log: the ingested log; by default the one that was distilled.
        block: the block to judge on; by default the one after the memory's last.
        seeds: seeds per candidate, 0 to `seeds - 1`.
        on_progress: called with the number of trials done and their total.

    Raises:
        ConfigError: an unknown field is dropped, or there is no such block, or it is not later than the memory.
        DietError: the memory or the log is damaged.
    """
    loaded = load_memory(memory)
    opened = open_log(log or loaded.stage.config.log)
    judged_on = _block_to_judge_on(loaded, opened, block)
    for spec in candidates.candidates:
        spec.kept_fields(loaded.field_names)
    out.mkdir(parents=True, exist_ok=True)
    specs = candidates.candidates
    counter = _Counter(len(specs) * seeds, on_progress or (lambda done, total: None))
    rows = opened.read_block(judged_on)
    verdicts = _run_trials(loaded, rows, specs, seeds, out / "tune", counter)
    board = Leaderboard(
        memory=str(memory),
        units=len(loaded),
        stage=loaded.stage.index,
        log=str(opened.path),
        block=judged_on.name,
        rows=judged_on.rows,
        tasks=opened.schema.tasks,
        student=loaded.stage.config.student,
        standings=standings(verdicts),
        verdicts=verdicts,
    )
    write_json(out / "leaderboard.json", board)
    _write_csv(out / "leaderboard.csv", board)
    return board


def leaderboard_table(title: str, lines: list[Standing], tasks: list[str]) -> Table:
    """Standings as a table: AUC, LogLoss (nats) and GAUC of each task, mean +- sd over seeds, and the training's CPU time."""
    columns, rows = standings_rows(lines, tasks)
    table = Table("#", *columns[:2], *(Column(heading, justify="right") for heading in columns[2:]), title=title)
    for place, cells in enumerate(rows, start=1):
        table.add_row(str(place), *cells)
    return table


def _block_to_judge_on(memory: Memory, log: Log, name: str | None) -> BlockManifest:
    names = [block.name for block in log.blocks]
    last = memory.stage.block
    if last not in names:
        raise ConfigError(
            f"log {log.path}: has no block {last!r}, which the memory has seen last; name the log that was distilled"
        )
    later = log.blocks[names.index(last) + 1 :]
    if name is None:
        if not later:
            raise ConfigError(
                f"log {log.path}: no block after {last!r} to judge on; distil fewer blocks or ingest the next one"
            )
        return later[0]
    for block in later:
        if block.name == name:
            return block
    raise ConfigError(
        f"block {name!r}: {'the memory has learned from it' if name in names else 'the log has no such block'}; "
        f"blocks to judge on: {', '.join(block.name for block in later) or 'none'}"
    )


def _run_trials(
    memory: Memory,
    rows: Rows,
    specs: list[CandidateSpec],
    seeds: int,
    storage: Path,
    counter: _Counter,
) -> list[Verdict]:
    shared = ray.put((memory.examples(), memory.table, rows, memory.stage.log_schema, memory.stage.config.student))
    found = run_trials(
        tune.with_parameters(_trial, shared=[shared]),
        {"spec": [spec.model_dump(mode="json") for spec in specs], "seed": list(range(seeds))},
        name="sweep",
        storage=storage,
        cpus=1,
        callback=counter,
    )
    verdicts = [Verdict.model_validate_json(metrics["verdict"]) for metrics in found if metrics]
    shutil.rmtree(storage)  # Ray's own record of the trials; all that they found is in the verdicts
    order = {spec.name: number for number, spec in enumerate(specs)}
    return sorted(verdicts, key=lambda one: (order[one.candidate], one.seed))


class _Counter(tune.Callback):
    """Counts finished trials for a progress display."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self.done, self.total, self.on_progress = 0, total, on_progress

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune calls this in the driver."""
        self.done += 1
        self.on_progress(self.done, self.total)


def _trial(config: dict[str, Any], shared: list[Any]) -> None:
    import torch

    torch.set_num_threads(1)
    examples, table, rows, schema, student = ray.get(shared[0])
    spec = CandidateSpec.model_validate(config["spec"])
    verdict = judge(spec, examples, table, rows, schema, student, seed=config["seed"], trained_on="memory")
    tune.report({"verdict": verdict.model_dump_json()})


def _write_csv(path: Path, board: Leaderboard) -> None:
    metrics = ("auc", "logloss", "gauc", "calibration")
    columns = [f"{task}_{metric}_{how}" for task in board.tasks for metric in metrics for how in ("mean", "sd")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["place", "candidate", "arch", "seeds", *columns, "train_seconds", "parameters"])
        for place, line in enumerate(board.standings, start=1):
            values = [
                getattr(line, how)[task][metric] for task in board.tasks for metric in metrics for how in ("mean", "sd")
            ]
            writer.writerow(
                [place, line.candidate, line.arch, line.seeds, *values, line.train_seconds, line.parameters]
            )
