"""Deltas in half precision: how refinement rounds them, and how a file keeps those of the units that have one.

A file keeps the column `delta` in one of two forms, whichever holds its values exactly:

    lists of F*d halffloat, null for a unit whose delta is zero     what refinement has moved
    lists of F*d float, no nulls                                    no unit has a delta, or alignment by maps made them

A process keeps them as dense float32 in either case (`Units.delta`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from diet_ray.memory.units import Units, to_arrow

if TYPE_CHECKING:
    from torch import Tensor

DELTA = "delta"


def halved(delta: Tensor) -> Tensor:
    """`delta`, of any shape, rounded to half precision, as float32.

    A value beyond the range of half precision (65,504; embeddings are below 1) becomes infinite: no student can learn such a unit, and the
    guard of refinement drops it.
    """
    return (
        delta.half().float() + 0.0
    )  # a zero has no sign: whether a file keeps it or not, it is read as the same bytes


def to_file(units: Units) -> pa.Table:
    """The units as a file keeps them."""
    table, n_values = to_arrow(units), units.delta[0].size if len(units) else 0
    moved = units.delta.any(axis=(1, 2))
    with np.errstate(over="ignore"):
        half = units.delta.astype(np.float16)
    if not moved.any() or not np.array_equal(half, units.delta):
        return table
    column = pa.FixedSizeListArray.from_arrays(pa.array(half.reshape(-1)), n_values, mask=pa.array(~moved))
    return table.set_column(table.column_names.index(DELTA), DELTA, column)


def full_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of `full`, by that of a file."""
    at = schema.get_field_index(DELTA)
    if not _half(schema, at):
        return schema
    return schema.set(at, pa.field(DELTA, pa.list_(pa.float32(), schema.field(at).type.list_size)))


def full(table: pa.Table) -> pa.Table:
    """The table of a file with `delta` as float32 and without nulls: 0 for a unit that has none. Single values that are null stay null."""
    at = table.schema.get_field_index(DELTA)
    if not _half(table.schema, at):
        return table
    column = pa.concat_arrays([pa.array([], table.schema.field(at).type), *table.column(at).chunks])
    width, there = column.type.list_size, column.is_valid().to_numpy(zero_copy_only=False)
    kept = column.flatten()
    values, empty = np.zeros((len(column), width), np.float32), np.zeros((len(column), width), bool)
    values[there] = kept.to_numpy(zero_copy_only=False).reshape(-1, width)
    empty[there] = kept.is_null().to_numpy(zero_copy_only=False).reshape(-1, width)
    flat = pa.array(values.reshape(-1), mask=empty.reshape(-1) if empty.any() else None)
    return table.set_column(at, DELTA, pa.FixedSizeListArray.from_arrays(flat, width))


def _half(schema: pa.Schema, at: int) -> bool:
    """Whether the column at the position `at`, -1 where it is missing or there twice, is lists of halffloat."""
    kind = schema.field(at).type if at >= 0 else None
    return kind is not None and bool(pa.types.is_fixed_size_list(kind) and pa.types.is_float16(kind.value_type))
