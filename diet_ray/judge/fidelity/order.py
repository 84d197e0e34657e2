"""The verdict on the order of the candidates: may it be trusted? One rule on intervals, for both protocols of the bench.

The rule reads Spearman's correlation of the memory's order with that of the full log, and its bootstrap interval. A bootstrap of few
candidates is too narrow, so each side of the interval reaches at least as far as chance does: 1.96 / sqrt(n - 1) for n candidates, the
two-sided 5 % level of Spearman between unrelated orders. Then

* `trusted`: the interval is above 0, the value is at least `USEFUL`, the order is not shown to be worse than the full log's own, and more
  than one seed was measured;
* `chance`: the interval holds 0 and ends below `USEFUL`;
* `not shown`: anything else. The reason says what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from diet_ray.errors import ConfigError
from diet_ray.figures import number
from diet_ray.judge.fidelity.measures import Interval
from diet_ray.settings import Settings

USEFUL = 0.5
"""Spearman from which an order helps to choose: of two candidates the better one then comes first in about two of three cases."""

Z = 1.959963984540054
"""Normal quantile of the two-sided 5 % level."""

LEAST = 5
"""Candidates from which an order can be told from chance at all: with fewer, even the right order is no rarer than 1 in 20."""

ENOUGH = 17
"""Candidates from which an order as good as `USEFUL` can be told from chance."""

WORDS = {"trusted": "may be trusted", "not shown": "not shown", "chance": "no better than chance"}


UNPROVEN = "No fidelity run: order unproven; `diet-ray fidelity` measures it on your log, and --fidelity DIR shows its verdict here"
"""What a leaderboard says where no bench speaks for it."""


class OrderVerdict(Settings):
    """Whether the order of the candidates on the memory may be trusted."""

    protocol: Literal["live", "frozen"]
    task: str
    order: Literal["trusted", "not shown", "chance"]
    because: str
    """The reason, in words."""
    spearman: Interval
    """Of the memory's order with the full log's."""
    candidates: int
    """Candidates that were compared."""
    seeds: int

    @property
    def sentence(self) -> str:
        """`Order of TASK, live: may be trusted, because ...`"""
        return f"Order of {self.task}, {self.protocol}: {WORDS[self.order]}, because {self.because}"


def order_lines(verdicts: Sequence[OrderVerdict]) -> list[str]:
    """What a leaderboard says of its order."""
    return [verdict.sentence for verdict in verdicts] or [UNPROVEN]


def reach_of_chance(candidates: int) -> float:
    """The |Spearman| that unrelated orders of so many candidates exceed once in 20 times; above 1 where no order can."""
    return Z / math.sqrt(candidates - 1) if candidates > 1 else math.inf


def judge_order(
    protocol: Literal["live", "frozen"],
    task: str,
    spearman: Interval,
    *,
    candidates: int,
    seeds: int,
    ceiling: Interval | None,
    lower: bool,
) -> OrderVerdict:
    """The verdict on one task.

    Args:
        protocol: of the bench.
        task: the task.
        spearman: of the memory with the full log, with its bootstrap interval.
        candidates: how many were compared.
        seeds: of each set.
        ceiling: the same of the full log itself, for the words.
        lower: whether the memory is shown to order the candidates worse than the full log itself does.
    """
    value, low, high, reach = spearman.value, spearman.low, spearman.high, reach_of_chance(candidates)
    shown = f"Spearman with the full log is {number(value, 2)} ({number(low, 2)} to {number(high, 2)})"
    own = f"the full log's own{f', {number(ceiling.value, 2)}' if ceiling and math.isfinite(ceiling.value) else ''}"
    order: Literal["trusted", "not shown", "chance"] = "not shown"
    if not all(map(math.isfinite, (value, low, high))):
        because = "it cannot be measured: too few candidates have a result, or all have the same"
    elif candidates < LEAST:
        because = f"{candidates} candidates are too few: even the right order comes up by chance; name {LEAST} or more"
    elif min(low, value - reach) > 0:
        if value < USEFUL:
            because = f"{shown}: better than chance, but below {USEFUL:g}, from which an order helps to choose"
        elif lower:
            because = f"{shown}: better than chance, but lower than {own}"
        elif seeds < 2:
            because = f"{shown}, but of one seed: how far another memory changes the order is not known"
        else:
            order, because = (
                "trusted",
                f"{shown}: above chance, {USEFUL:g} or more, and not shown to be lower than {own}",
            )
    elif max(high, value + reach) < USEFUL:
        order, because = "chance", f"{shown}: not above 0, and below {USEFUL:g}, from which an order helps to choose"
    elif low <= 0 and high >= USEFUL:
        because = f"{shown}, which holds both 0, no agreement, and {USEFUL:g}, from which an order helps to choose"
    else:
        because = f"{shown}, and chance alone reaches \u00b1{reach:.2f} with {candidates} candidates"
    return OrderVerdict(
        protocol=protocol,
        task=task,
        order=order,
        because=because,
        spearman=spearman,
        candidates=candidates,
        seeds=seeds,
    )


def check_candidates(candidates: int) -> str:
    """What so many candidates can show, to be told before they are trained; empty where there are enough.

    Raises:
        ConfigError: there are too few for any verdict.
    """
    if candidates < LEAST:
        raise ConfigError(
            f"key 'candidates': {candidates} are too few to judge an order: of 4 candidates, chance gives the right order or its reverse "
            f"1 time in 12, so no interval can leave out chance; name {LEAST} or more, {ENOUGH} to recognise an order with a Spearman of "
            f"{USEFUL:g}"
        )
    if candidates < ENOUGH:
        return (
            f"{candidates} candidates are few: only an order with a Spearman above {reach_of_chance(candidates):.2f} can be told from "
            f"chance; with {ENOUGH} candidates, one of {USEFUL:g} can"
        )
    return ""
