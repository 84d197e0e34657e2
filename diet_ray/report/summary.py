"""A run in figures: what its committed stages and its events say, for a table and for `summary.json`."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from pydantic import Field as Key
from rich.table import Column, Table

from diet_ray.figures import number, size
from diet_ray.logs.layout import block_manifest_file
from diet_ray.memory.events import read_events
from diet_ray.memory.facts import RefineReport, StageFacts, stage_facts
from diet_ray.memory.layout import count_committed, events_file, summary_file
from diet_ray.report.cost import Cost, Making, cost_ahead, making_by
from diet_ray.report.step_times import timings
from diet_ray.report.tables import narrow_table
from diet_ray.settings import Settings, write_json

_SHOWN = 20
"""Most stages in the table for a terminal."""


class StageSummary(Settings):
    """One stage of a run in figures."""

    stage: int
    """Its index."""
    block: str
    """The block that it distilled."""
    rows: int
    """Rows of the block."""
    rows_seen: int
    """Rows of all blocks so far."""
    units: int
    """Units of the memory after it."""
    memory_bytes: int
    """Bytes of the memory's shards, without the embedding table."""
    reference_logloss: float
    """Loss of the block's rows just before the reference learned from them, nats."""
    guard_before: float | None
    """Guard loss before refinement, nats; None where nothing was refined."""
    guard_after: float | None
    """Guard loss after it, nats."""
    refined: bool | None
    """Whether the refined memory was kept."""
    steps: dict[str, float]
    """Wall time of each step, seconds; empty where the events file does not have it."""
    seconds: float | None
    """Wall time from the begin of the stage to its commit."""
    new_ids: int = 0
    """Ids that are new in the block; for the first stage, all ids after it."""
    rounds: int | None = None
    """Rounds of refinement; None where nothing was refined."""
    skipped: int | None = None
    """Rounds skipped because their meta-gradient was not finite."""
    warnings: list[str] = Key(default_factory=list)
    """Numerical problems of the stage, and figures that could not be measured."""


class RunSummary(Settings):
    """A run in figures. Wall times are stored here and not in the stages, because the bytes of a stage must not depend on them."""

    run: str
    """The run folder."""
    stages: list[StageSummary]
    """The committed stages."""
    rows: int
    """Rows seen."""
    units: int
    """Units of the last memory."""
    memory_bytes: int
    """Bytes of its shards."""
    table_bytes: int
    """Bytes of the last reference checkpoint: the embedding table and the net, both of which the memory needs."""
    seconds: float
    """Wall time of all stages."""
    cost: Cost | None = None
    """What making the memory took, and after how many candidates it pays, estimated; None where the events do not tell."""

    def table(self) -> Table:
        """The summary as a table for a terminal; `summary.json` has the times of all steps."""
        refined = any(stage.refined is not None for stage in self.stages)
        title = f"{self.run}: {self.rows:,} rows -> {self.units:,} units, {size(self.memory_bytes)}"
        headings = [
            "rows",
            "units",
            "reference\nlogloss",
            *(["guard: gain\nof refinement"] if refined else []),
            "seconds",
        ]
        columns = [Column(heading, justify="right") for heading in headings]
        names = Column("block", min_width=max((len(stage.block) for stage in self.stages), default=5), no_wrap=True)
        table = narrow_table(names, *columns, title=title)
        for place, stage in enumerate(self.stages):
            if len(self.stages) > _SHOWN and _SHOWN // 2 <= place < len(self.stages) - _SHOWN // 2:
                if place == _SHOWN // 2:
                    table.add_row("...")
                continue
            table.add_row(
                stage.block,
                f"{stage.rows:,}",
                f"{stage.units:,}",
                f"{stage.reference_logloss:.4f}",
                *([_gain(stage)] if refined else []),
                "" if stage.seconds is None else f"{stage.seconds:.2f}",
                end_section=stage is self.stages[-1],
            )
        table.add_row("total", f"{self.rows:,}", f"{self.units:,}", *[""] * (1 + refined), f"{self.seconds:.2f}")
        lines = [*self.sums(), *self.warnings()]
        if lines:
            table.caption, table.caption_justify = "\n".join(lines), "left"
        return table

    def sums(self) -> list[str]:
        """The seconds of each step, as far as the events tell."""
        names = list(dict.fromkeys(name for stage in self.stages for name in stage.steps))
        totals = {name: sum(stage.steps.get(name, 0.0) for stage in self.stages) for name in names}
        return [f"seconds: {', '.join(f'{name} {seconds:.1f}' for name, seconds in totals.items())}"] if totals else []

    def warnings(self) -> list[str]:
        """The warnings of all stages, one line each."""
        return [f"warning: {stage.block}: {warning}" for stage in self.stages for warning in stage.warnings]


