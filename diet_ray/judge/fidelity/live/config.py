"""The config of the protocol `live`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field as Key
from pydantic import field_validator

from diet_ray.judge.launch import LaunchRecipe
from diet_ray.settings import Settings

StartName = Literal["memory", "refined", "unaligned", "random", "table", "scratch", "recent", "table+recent"]

MEANINGS: dict[StartName, str] = {
    "memory": "launched from the memory, not refined",
    "refined": "launched from the refined memory",
    "unaligned": "launched from a memory whose old units keep the labels and inputs of their own time",
    "random": "launched from as many random rows, with the reference's probabilities as labels",
    "table": "the reference's table and its moments, a net that has learned nothing",
    "scratch": "nothing",
    "recent": "one pass over the latest rows before the block, as many as a launch visits units (equal compute)",
    "table+recent": "the reference's table, then the same pass over the latest rows",
}
"""What a candidate has before it goes live."""


class LiveConfig(Settings):
    """Which starts the protocol `live` compares, on which blocks."""

    blocks: int | None = Key(default=None, ge=1)
    """Number of judging blocks. The last of them is the first test block; before the first of them the log needs a block to distil. None
    for three, or fewer where the log is short."""
    every: int = Key(default=1, ge=1)
    """Distance from one judging block to the next, in blocks."""
    shares: list[float] = Key(default=[0.1, 0.25, 0.5, 1.0], min_length=1)
    """Shares of a judging block after which candidates are compared, ascending. The report's answer is about the first."""
    starts: list[StartName] = Key(
        default=["memory", "random", "scratch", "table", "recent", "table+recent"], min_length=1
    )
    """What candidates start from. `memory` is always there."""
    recipe: LaunchRecipe = LaunchRecipe()
    """How a launched candidate learns the units."""

    @field_validator("shares")
    @classmethod
    def _ascending(cls, shares: list[float]) -> list[float]:
        if not all(0 < share <= 1 for share in shares) or sorted({*shares}) != shares:
            raise ValueError("must ascend, each above 0 and at most 1")
        return shares

    @field_validator("starts")
    @classmethod
    def _distinct(cls, starts: list[StartName]) -> list[StartName]:
        return list(dict.fromkeys(["memory", *starts]))
