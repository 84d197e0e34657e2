"""The forms in which Arrow stores one and the same column, brought to one: dictionaries, runs, views, 64-bit offsets, small decimals,
extensions.

A plain array has values (booleans, integers, floats, text, bytes, decimals of 128 or 256 bits, dates, ...), or it has lists, with offsets
of 32 or 64 bits, whose values are plain; or it is what no column of a log may be, such as a struct.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_CASTS = (
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
)
"""Forms that Arrow itself can change."""

_UUID_DASHES = (8, 13, 18, 23)
_UUID_CHARS = 36


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column as one plain array."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # zero chunks, or more than fit one array
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return plain(array)


def plain(array: pa.Array) -> pa.Array:
    """An array of any type in its plain form; an array of a type that has none as it is."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        uuid = kind.extension_name == "arrow.uuid"
        return _uuid_texts(array.storage) if uuid else plain(array.storage)
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary).take(array.indices)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    if is_list(kind):
        return _plain_list(array)
    for belongs, to in _CASTS:
        if belongs(kind):
            return array.cast(to)
    return array


def is_list(kind: pa.DataType) -> bool:
    """Whether an array of this type holds lists. A map is none."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _plain_list(array: pa.Array) -> pa.Array:
    kind, null = array.type, array.is_null()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        # By hand: Arrow's own cast (26.0) empties the last list.
        sizes = np.where(null.to_numpy(zero_copy_only=False), 0, array.sizes.to_numpy()).astype(np.int64)
        ends = np.cumsum(sizes)
        at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(array.offsets.to_numpy() - (ends - sizes), sizes)
        offsets, values = np.concatenate([[0], ends]), plain(array.values).take(pa.array(at))
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, mask=null)
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
    values = plain(array.values)
    if values.type == array.type.value_type:
        return array
    make = pa.LargeListArray if pa.types.is_large_list(array.type) else pa.ListArray
    # A copy of the offsets, as Arrow takes no mask together with a slice of them.
    return make.from_arrays(pa.array(array.offsets.to_numpy().copy()), values, mask=null)


def _uuid_texts(storage: pa.Array) -> pa.Array:
    """UUIDs as text, such as `6f1cd4a1-...`, from their 16 bytes."""
    n = len(storage)
    raw = np.frombuffer(storage.buffers()[1] or b"", np.uint8)[16 * storage.offset :][: 16 * n]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[np.stack([raw >> 4, raw & 15], axis=1)]
    texts = np.full((n, _UUID_CHARS), ord("-"), np.uint8)
    texts[:, [char for char in range(_UUID_CHARS) if char not in _UUID_DASHES]] = digits.reshape(n, 32)
    offsets = pa.array(np.arange(n + 1) * _UUID_CHARS, pa.int32())
    whole = pa.StringArray.from_buffers(n, offsets.buffers()[1], pa.py_buffer(texts.tobytes()))
    return pc.if_else(storage.is_null(), pa.scalar(None, pa.string()), whole) if storage.null_count else whole