def summarise(run: Path) -> RunSummary:
    """Summarise a run from its committed stages and its events, and write the summary to `run/summary.json`."""
    events = read_events(events_file(run))[0]
    timing = timings(events)
    stages: list[StageSummary] = []
    made: Making | None = None
    table_bytes, rows_seen, n_ids = 0, 0, 0
    for index in range(count_committed(run)):
        facts = stage_facts(run, index)
        steps, seconds = timing.get(index, ({}, None))
        report = facts.refine
        stages.append(
            StageSummary(
                stage=index,
                block=facts.block,
                rows=facts.rows_seen - rows_seen,
                rows_seen=facts.rows_seen,
                units=facts.units,
                memory_bytes=facts.memory_bytes,
                reference_logloss=facts.reference_logloss,
                guard_before=_defined(report.guard_before) if report else None,
                guard_after=_defined(report.guard_after) if report else None,
                refined=report.kept if report else None,
                steps=steps,
                seconds=seconds,
                new_ids=facts.n_ids - n_ids,
                rounds=len(report.meta_loss) if report else None,
                skipped=report.skipped if report else None,
                warnings=[*_labels(facts), *(_refinement(report) if report else [])],
            )
        )
        table_bytes, rows_seen, n_ids = facts.table_bytes, facts.rows_seen, facts.n_ids
    if stages:
        made = making_by(events, len(stages) - 1, facts.config.get("cluster", {}))
    summary = RunSummary(
        run=str(run),
        stages=stages,
        rows=rows_seen,
        units=stages[-1].units if stages else 0,
        memory_bytes=stages[-1].memory_bytes if stages else 0,
        table_bytes=table_bytes,
        seconds=round(sum(stage.seconds or 0.0 for stage in stages), 3),
        cost=cost_ahead(made, blocks=len(stages)) if made else None,
    )
    write_json(summary_file(run), summary)
    return summary


def _labels(stage: StageFacts) -> list[str]:
    """A warning per task for which all labels of the stage's block are equal; none where the log is no longer in its place."""
    warnings: list[str] = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        block = json.loads(block_manifest_file(Path(stage.config["log"]), stage.block).read_bytes())
        for task, positives in zip(stage.log_schema.tasks, block["positives"], strict=True):
            if positives in (0, block["rows"]):
                warnings.append(f"task {task!r}: all {block['rows']:,} labels are {int(positives > 0)}")
    return warnings


def _refinement(report: RefineReport) -> list[str]:
    warnings: list[str] = []
    if report.skipped:
        warnings.append(
            f"{report.skipped} of {len(report.meta_loss)} rounds skipped, their meta-gradient was not finite"
        )
    if _defined(report.guard_before) is None:
        warnings.append(
            "students of the unrefined memory diverged, so refinement could not be judged; lower student.lr"
        )
    elif _defined(report.guard_after) is None:
        warnings.append("students of the refined memory diverged, the unrefined one stays")
    return warnings


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _gain(stage: StageSummary) -> str:
    """How much the guard loss fell by refinement, nats, and what became of it."""
    if stage.refined is None:
        return ""
    skipped = f", {stage.skipped}/{stage.rounds} skipped" if stage.skipped else ""
    if stage.guard_before is None or stage.guard_after is None:
        return f"diverged{skipped}"
    gain = number(stage.guard_before - stage.guard_after, 5, signed=True)
    return f"{gain}{'' if stage.refined else ', not kept'}{skipped}"
