"""Exports figures of a run to Prometheus, through Ray's own metrics agents; `cluster/grafana-dashboard.json` draws them.

The driver of the run reads its events (`show_progress`) and passes figures to Ray. Ray exports each figure under its name with the prefix
`ray_`, at the metrics port of the driver's node. The figures stay there as long as the driver is connected, also between two blocks of
`diet-ray distill --follow`. No part of the result depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray.util.metrics import Counter, Gauge

from diet_ray.memory.facts import stage_facts
from diet_ray.report.progress import Hear, StreamState
from diet_ray.storage.background import repeating

REPEAT_SECONDS = 1.0
"""Seconds between two exports of the gauges; Ray does not report more often."""


@dataclass(frozen=True)
class Exported:
    """One exported figure."""

    name: str
    """Without the prefix `ray_`."""
    kind: Literal["gauge", "counter"]
    """Counters start with the driver, and only grow."""
    help: str
    """The meaning of the figure, with its unit."""
    labels: tuple[str, ...] = ()
    """Labels besides `run`, the name of the run folder."""


EXPORTED = [
    Exported("diet_ray_blocks_committed", "gauge", "Blocks whose stage is committed."),
    Exported("diet_ray_blocks_waiting", "gauge", "Blocks of the log to distil that have no committed stage yet."),
    Exported("diet_ray_rows_seen", "gauge", "Rows of the committed blocks."),
    Exported("diet_ray_rows_per_second", "gauge", "Rows per second over the stages that this driver committed."),
    Exported("diet_ray_seconds_left", "gauge", "Seconds until no block waits, at that rate."),
    Exported("diet_ray_memory_units", "gauge", "Units of the last committed memory."),
    Exported("diet_ray_memory_bytes", "gauge", "Bytes of its shards, without the embedding table."),
    Exported(
        "diet_ray_table_bytes",
        "gauge",
        "Bytes of the reference checkpoint beside it: the embedding table and the nets.",
    ),
    Exported(
        "diet_ray_reference_logloss", "gauge", "Loss of the last block's rows before the reference learned them, nats."
    ),
    Exported(
        "diet_ray_guard_gain", "gauge", "Guard loss before refinement minus guard loss after it, last stage, nats."
    ),
    Exported("diet_ray_commit_time_seconds", "gauge", "Time of the last commit of a stage, seconds since the epoch."),
    Exported("diet_ray_step_seconds", "gauge", "Wall time of the last run of a step, seconds.", ("step",)),
    Exported("diet_ray_stages_total", "counter", "Stages committed by this driver.", ("refinement",)),
    Exported("diet_ray_rows_total", "counter", "Rows of the stages that this driver committed."),
]
"""All exported figures. `refinement` is `kept`, `dropped` or `none`."""


class Telemetry:
    """The figures of one run. This process must be connected to Ray."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._metrics: dict[str, Any] = {}
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for metric in EXPORTED:
            kind: Any = Gauge if metric.kind == "gauge" else Counter
            instrument = kind(metric.name, description=metric.help, tag_keys=("run", *metric.labels))
            instrument.set_default_tags({"run": run.resolve().name})
            self._metrics[metric.name] = instrument

    def hear(self, events: list[dict[str, Any]], state: StreamState) -> None:
        """Update the figures from new events and the new state of the run (see `diet_ray.report.progress.Hear`)."""
        for event in events:
            if event["kind"] == "step":
                self._set("diet_ray_step_seconds", event["seconds"], step=event["step"])
            elif event["kind"] == "committed":
                self._committed(event, state.blocks[event["stage"]][1])
        self._set("diet_ray_blocks_committed", state.committed)
        self._set("diet_ray_blocks_waiting", len(state.blocks) - state.committed)
        self._set("diet_ray_rows_seen", sum(rows for _, rows in state.blocks[: state.committed]))
        self._set("diet_ray_memory_units", state.units)
        self._set("diet_ray_memory_bytes", state.memory_bytes)
        if state.rate is not None and state.eta is not None:
            self._set("diet_ray_rows_per_second", state.rate)
            self._set("diet_ray_seconds_left", state.eta)

    def repeat(self) -> None:
        """Set every gauge again: Ray drops a gauge that is not set for two of its report intervals."""
        for (name, labels), value in list(self._gauges.items()):
            self._metrics[name].set(value, tags=dict(labels))

    def _set(self, name: str, value: float, **labels: str) -> None:
        self._gauges[name, tuple(labels.items())] = value

    def _committed(self, event: dict[str, Any], rows: int) -> None:
        stage = stage_facts(self.run, event["stage"])
        report = stage.refine
        refinement = "none" if report is None else "kept" if report.kept else "dropped"
        self._metrics["diet_ray_stages_total"].inc(1, tags={"refinement": refinement})
        self._metrics["diet_ray_rows_total"].inc(rows)
        self._set("diet_ray_commit_time_seconds", event["time"])
        self._set("diet_ray_reference_logloss", stage.reference_logloss)
        self._set("diet_ray_table_bytes", stage.table_bytes)
        if report is not None and math.isfinite(report.guard_before - report.guard_after):
            self._set("diet_ray_guard_gain", report.guard_before - report.guard_after)


@contextmanager
def telemetry(run: Path) -> Iterator[Hear]:
    """Export the figures of a run while the body runs. Yields the `hear` for `diet_ray.report.progress.show_progress`."""
    figures = Telemetry(run)
    with repeating(REPEAT_SECONDS, figures.repeat, "telemetry"):
        yield figures.hear
