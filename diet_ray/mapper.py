"""One function, called for many descriptions of work: the interface by which a pass runs in this process or on a cluster.

A pass such as `ingest` takes a `Mapper`: `in_turn` for this process, `diet_ray.engine.fan_out` for a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

Progress = Callable[[str, int, int, int], None]
"""Called as `on_progress(stage, done, total, rows)` after each piece or shard; rows is the sum so far in this stage."""


def no_progress(stage: str, done: int, total: int, rows: int) -> None:
    """Ignore the progress."""


class Mapper(Protocol):
    """Calls one function for each of many descriptions."""

    def __call__(
        self, function: Callable[..., bytes], descriptions: Sequence[str], /, **shared: Any
    ) -> Iterator[bytes]:
        """Yield `function(description, **shared)` for each description, in order.

        Args:
            function: importable by its module's name. A lost call runs again, so its only effect is on files that no other call writes.
            descriptions: what each call is to do, such as JSON that names a file.
            shared: arguments that are the same for all calls.

        Raises:
            DietError: the first one, in the order of `descriptions`, that a call raised.
        """
        ...


def in_turn(function: Callable[..., bytes], descriptions: Sequence[str], /, **shared: Any) -> Iterator[bytes]:
    """The `Mapper` of this process: one call after another, each when its result is asked for."""
    for description in descriptions:
        yield function(description, **shared)
