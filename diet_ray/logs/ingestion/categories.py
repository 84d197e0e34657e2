"""Category values: the slots of columns with one value, several values or a sequence per row, and the hashes of texts."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.forms import is_list
from diet_ray.logs.ingestion.lists import AS_LIST, Listed, kept_values, note_printed_lists, printed_lists, ranks
from diet_ray.logs.ingestion.texts import text_of
from diet_ray.schema import HashedField, SequenceField


def categories(column: pa.Array, field: Listed, origin: Origin, *, allow_negative: bool) -> list[pa.Array]:
    """One nullable dictionary array of strings per slot of the field: its first `max_values` values, or those of a sequence from the newest
    on. All have one dictionary, whose values differ."""
    several = field.n_slots > 1 or isinstance(field, SequenceField)
    if field.separator is None and not is_list(column.type):
        if several:
            remedy = "set separator" if isinstance(field, SequenceField) else "set separator, or max_values: 1"
            if pa.types.is_string(column.type) and printed_lists(column).any():
                remedy = AS_LIST
            origin.wrong_type(field.source, column.type, "a list or a separator", remedy)
        coded = text_of(column, field.source, origin, allow_negative=allow_negative)
        note_printed_lists(coded, field.source, origin)
        return [coded]
    values, parent = kept_values(column, field, origin)
    if pa.types.is_nested(values.type):
        origin.wrong_type(field.source, column.type, "a list of single values", "flatten the column before ingest")
    if not several and is_list(column.type):
        longer = pc.greater(pc.list_value_length(column), 1).fill_null(False).to_numpy(zero_copy_only=False)
        origin.note(
            field.source, longer, "of several values in a list, the first one is read; for more, set max_values"
        )
    coded = text_of(values, field.source, origin.at(parent), allow_negative=allow_negative)
    return _slots(coded, parent, len(column), field.n_slots)


def _slots(coded: pa.DictionaryArray, parent: np.ndarray, n_rows: int, n_slots: int) -> list[pa.Array]:
    """Spread values `[M]`, whose rows `parent [M]` are ascending, over `n_slots` arrays of all rows; null where a row has fewer values."""
    rank, slots = ranks(parent, n_rows), []
    for slot in range(n_slots):
        at = np.flatnonzero(rank == slot)
        index = np.full(n_rows, -1)
        index[parent[at]] = at
        indices = coded.indices.take(pa.array(index, mask=index < 0))
        slots.append(pa.DictionaryArray.from_arrays(indices, coded.dictionary))
    return slots


def objects_of(texts: pa.Array) -> np.ndarray:
    """A string array as numpy objects."""
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


def stable_hash(texts: np.ndarray, key: str) -> np.ndarray:
    """`[N]` object array of str to `[N]` uint64: SipHash keyed with `key`, the same on every machine and in every release."""
    return np.asarray(
        pd.util.hash_array(texts, hash_key=hashlib.sha256(key.encode()).hexdigest()[:16], categorize=False), np.uint64
    )


def hashed(coded: pa.DictionaryArray, field: HashedField, first_id: int) -> pa.Array:
    """Nullable int32 ids of a nullable dictionary array of strings: the field's buckets, from `first_id` on."""
    bucket = (stable_hash(objects_of(coded.dictionary), field.name) % np.uint64(field.buckets)).astype(np.int32)
    return pa.array(bucket + np.int32(first_id), pa.int32()).take(coded.indices)
