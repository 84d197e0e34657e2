"""Conversion between numpy arrays, Arrow tables and bytes.

An array `[N]` becomes a plain column, an array `[N, W]` a column of fixed-size lists of W values. Tables travel between processes as Arrow
IPC streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa


def column_of(values: np.ndarray) -> pa.Array:
    """The Arrow column of `values [N]` or `[N, W]`."""
    flat = _arrow(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def values_of(column: pa.ChunkedArray) -> np.ndarray:
    """The numpy values of a column without nulls. They share the column's memory where it is one chunk."""
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):  # combine_chunks returns this for a column without chunks
        chunk = pa.array([], column.type)
    if pa.types.is_fixed_size_list(chunk.type):
        width: int = chunk.type.list_size
        return _numbers(chunk.flatten()).reshape(len(chunk), width)
    return _numbers(chunk)


# pyarrow's own `array` and `to_numpy` import pandas at their first call: a second, in which Ctrl-C and SIGTERM are lost without a word.


def _arrow(flat: np.ndarray) -> pa.Array:
    """The Arrow array of `flat [N]`, with its memory where it has numbers."""
    if flat.dtype.kind not in "iuf":
        return pa.array(flat)
    return pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])


def _numbers(plain: pa.Array) -> np.ndarray:
    """The values of an array without lists and nulls, read-only and with its memory where they are numbers."""
    is_number = pa.types.is_integer(plain.type) or pa.types.is_floating(plain.type)
    if not is_number or plain.null_count:
        return np.asarray(plain.to_numpy())
    values = np.frombuffer(
        plain.buffers()[1] or b"", plain.type.to_pandas_dtype()
    )  # numpy's type, in spite of its name
    values = values[plain.offset : plain.offset + len(plain)]
    values.flags.writeable = False
    return values


def runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of equal numbers in `values [N]`. An empty array has one empty run."""
    yield from pairwise([0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)])


def to_ipc(table: pa.Table) -> bytes:
    """A table, with its schema's metadata, as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_ipc(data: bytes) -> pa.Table:
    """Inverse of `to_ipc`; the table shares the memory of `data`."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


Columns = dict[str, tuple[Any, int | None]]
"""numpy type of each column of a table, and the length of its lists; None for plain values."""


def column_problems(schema: pa.Schema, wanted: Columns) -> Iterator[tuple[str, str]]:
    """The problems with the columns of a table, by its schema alone.

    Yields:
        The name of the column at fault, and its problem.
    """
    for name in sorted(wanted.keys() - set(schema.names)):
        yield name, "missing"
    for field in schema:
        if field.name not in wanted or len(schema.get_all_field_indices(field.name)) > 1:
            yield field.name, "does not belong here"
            continue
        kind, width = wanted[field.name]
        inner = pa.from_numpy_dtype(kind)
        if not _is(field.type, inner, width):
            right = inner if width is None else f"lists of {width} {inner}"
            yield field.name, f"is {field.type}, must be {right}"


def _is(kind: pa.DataType, inner: pa.DataType, width: int | None) -> bool:
    if width is None:
        return bool(kind == inner)
    # The child's name differs between Arrow and Parquet, so the types themselves may differ.
    return bool(pa.types.is_fixed_size_list(kind) and kind.list_size == width and kind.value_type == inner)
