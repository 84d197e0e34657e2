"""Checks of rows as they are read: a checksum shows that a file is the one that its manifest names, not that its rows have a meaning.

They are a few comparisons of whole columns: less than a hundredth of the time that a pass over the rows takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diet_ray.logs.manifests import BlockManifest, LogShard
from diet_ray.logs.rows import Rows
from diet_ray.schema import Schema
from diet_ray.storage.faults import few


class RowProblem(NamedTuple):
    """A problem of a shard's rows."""

    column: str
    """The column at fault."""
    what: str
    """The problem, with the number of rows at fault and the first of them."""


@dataclass(frozen=True)
class Slots:
    """The ids that each of the S id slots of a row may hold."""

    low: np.ndarray
    """`[S]` uint32: the first id of the slot's field."""
    size: np.ndarray
    """`[S]` uint32: the number of its fixed ids; 0 for a vocabulary, whose ids go from `low` to the end of the id space."""
    unknown: np.ndarray
    """`[S]` int32: the field's `unknown` id."""
    optional: np.ndarray
    """`[S]` bool: whether the slot may be empty, which is id 0."""
    field: list[str]
    """`[S]`: the field's name."""

    @staticmethod
    def of(schema: Schema) -> Slots:
        """The slots of the rows of a log."""
        owner, names, declared, start = (
            schema.field_of_slot,
            schema.field_names,
            schema.declared,
            schema.first_static_id,
        )
        number = {name: index for index, name in enumerate(names)}
        lender = [number[field.of or ""] if field.kind == "sequence" else index for index, field in enumerate(declared)]
        size = [declared[index].n_buckets for index in lender]
        low = [start[index] if n else start[-1] for index, n in zip(lender, size, strict=True)]
        sequence = np.array([field.kind == "sequence" for field in declared])
        further = np.concatenate([[False], owner[1:] == owner[:-1]])
        return Slots(
            low=np.array(low, np.uint32)[owner],
            size=np.array(size, np.uint32)[owner],
            unknown=(owner + 1).astype(np.int32),
            optional=sequence[owner] | further,
            field=[names[index] for index in owner],
        )

    def problems(self, ids: np.ndarray, row_id: np.ndarray, n_ids: int) -> Iterator[str]:
        """The problems with `ids [N, S]` of the rows `row_id [N]` in an id space of `n_ids`."""
        # As unsigned numbers, ids below 0 are above all others, and one comparison tests both ends of a range.
        unsigned = np.ascontiguousarray(ids).view(np.uint32)
        bad = unsigned - self.low >= np.where(self.size, self.size, np.uint32(n_ids) - self.low)
        if not bad.any():
            return
        bad &= ids != self.unknown
        bad &= ~((ids == 0) & self.optional)
        beyond = bad & (unsigned >= np.uint32(n_ids))
        if beyond.any():
            yield f"{few(row_id, beyond.any(axis=1), 'rows')}: outside [0, {n_ids})"
        foreign = bad & ~beyond
        if foreign.any():
            slot = int(np.argmax(foreign.any(axis=0)))
            value = int(ids[np.argmax(foreign[:, slot]), slot])
            yield f"{few(row_id, foreign.any(axis=1), 'rows')}: {value} is no id of field {self.field[slot]!r}"


class Last(NamedTuple):
    """The last row of a shard."""

    row_id: int
    time: int


def row_problems(
    rows: Rows, slots: Slots, block: BlockManifest, shard: LogShard, before: Last | None
) -> Iterator[RowProblem]:
    """The problems with the values and the order of rows.

    Args:
        rows: N >= 1 rows of the shard, whose columns have the types and widths of the schema.
        slots: what their ids may be.
        block: the manifest of the block.
        shard: its entry of the shard.
        before: the last row of the shard before in the block; None where it is not known.
    """
    row_id, time, labels = rows.row_id, rows.time, rows.labels
    for problem in slots.problems(rows.ids, row_id, block.n_ids):
        yield RowProblem("ids", problem)
    if labels.max() > 1:
        yield RowProblem("labels", f"{few(row_id, np.asarray((labels > 1).any(axis=1)), 'rows')}: neither 0 nor 1")
    elif labels.sum(axis=0, dtype=np.int64).tolist() != shard.positives:
        yield RowProblem("labels", "other positives than the manifest says")
    for column, first, later, problem in (
        (
            "row_id",
            before is not None and row_id[0] <= before.row_id,
            row_id[1:] <= row_id[:-1],
            "not above the one before",
        ),
        ("time", before is not None and time[0] < before.time, time[1:] < time[:-1], "earlier than the one before"),
    ):
        if first or later.any():
            yield RowProblem(column, f"{few(row_id, np.append(first, later), 'rows')}: {problem}")
    if time.min() < block.time_min or time.max() > block.time_max:
        bad = np.asarray((time < block.time_min) | (time > block.time_max))
        yield RowProblem("time", f"{few(row_id, bad, 'rows')}: outside the block's times")


def last_of(rows: Rows) -> Last:
    """The last of N >= 1 rows."""
    return Last(int(rows.row_id[-1]), int(rows.time[-1]))
