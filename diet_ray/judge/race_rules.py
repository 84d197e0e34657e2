"""A race: candidates meet the same live rows rung by rung; those that are worse than the leader beyond doubt leave after each rung.

This file has the rules and the result. `diet_ray.judge.run_race` runs a race.

The leader is the candidate with the smallest mean loss over all rows met so far. A candidate leaves where it is worse than the leader at
the level `look_level`, corrected for all pairs of candidates that are still in. A race looks once per rung, so the allowed error is
divided by the number of rungs: by the union bound the stated confidence holds over all looks together, wherever the race ends.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field as Key
from rich.table import Column, Table

from diet_ray.errors import ConfigError, DietError
from diet_ray.figures import number, times
from diet_ray.judge.decision import Decided, Decision, few
from diet_ray.judge.fidelity.order import OrderVerdict, order_lines
from diet_ray.report.cost import Cost
from diet_ray.report.tables import narrow_table
from diet_ray.settings import Settings
from diet_ray.storage.parquet_writing import write_result

RUNGS = (0.02, 0.1, 0.25, 1.0)
"""How many blocks candidates have met after each rung, by default."""


TO_CONFIRM = 3
"""As many of the best a race proposes to confirm by full backfills."""


def look_level(confidence: float, rungs: int) -> float:
    """The confidence of each of several looks that have `confidence` together."""
    return 1 - (1 - confidence) / rungs


@dataclass(frozen=True)
class Budget:
    """How much a race may cost."""

    amount: float
    unit: Literal["s", "x"]
    """`s`: CPU seconds. `x`: full trainings, counted in examples learned, which is the same number on every machine."""

    @staticmethod
    def read(text: str) -> Budget:
        """The budget that `900s` or `1.5x` means. Raises ConfigError for any other text."""
        parts = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)([sx])", text.strip())
        if parts is None or float(parts[1]) <= 0:
            raise ConfigError(
                f"--budget {text}: must be CPU seconds, such as 900s, or full trainings, such as 1.5x, above 0"
            )
        return Budget(float(parts[1]), "s" if parts[2] == "s" else "x")

    def __str__(self) -> str:
        """As `read` reads it."""
        return f"{self.amount:g}{self.unit}"


class Left(Settings):
    """A candidate that left the race."""

    candidate: str
    rung: int
    """The number of the rung, from 1, after which it left."""
    how: Literal["worse", "diverged", "stopped", "failed"]
    """`worse`: than the leader, beyond doubt. `stopped`: in its launch, by ASHA. `failed`: an error ended its trial."""
    why: str
    decided: Decided | None = None
    """Its comparison with the leader of that rung; None where it diverged, failed, or was stopped in its launch."""


class Rung(Settings):
    """The state of a race after a rung."""

    share: float
    """Blocks met."""
    rows: int
    """Rows met, all rungs together."""
    entered: int
    """Candidates that began the rung."""
    decision: Decision | None
    """The comparison of those that finished it; None where fewer than two did."""
    left: list[Left]
    """Those that left after it."""
    examples: int
    """Examples that all candidates learned in this rung: units in the launch, and live rows."""
    cpu_seconds: float
    """CPU seconds of the trials of this rung."""


class Confirmation(Settings):
    """The last candidates, trained again by a full backfill and compared on the live rows."""

    decision: Decision | None
    """None where fewer than two candidates could be compared."""
    failed: dict[str, str] = Key(default_factory=dict)
    """Candidates whose backfill failed, and why."""
    rows: int
    """Live rows on which they were compared."""
    examples: int
    cpu_seconds: float


class Race(Settings):
    """The result of a race."""

    memory: str
    """The memory's folder or URI."""
    units: int
    stage: int
    """The memory's stage."""
    log: str
    block: str
    """The block whose rows the candidates met first."""
    tasks: list[str]
    confidence: float
    """Of every statement of the race, over all its looks together."""
    seeds: int
    """Seeds per candidate."""
    shares: list[float]
    """The rungs that were planned."""
    budget: str | None
    rungs: list[Rung]
    """The rungs that were run."""
    ended: Literal["winner", "rungs", "budget"]
    """Why the race ended: one candidate was left, the rungs were run, or the next one would have cost more than the budget."""
    winner: str
    """The best candidate: by the confirmation, where there is one."""
    standing: list[str]
    """The candidates that are left, the best first."""
    fidelity: list[OrderVerdict] = Key(default_factory=list)
    """Whether the order of launched candidates may be trusted, by a fidelity bench of this log and memory, per task; empty where none was
    given."""
    sentence: str = ""
    """Who wins, who cannot be told from the winner, and what it cost."""
    full_trainings: float
    """The cost, with that of the confirmation, in full trainings of one candidate with one seed each, counted in examples learned."""
    cpu_seconds: float
    """CPU seconds of all trials."""
    confirmation: Confirmation | None = None
    rows_of_log: int
    """Rows of a full training: those of all blocks before `block`."""
    memory_seconds: float | None = None
    """In a file of an earlier release: wall seconds in which the memory was made."""
    cost: Cost | None = None
    """What the race cost, the making of the memory included; None in a file of an earlier release."""
    candidates: dict[str, dict[str, Any]]
    """The spec of each candidate, by name, with the values that were drawn for it."""
    untracked: dict[str, str] = Key(default_factory=dict)
    """Trackers that failed during the race, and why."""
    versions: dict[str, str] = Key(default_factory=dict)
    """Of the packages on which this result depends; empty in a file of an earlier release."""

    @property
    def left(self) -> list[Left]:
        """Those that left, the last to leave first; within a rung the best first."""
        return [one for rung in reversed(self.rungs) for one in rung.left]

    def remarks(self) -> list[str]:
        """More lines: why it ended, the cost in seconds, and what failed."""
        last = self.rungs[-1]
        why = {
            "winner": f"It ended after {last.rows:,} rows, when one candidate was left",
            "rungs": f"It ended after the last rung, {last.rows:,} rows",
            "budget": f"It ended after {last.rows:,} rows, because the next rung would have cost more than the budget of {self.budget}",
        }[self.ended]
        lines = [why, *([self.cost.sentence()] if self.cost else []), *order_lines(self.fidelity)]
        if len(self.standing) > 1 and self.confirmation is None:
            lines += self._to_decide()
        lines += [f"{one.candidate} {one.how}: {one.why}" for one in self.left if one.how != "worse"]
        if self.confirmation:
            lines += [f"Backfill of {name} failed: {reason}" for name, reason in self.confirmation.failed.items()]
        lines += [f"Tracker {name} was not used any more after an error: {why}" for name, why in self.untracked.items()]
        return lines

    def table(self) -> Table:
        """All candidates for a terminal."""
        title = f"{len(self.candidates)} candidates from {self.units:,} units, raced on {self.rungs[-1].rows:,} rows from {self.block} on"
        # Why a candidate left is no column: that it was worse is the difference itself, other reasons are lines of `remarks`.
        first, _, *figures, _ = LINE_TITLES
        columns = [
            Column(first, min_width=max(len(name) for name in self.candidates), no_wrap=True),
            *(Column(name, justify="right") for name in (*figures, "left after")),
        ]
        table = narrow_table(*columns, title=title, caption_justify="left")
        to_the_leader = f"To the leader: nats of loss, {100 * self.confidence:g} % over all rungs"
        table.caption = f"{to_the_leader}. P(best): the chance to be the best of those that are in."
        for line in self.lines():
            name, rungs, *cells, why = line.cells()
            table.add_row(name, *cells, f"rung {rungs}" if why else "")
        return table

    def lines(self) -> list[Line]:
        """A line per candidate, the best first."""
        decision = self.rungs[-1].decision
        by_name = decision.by_name if decision else {}
        kept = [Line(name, len(self.rungs), "", by_name.get(name)) for name in self.standing]
        return [*kept, *(Line(one.candidate, one.rung, one.why, one.decided) for one in self.left)]

    def check(self) -> None:
        """Raise DietError where a trial failed."""
        failed = {one.candidate: one.why for one in self.left if one.how == "failed"}
        failed |= self.confirmation.failed if self.confirmation else {}
        if failed:
            first, why = next(iter(failed.items()))
            raise DietError(
                f"{times(len(failed), 'candidate')} failed, the others raced on; candidate {first!r}: {why}; fix it and run the race again "
                "with --restore"
            )

    def _to_decide(self) -> list[str]:
        """What would tell those apart that are left."""
        lines, rows = [], self.rungs[-1].rows
        decision = self.rungs[-1].decision
        parts = decision.candidates[1:] if decision else []
        needed = max((part.rows_needed for part in parts if part.candidate in self.standing), default=0)
        if rows < needed < math.inf:
            lines.append(f"{number(needed, 0)} rows would tell those that are left apart, if the differences stay")
        k = min(TO_CONFIRM, len(self.standing))
        cost = k * self.seeds * (1 + rows / self.rows_of_log)
        lines.append(
            f"To decide among the best {k} by full backfills: --restore --confirm {k}, for {cost:.1f} full trainings more"
        )
        return lines


