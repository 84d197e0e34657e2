"""The stored figures of the protocol `live` and of replayed races, as the picture and the page on alternatives show them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.fidelity.published_logs import RESULTS, live_figures
from benchmarks.fidelity.race import Replayed
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.settings import parse_json

LOGS = {"kuairand-live": "KuaiRand-Pure", "complete-journey-live": "Complete Journey"}


@dataclass(frozen=True)
class Measured:
    """What was measured on one log."""

    name: str
    live: LiveResult
    cost: LiveCost
    race: Replayed

    def seconds(self, start: str) -> float:
        """CPU seconds of one candidate from a start, until it has met the first share of the block."""
        return next(line.before + line.live for line in self.cost.starts if line.start == start)

    @property
    def pays_after(self) -> float:
        """Candidates after which the memory has paid for itself: its making over what one launch saves."""
        return self.cost.memory_seconds / (self.seconds("full") - self.seconds("memory"))

    def regret(self, start: str, task: str) -> float:
        """Nats that are lost by the first choice after the first share of the block, from a start."""
        found = next(result for result in self.live.starts if result.name == start)
        return found.measured[task][0]["top1_regret"].value


def measured() -> dict[str, Measured]:
    """All that is stored, by the name of the log's bench."""
    stored = live_figures()
    return {
        key: Measured(name, *stored[key], parse_json(Replayed, RESULTS / f"race_{key}.json"))
        for key, name in LOGS.items()
    }
