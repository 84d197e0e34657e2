"""Checks of the columns of a log, and their conversion to one canonical form.

The canonical form of a table of N rows has the columns `time` int64 (ms since the epoch), `user` int64 (hash), `label.0`.. uint8, and
one column `slot.0`.. per id slot: a nullable dictionary of strings for vocabulary fields (one for all slots of a field), nullable int32 id
for hashed ones, nullable float64 for numeric ones. Null means a missing value. No row depends on other rows, so any piece of a log can be
converted alone.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.categories import categories, hashed, objects_of, stable_hash
from diet_ray.logs.ingestion.checks import NUMBER, Origin, check_finite, nulls, parsed, usable, whole
from diet_ray.logs.ingestion.forms import one_array
from diet_ray.logs.ingestion.texts import BOOLEANS, canonical_texts, text_of
from diet_ray.logs.ingestion.times import read_time
from diet_ray.schema import CategoryField, Field, HashedField, NumericField, Schema


def canonical(table: pa.Table, schema: Schema, origin: Origin) -> pa.Table:
    """Check the rows of `table` (N rows, at least the columns of `schema`) and return their canonical form.

    Raises:
        BadInputError: a column has the wrong type. The message names file and column.
        BadRows: values that must not be learned from: a null time, user or label, a label other than 0/1, a NaN or an infinity, a
            negative id, an id as a float beyond exactness, text that is not UTF-8 or longer than `LONGEST`, a list in brackets where
            text is split. The message names the first row.
    """
    columns = {"time": pa.array(read_time(table, schema.time, origin))}
    with usable(schema.user, origin):
        columns["user"] = pa.array(_user(table, schema.user, origin))
    for task, name in enumerate(schema.tasks):
        with usable(name, origin):
            columns[f"label.{task}"] = pa.array(_label(table, name, origin))
    slot, first_id = 0, schema.first_static_id
    for field, (index, of) in zip(schema.fields, schema.lenders, strict=True):
        with usable(field.source, origin):
            values = _field(table, field, of, int(first_id[index]), origin)
        for part in values:
            columns[f"slot.{slot}"] = part
            slot += 1
    return pa.table(columns)


def _field(table: pa.Table, field: Field, of: Field, first_id: int, origin: Origin) -> list[pa.Array]:
    """The slots of a field. It uses the ids of the field `of`, from `first_id` on: itself, or the field that a sequence is made of."""
    separated = not isinstance(field, NumericField) and field.separator is not None
    column = whole(table[field.source], field.source, origin, separated=separated)
    if field.source in origin.instants:  # as a category, INT96 has the digits of nanoseconds
        column = column.cast(pa.timestamp("ns"))
    if pa.types.is_null(column.type):  # some writers store a column without any value in this way
        none = pa.nulls(len(column), pa.float64() if field.kind == "numeric" else pa.string())
        values = [none if field.kind == "numeric" else none.dictionary_encode()] * field.n_slots
    elif field.kind == "numeric":
        values = [_numeric(column, field.source, origin)]
    else:
        assert isinstance(of, CategoryField), "the schema has been checked: no sequence is made of a numeric field"
        values = categories(column, field, origin, allow_negative=of.allow_negative)
    return [hashed(part, of, first_id) for part in values] if isinstance(of, HashedField) else values


def pick(table: pa.Table, index: np.ndarray, origin: Origin) -> tuple[pa.Table, Origin]:
    """The rows at the positions `index`, and their origin. Raises BadInputError for a column from which Arrow cannot pick."""
    columns = {}
    for name in table.column_names:
        with usable(name, origin):
            # Arrow cannot pick rows from columns of all forms.
            columns[name] = one_array(table[name]).take(pa.array(index))
    return pa.table(columns), origin.at(index)


def _user(table: pa.Table, name: str, origin: Origin) -> np.ndarray:
    column = whole(table[name], name, origin)
    if column.null_count:
        origin.refuse(name, nulls(column), "no user", "remove the row, or give unknown users an id of their own")
    coded = text_of(column, name, origin, allow_negative=True)
    hashes = (stable_hash(objects_of(coded.dictionary), "user") >> np.uint64(1)).astype(np.int64)
    return np.asarray(hashes[coded.indices.to_numpy()])


def _label(table: pa.Table, name: str, origin: Origin) -> np.ndarray:
    column = whole(table[name], name, origin)
    if column.null_count:
        origin.refuse(name, nulls(column), "no label", "remove the row: an unknown outcome is not a negative")
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_boolean(kind) or _is_number(kind)):
        origin.wrong_type(name, kind, "0/1 or a boolean", "make the label 0/1 before ingest")
    coded = column.dictionary_encode()
    raw = coded.dictionary
    texts = canonical_texts(pc.utf8_lower(raw) if pa.types.is_string(raw.type) else raw)
    is_one, is_zero = (pc.equal(texts, text).take(coded.indices) for text in "10")
    positive = is_one.to_numpy(zero_copy_only=False)
    other = ~(positive | is_zero.to_numpy(zero_copy_only=False))
    if other.any():
        origin.refuse(name, other, "label {!r}, which is not 0/1", "make the label 0/1 before ingest", column)
    return np.asarray(positive, np.uint8)


def _numeric(column: pa.Array, name: str, origin: Origin) -> pa.Array:
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        is_word = pc.is_in(column, pa.array(list(BOOLEANS)))
        if pc.any(is_word).as_py():
            column = pc.if_else(is_word, canonical_texts(pc.if_else(is_word, column, "0")), column)
        column = parsed(column, pa.float64(), NUMBER + r"|(?i)^[+-]?(nan|inf|infinity)$", name, origin, "a number")
    if not _is_number(column.type) and not pa.types.is_boolean(column.type):
        origin.wrong_type(name, column.type, "a number", "make the field hashed or vocabulary, or correct the column")
    if pa.types.is_decimal(column.type):
        coded = column.dictionary_encode()
        # By way of text: Arrow's own cast is one bit off for one price in seven.
        column = coded.dictionary.cast(pa.string()).cast(pa.float64()).take(coded.indices)
    column = column.cast(pa.float64(), safe=False)
    check_finite(column, name, origin)
    return column


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