def winner(standing: list[str], confirmation: Confirmation | None) -> str:
    """The best of the confirmation, where there is one; else the best of those that are left."""
    confirmed = confirmation.decision if confirmation else None
    return confirmed.candidates[0].candidate if confirmed else standing[0]


def sentence(race: Race) -> str:
    """Who wins, who cannot be told from the winner, and what it cost."""
    confirmed = race.confirmation.decision if race.confirmation else None
    percent = f"{100 * race.confidence:g} %"
    sure = f"({percent} over {len(race.shares)} looks)" if len(race.shares) > 1 else f"({percent})"
    if confirmed:
        first, untold = (
            f"{race.winner} wins, after full backfills of the last {len(confirmed.candidates)}",
            confirmed.undecided,
        )
        sure = f"({percent})"
    else:
        untold = race.standing[1:]
        first = f"{race.winner} is ahead" if untold else f"{race.winner} wins"
    told = f"; {few(untold)} cannot be told from it {sure}" if untold else f" {sure}"
    n, trainings = len(race.candidates), race.full_trainings
    less = n * race.seeds / trainings
    saved = (
        f"{less:.1f} times less than training all" if less > 1 else "which is more than training all: the log is short"
    )
    cost = f"{n} candidates with {race.seeds} seeds cost what {trainings:.1f} full trainings cost, {saved}"
    return f"{first}{told}; {cost}"


