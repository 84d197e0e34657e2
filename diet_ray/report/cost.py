"""The whole sum: making a memory and judging candidates on it, against training all of them on the full log.

All figures are CPU seconds. Making counts the steps of all stages in the workers; the start of Python and of Ray counts nowhere, because
a training on the full log needs them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from diet_ray.figures import times
from diet_ray.memory.events import read_events
from diet_ray.memory.layout import events_file
from diet_ray.report.step_times import committed_steps
from diet_ray.settings import Settings

OF_REFERENCE = 1.0
"""CPU seconds of a candidate's pass over the log, over those of the reference's, before one is trained: 0.9 and 1.1 for the mean of
candidates of the default pool on two logs (benchmarks/results/break_even.json)."""

SEEDS = 2
"""Seeds per candidate, by default of `sweep`."""

EXAMPLES = 51_200
"""Units that a launch learns, each visit counted."""

LIVE = 0.1
"""Blocks that a candidate meets live, by default of `sweep`."""


class Making(Settings):
    """What making a memory took."""

    seconds: float
    """CPU seconds of all its stages."""
    reference: float
    """Those of the reference's passes."""
    rows: int
    """Rows that were distilled."""
    measured: bool
    """Whether they were measured; else, in a run of an earlier release, they are wall seconds times the threads of its workers."""

    def of_rows(self, rows: int, *, faster: float = 1.0) -> Making:
        """What as many rows would take, where each is done `faster` times as fast."""
        factor = rows / self.rows / faster
        return Making(
            seconds=self.seconds * factor, reference=self.reference * factor, rows=rows, measured=self.measured
        )


class Cost(Settings):
    """What making a memory and judging candidates on it cost, and what training them on the full log costs."""

    memory: float | None
    """CPU seconds of making the memory, of all memories where there are several; None where its run does not tell."""
    judged: float
    """CPU seconds of all trainings on the memory."""
    full: float
    """CPU seconds of training the same candidates with the same seeds on the full log."""
    trainings: int
    """Number of trainings on the memory."""
    candidates: int = 0
    """Number of candidates; 0 in a file of an earlier release, which counts trainings."""
    full_is: Literal["measured", "estimated"] = "estimated"
    """Whether `full` was measured, or estimated from the examples that were learned."""
    judged_is: Literal["measured", "estimated"] = "measured"
    """Whether `judged` was measured, or estimated before any candidate was judged."""
    memories: int = 1
    """Number of memories on which each candidate was judged."""
    pays_after: float | None = None
    """Candidates, with all their seeds, from which on the memory costs less; None where it never does, or its own cost is not known."""

    def sentence(self) -> str:
        """The sum in words."""
        if self.judged_is == "estimated":
            return self._before_judging()
        several = f" ({self.memories} memories)" if self.memories > 1 else ""
        made = "" if self.memory is None else f"making the memory{several} {_seconds(self.memory)}, once; "
        who = f"{times(self.candidates, 'candidate')} in " if self.candidates else ""
        judged = f"judging {who}{times(self.trainings, 'training')} {_seconds(self.judged)}"
        about = "about " if self.full_is == "estimated" else ""
        full = f"training all on the full log {about}{_seconds(self.full)} ({self.full_is})"
        return f"Cost: {made}{judged}; {full}{self._verdict()}"

    def _before_judging(self) -> str:
        made = f"making the memory {_seconds(self.memory or 0.0)}, once"
        n = self.candidates
        each = f"judging {_seconds(self.judged / n)}, training on the full log {_seconds(self.full / n)}"
        seeds = times(self.trainings // n, "seed")
        return f"Cost: {made}. Estimated for each candidate of {seeds}: {each}{self._verdict()}"

    def _verdict(self) -> str:
        if not self.candidates:
            return ""
        if self.memory is None:
            return "; what making the memory took is not known"
        if self.pays_after is None:
            return ". The memory never pays here, because the log is short"
        about = "" if (self.judged_is, self.full_is) == ("measured", "measured") else "about "
        return f". The memory pays after {about}{times(max(1, math.ceil(self.pays_after)), 'candidate')}"


def cost_of(
    judged: float,
    full: float,
    *,
    trainings: int,
    candidates: int,
    memory: float | None,
    full_is: Literal["measured", "estimated"] = "estimated",
    judged_is: Literal["measured", "estimated"] = "measured",
    memories: int = 1,
) -> Cost:
    """The whole sum; the arguments are the fields of `Cost`."""
    saved = (full - judged) / candidates
    return Cost(
        memory=memory,
        judged=round(judged, 2),
        full=round(full, 2),
        trainings=trainings,
        candidates=candidates,
        full_is=full_is,
        judged_is=judged_is,
        memories=memories,
        pays_after=None if memory is None or saved <= 0 else round(memory / saved, 3),
    )


def full_by_examples(judged: float, *, trainings: int, examples: int, rows: int) -> float:
    """CPU seconds of trainings on the full log, from those on a memory.

    Args:
        judged: CPU seconds of all trainings on the memory.
        trainings: on the full log.
        examples: that the trainings on the memory learned, all together.
        rows: that each would learn on the full log, with those met live.
    """
    return judged / examples * rows * trainings


def cost_ahead(made: Making, *, blocks: int, candidates: int = 1, seeds: int = SEEDS) -> Cost:
    """The sum before candidates are judged, by the defaults of `sweep`.

    Args:
        made: what making the memory took.
        blocks: blocks that were distilled.
        candidates: to judge.
        seeds: seeds per candidate.
    """
    rows, live = made.rows, LIVE * made.rows / blocks
    row = made.reference * OF_REFERENCE / rows
    judged, full = row * (EXAMPLES + live), row * (rows + live)
    n = candidates * seeds
    return cost_of(n * judged, n * full, trainings=n, candidates=candidates, memory=made.seconds, judged_is="estimated")


def making(run: Path, stage: int, cluster: dict[str, Any]) -> Making | None:
    """What making the memory of a stage took, from the events of its run.

    Args:
        run: the run folder.
        stage: the memory's.
        cluster: the key `cluster` of the run's config, as plain data.

    Returns:
        None where the folder has no record of all stages up to `stage`.
    """
    return making_by(read_events(events_file(run))[0], stage, cluster)


def making_by(events: list[dict[str, Any]], stage: int, cluster: dict[str, Any]) -> Making | None:
    """`making` from events that were read."""
    done = committed_steps(events)
    if not set(range(stage + 1)) <= set(done) or not all(done[index] for index in range(stage + 1)):
        return None
    steps = [event for index in range(stage + 1) for event in done[index]]
    passes = [event for event in steps if event["step"] == "reference"]
    rows = sum(event.get("rows") or 0 for event in passes)
    if not rows:
        return None
    return Making(
        seconds=round(_cpu(steps, cluster), 2),
        reference=round(_cpu(passes, cluster), 2),
        rows=rows,
        measured=all(event.get("cpu") is not None for event in steps),
    )


def _cpu(steps: Sequence[dict[str, Any]], cluster: dict[str, Any]) -> float:
    """CPU seconds of steps: all workers do the reference's and refinement's alike, the first does the others; scorers are Ray's."""
    total = 0.0
    for event in steps:
        together = cluster.get("workers", 1) if event["step"] in ("reference", "refine") else 1
        cpu = event.get("cpu")
        total += together * (event["seconds"] * cluster.get("threads_per_worker", 1) if cpu is None else cpu)
        if event["step"] == "score":
            total += cluster.get("scorers", 0) * event["seconds"]
    return total


def _seconds(value: float) -> str:
    return f"{value:,.0f} CPU s" if value >= 10 else f"{value:.1f} CPU s"
