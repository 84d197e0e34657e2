"""numpy arrays of one or two dimensions as Arrow columns and back: `[N]` as a plain column, `[N, W]` as fixed-size lists of W."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def column_of(values: np.ndarray) -> pa.Array:
    """The Arrow column of `values [N]` or `[N, W]`."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def values_of(column: pa.ChunkedArray) -> np.ndarray:
    """The numpy values of a column without nulls, sharing its memory where it is one chunk."""
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):  # what combine_chunks gives where there is no chunk at all
        chunk = pa.array([], column.type)
    if pa.types.is_fixed_size_list(chunk.type):
        width: int = chunk.type.list_size
        return np.asarray(chunk.flatten().to_numpy()).reshape(len(chunk), width)
    return np.asarray(chunk.to_numpy())