LINE_TITLES = ["candidate", "rungs", "loss, nats", "to the leader", "P(best)", "why it left"]


@dataclass(frozen=True)
class Line:
    """A candidate of a race, as tables show it."""

    candidate: str
    rungs: int
    """Rungs that it has run."""
    why: str
    """Why it left; empty where it is still in."""
    decided: Decided | None
    """Its last comparison."""

    def cells(self) -> list[str]:
        """The cells of `LINE_TITLES`."""
        part = self.decided
        if part is None:
            return [self.candidate, str(self.rungs), "-", "-", "-", self.why]
        return [
            self.candidate,
            str(self.rungs),
            number(part.mean, 4),
            part.against_best(" "),
            number(part.best, 2),
            self.why,
        ]


def leaving(decision: Decision | None, rung: int) -> list[Left]:
    """Those that leave after a rung because they are worse than the leader beyond doubt, the best of them first.

    Args:
        decision: the comparison of those that finished the rung, at the level of one look; None where there were fewer than two.
        rung: its number, from 1.
    """
    if decision is None:
        return []
    leader, *others = decision.candidates
    return [
        Left(
            candidate=part.candidate,
            rung=rung,
            how="worse",
            why=f"{number(part.difference, 4)} nats worse than {leader.candidate} ({number(part.low, 4)} to {number(part.high, 4)})",
            decided=part,
        )
        for part in others
        if part.adjusted < 1 - decision.confidence
    ]


def write_lines(out: Path, race: Race) -> None:
    """Write a line per candidate to `race.parquet` and `race.csv` in `out`."""
    rows = []
    for place, line in enumerate(race.lines(), start=1):
        part = line.decided
        rows.append(
            {
                "place": place,
                "candidate": line.candidate,
                "rungs": line.rungs,
                "rows": race.rungs[line.rungs - 1].rows,
                "why": line.why,
                **{key: getattr(part, key) if part else None for key in ("mean", "difference", "low", "high", "best")},
            }
        )
    types = {"place": pa.int64(), "candidate": pa.string(), "rungs": pa.int64(), "rows": pa.int64(), "why": pa.string()}
    schema = pa.schema(
        [*types.items(), *((key, pa.float64()) for key in ("mean", "difference", "low", "high", "best"))]
    )
    write_result(pa.Table.from_pylist(rows, schema=schema), out / "race")
