"""The whole sum of a sweep: making the memory and judging candidates on it, against training all of them on the full log."""

from __future__ import annotations

import math
from pathlib import Path

from diet_ray.config import ClusterConfig
from diet_ray.figures import times
from diet_ray.memory.events import read_events
from diet_ray.memory.layout import events_file
from diet_ray.report.summary import timings
from diet_ray.settings import Settings


class Cost(Settings):
    """What a sweep cost, and what the same trainings on the full log would have cost."""

    memory: float | None
    """Seconds in which the memory was made, times the threads of its workers; None where its run does not tell."""
    judged: float
    """CPU seconds of all trainings of the sweep."""
    full: float
    """CPU seconds that the same trainings would take on the full log: those of the sweep, times the ratio of the examples learned."""
    trainings: int
    """Number of trainings."""

    @property
    def pays_after(self) -> float | None:
        """Trainings from which on the memory costs less; None where it never does, or where its own cost is not known."""
        saved = (self.full - self.judged) / self.trainings
        return None if self.memory is None or saved <= 0 else self.memory / saved

    def sentence(self) -> str:
        """The sum in words."""
        judged = f"{times(self.trainings, 'training')} took {self.judged:,.0f} CPU s"
        full = f"on the full log they would take about {self.full:,.0f}"
        if self.memory is None:
            return f"Cost: {judged}; {full}, by examples learned"
        made = f"Cost: the memory took {self.memory:,.0f} s, once; {judged}; {full}, by examples learned"
        if self.pays_after is None:
            return f"{made}: here the memory costs more than it saves, because the log is short"
        return f"{made}: the memory pays after {times(max(1, math.ceil(self.pays_after)), 'training')}"


def cost_of(judged: float, *, trainings: int, examples: int, rows: int, memory: float | None) -> Cost:
    """The cost of a sweep or a race.

    Args:
        judged: CPU seconds of all trainings.
        trainings: their number.
        examples: examples that they learned, all together.
        rows: rows that each would learn on the full log, with those met live.
        memory: see `Cost.memory`.
    """
    full = round(judged * trainings * rows / examples, 2)
    return Cost(memory=memory, judged=round(judged, 2), full=full, trainings=trainings)


def core_seconds(seconds: float | None, cluster: ClusterConfig) -> float | None:
    """Wall seconds in which a memory was made, times the threads that its run had."""
    return None if seconds is None else round(seconds * cluster.workers * cluster.threads_per_worker, 1)


def seconds_of(folder: Path, stage: int) -> float | None:
    """Wall seconds of the stages of a run up to `stage`; None where a folder has no record of all of them."""
    done = timings(read_events(events_file(folder))[0]) if events_file(folder).is_file() else {}
    seconds = [done[number][1] for number in range(stage + 1) if number in done]
    return round(sum(filter(None, seconds)), 1) if len(seconds) == stage + 1 and None not in seconds else None
