"""Which candidate is the best, and how sure that is, from the losses of the rows that all candidates have met live."""

from __future__ import annotations

import numpy as np

from diet_ray.figures import number
from diet_ray.judge.paired import Comparison, letters, means_of
from diet_ray.settings import Metric, Settings

CONFIDENCE = 0.95
"""Of intervals and groups."""

FEW = 5
"""Most names of a group in a sentence."""


class Decided(Settings):
    """A candidate compared with the best."""

    candidate: str
    mean: Metric
    """Mean loss, nats, over rows, tasks and seeds."""
    difference: Metric
    """Its mean loss minus that of the best, nats."""
    low: Metric
    """Interval of the difference; the intervals of all pairs hold together with the confidence."""
    high: Metric
    adjusted: Metric
    """p-value of the difference, corrected for all pairs; 1 for the best itself."""
    group: str
    """Letters: two candidates that share one cannot be told apart."""
    best: Metric
    """Probability that it has the smallest loss of all."""
    rows_needed: Metric
    """Rows in all that would tell it from the best, if the difference stays; 0 for the best, infinite where more seeds are needed."""

    def against_best(self, separator: str) -> str:
        """The difference to the best and, after `separator`, its interval; the word for the best itself."""
        if self.rows_needed == 0:
            return "best"
        value, low, high = (number(figure, 4, signed=True) for figure in (self.difference, self.low, self.high))
        return f"{value}{separator}({low} to {high})"


class Decision(Settings):
    """All candidates compared."""

    confidence: float
    rows: int
    """Rows that every candidate has met."""
    memories: int = 1
    """Memories from which each candidate was launched; intervals contain the noise between them where there are several."""
    knows_seeds: bool
    """Whether intervals contain the noise between seeds; they cannot where each candidate has one seed."""
    candidates: list[Decided]
    """The best first."""
    diverged: list[str]
    """Candidates with a loss that is not finite; they are no part of the comparison."""

    @property
    def by_name(self) -> dict[str, Decided]:
        """The candidates, by name."""
        return {part.candidate: part for part in self.candidates}

    @property
    def undecided(self) -> list[str]:
        """The candidates that cannot be told from the best, without it."""
        first, *others = self.candidates
        return [other.candidate for other in others if set(other.group) & set(first.group)]

    def sentences(self) -> list[str]:
        """The decision, as lines of text."""
        first, others, percent = self.candidates[0], self.undecided, f"{100 * self.confidence:g} %"
        lines = [
            f"{first.candidate} has the smallest loss"
            + (
                f"; {few(others)} cannot be told from it ({percent}, corrected for all pairs)"
                if others
                else f", and every other candidate is worse ({percent}, corrected for all pairs)"
            )
        ]
        needed = [part.rows_needed for part in self.candidates[1:] if part.candidate in others]
        if needed and np.isfinite(max(needed)) and max(needed) > self.rows:
            lines.append(
                f"{number(max(needed), 0)} rows, not {self.rows:,}, would tell them apart if the differences stay"
            )
        if self.memories > 1:
            lines.append(f"Intervals contain the noise between {self.memories} memories and between seeds")
        elif not self.knows_seeds:
            lines.append("One seed each: the intervals do not contain the noise between seeds (--seeds 2)")
        return lines


def decide(
    losses: dict[str, np.ndarray],
    users: np.ndarray,
    *,
    memories: dict[str, np.ndarray] | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Decision | None:
    """Compare candidates on the rows that all have met.

    Args:
        losses: per candidate `[S, N]` float32: the loss of each row with each seed, nats, the mean over the tasks; nan where it diverged.
        users: `[N]` int64: the user of each row.
        memories: per candidate `[S]` int64: the memory from which each seed started; None where it is one.
        confidence: of intervals and groups.
        seed: of simulated draws.

    Returns:
        The decision; None where fewer than two candidates or rows can be compared.
    """
    out = diverged(losses)
    finite = {name: part for name, part in losses.items() if name not in out}
    if len(finite) < 2 or len(users) < 2:
        return None
    started = [memories[name] for name in finite] if memories else None
    means = means_of(list(finite.values()), users, started)
    compared, names = Comparison(means, confidence, seed), list(finite)
    order = np.lexsort((np.array(names), means.mean))
    first, half = int(order[0]), compared.half_width()
    groups, chances, needed = letters(compared.different(), order), compared.best(), compared.rows_needed()
    return Decision(
        confidence=confidence,
        rows=len(users),
        memories=len({int(number) for part in started for number in part}) if started else 1,
        knows_seeds=means.knows_seeds,
        candidates=[
            Decided(
                candidate=names[k],
                mean=float(means.mean[k]),
                difference=float(compared.difference[k, first]),
                low=float(compared.difference[k, first] - half[k, first]),
                high=float(compared.difference[k, first] + half[k, first]),
                adjusted=float(compared.adjusted[k, first]),
                group=groups[k],
                best=float(chances[k]),
                rows_needed=0.0 if k == first else float(needed[k, first]),
            )
            for k in map(int, order)
        ],
        diverged=out,
    )


def diverged(losses: dict[str, np.ndarray]) -> list[str]:
    """The candidates with a loss that is not finite."""
    return [name for name, part in losses.items() if not np.isfinite(part).all()]


def few(names: list[str]) -> str:
    """Names in a sentence; the first `FEW` where there are many."""
    rest = len(names) - FEW
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:FEW])} and {rest} more"
