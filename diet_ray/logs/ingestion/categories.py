"""Category values: their canonical text and its hash, for columns with one value, several values or a sequence per row."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.checks import Origin, nulls, whole
from diet_ray.schema import CategoryField, HashedField, SequenceField

LONGEST = 4096
"""Most bytes in the text of one value. A longer text is not an id; it may be the rest of a CSV file after a stray quote."""

Listed = CategoryField | SequenceField
"""Fields whose column may hold several values per row."""

_INTEGRAL = r"^(-?(?:0|[1-9][0-9]*))\.0+$"


def categories(column: pa.Array, field: Listed, origin: Origin, *, allow_negative: bool) -> list[pa.Array]:
    """One nullable string array per slot of the field: its first `max_values` values, or those of a sequence from the newest on."""
    if field.separator is not None:
        column = _split(column, field, origin)
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        if field.n_slots > 1 or isinstance(field, SequenceField):
            remedy = "set separator" if isinstance(field, SequenceField) else "set separator, or max_values: 1"
            origin.wrong_type(field.source, column.type, "a list or a separator", remedy)
        return [decoded(text_of(column, field.source, origin, allow_negative=allow_negative))]
    flat, parent = _values(column, field)
    of_value = origin.at(parent)
    flat = whole(pa.chunked_array([flat]), field.source, of_value)
    if pa.types.is_null(flat.type):  # some writers store lists that are all empty in this way
        flat = flat.cast(pa.string())
    if pa.types.is_nested(flat.type):
        origin.wrong_type(field.source, column.type, "a list of single values", "flatten the column before ingest")
    if field.separator is not None:
        flat = pc.utf8_trim_whitespace(flat)
        flat = pc.if_else(pc.equal(flat, ""), pa.scalar(None, pa.string()), flat)
    present = ~nulls(flat)
    of_value = of_value.at(present)
    text = decoded(text_of(flat.filter(pa.array(present)), field.source, of_value, allow_negative=allow_negative))
    return _slots(text, parent[present], len(column), field.n_slots)


def _split(column: pa.Array, field: Listed, origin: Origin) -> pa.Array:
    if not pa.types.is_string(column.type):
        remedy = "remove separator from the field, or correct the column"
        origin.wrong_type(field.source, column.type, "text to split", remedy)
    if isinstance(field, SequenceField):  # older values stay in one piece, which `_values` drops
        return pc.split_pattern(column, field.separator, max_splits=field.length, reverse=field.newest == "last")
    return pc.split_pattern(column, field.separator)


def _values(column: pa.Array, field: Listed) -> tuple[pa.Array, np.ndarray]:
    """The values of all lists, and the index of each value's list. Of a sequence only the newest `length` values, newest first."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    begin, end = offsets[:-1], offsets[1:]
    n = np.where(nulls(column), 0, end - begin)  # a null list may have values beneath it
    if isinstance(field, SequenceField):
        n = np.minimum(n, field.length)
    parent = np.repeat(np.arange(len(column)), n)
    position = np.arange(len(parent)) - np.repeat(np.cumsum(n) - n, n)
    backwards = isinstance(field, SequenceField) and field.newest == "last"
    at = end[parent] - 1 - position if backwards else begin[parent] + position
    return column.values.take(pa.array(at)), parent


def _slots(text: pa.Array, parent: np.ndarray, n_rows: int, n_slots: int) -> list[pa.Array]:
    """Spread values `[M]`, whose rows `parent [M]` are ascending, over `n_slots` arrays of all rows; null where a row has fewer values."""
    rank, slots = np.arange(len(parent)) - np.searchsorted(parent, parent), []
    for slot in range(n_slots):
        at = np.flatnonzero(rank == slot)
        index = np.full(n_rows, -1)
        index[parent[at]] = at
        slots.append(text.take(pa.array(index, mask=index < 0)))
    return slots


def text_of(column: pa.Array, name: str, origin: Origin, *, allow_negative: bool) -> pa.DictionaryArray:
    """Canonical text of category values: 5, 5.0, "5" and "5.0" are one value, "05" is another."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_floating(kind):
        bad = pc.invert(pc.is_finite(column)).fill_null(False).to_numpy(zero_copy_only=False)
        if bad.any():
            origin.refuse(name, bad, "NaN or infinity where a category is needed", "write a missing value as null")
    elif not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    ):
        origin.wrong_type(name, kind, "an integer, text or date", "turn the column into text before ingest")
    coded = column.dictionary_encode()
    values = coded.dictionary
    if pa.types.is_floating(values.type):
        values = pa.array([str(int(v)) if v == int(v) else repr(v) for v in values.to_pylist()], pa.string())
    elif pa.types.is_string(values.type):
        values = pc.replace_substring_regex(values, _INTEGRAL, r"\1")
    else:
        values = values.cast(pa.string())
    long = pc.greater(pc.binary_length(values), LONGEST).to_numpy(zero_copy_only=False)
    if long.any():
        bad = pc.fill_null(pa.array(long).take(coded.indices), False).to_numpy(zero_copy_only=False)
        origin.refuse(
            name, bad, f"text of more than {LONGEST} bytes as one value", "is a quote missing? shorten the value"
        )
    if not allow_negative:
        negative = pc.match_substring_regex(values, r"^-[0-9]+$").to_numpy(zero_copy_only=False)
        if negative.any():
            bad = pc.fill_null(pa.array(negative).take(coded.indices), False).to_numpy(zero_copy_only=False)
            remedy = "write a missing value as null, or set allow_negative on the field"
            origin.refuse(name, bad, "negative id {}", remedy, values.take(coded.indices))
    again = values.dictionary_encode()  # several raw values may have the same text
    return pa.DictionaryArray.from_arrays(again.indices.take(coded.indices), again.dictionary)


def decoded(coded: pa.DictionaryArray) -> pa.Array:
    """The plain array of a dictionary array."""
    return coded.dictionary.take(coded.indices)


def objects_of(texts: pa.Array) -> np.ndarray:
    """A string array as numpy objects."""
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


def stable_hash(texts: np.ndarray, key: str) -> np.ndarray:
    """`[N]` object array of str to `[N]` uint64: SipHash keyed with `key`, the same on every machine and in every release."""
    return np.asarray(
        pd.util.hash_array(texts, hash_key=hashlib.sha256(key.encode()).hexdigest()[:16], categorize=False), np.uint64
    )


def hashed(text: pa.Array, field: HashedField, first_id: int) -> pa.Array:
    """Nullable int32 ids of a nullable string array: the field's buckets, from `first_id` on."""
    coded = text.dictionary_encode()
    bucket = (stable_hash(objects_of(coded.dictionary), field.name) % np.uint64(field.buckets)).astype(np.int32)
    return pa.array(bucket + np.int32(first_id), pa.int32()).take(coded.indices)
