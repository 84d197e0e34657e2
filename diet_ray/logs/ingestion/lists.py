"""The values of lists, for fields with several values and sequences: the first or the newest of each row, without those that are none.

A null, an empty text, a text of the schema's `nulls` and the field's `padding` are no values: they are dropped before lists are cut. A list
may be far longer than what is kept of it, and so it is looked at from the end that counts, only as far as needed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.checks import Origin, nulls, whole
from diet_ray.logs.ingestion.texts import canonical_texts
from diet_ray.schema import CategoryField, SequenceField

Listed = CategoryField | SequenceField
"""Fields whose column may hold several values per row."""

_GROWTH = 4
"""How many times as many values are looked at where the first ones did not suffice."""

_BRACKETED = r"^\s*(?:\[(?:[^\[\]]|\[[^\[\]]*\])*\]|\{(?:[^{}]|\{[^{}]*\})*\}|\(\s*['\"].*\))\s*$"
"""A list as pandas, DuckDB, ClickHouse, Postgres or JSON print it. `[a]|[b]` is none."""

_PRINTED_LIST = r"^\s*(?:\[\s*\]|\{\s*\}|[\[{(]\s*['\"].*[\]})]|[\[{][^\]}]*,.*[\]}])\s*$"
"""A text that can hardly be one value: brackets without anything, with quotes or with a comma inside."""


def kept_values(column: pa.Array, field: Listed, origin: Origin) -> tuple[pa.Array, np.ndarray]:
    """The values that a field keeps of each row.

    Args:
        column: `[N]` lists, or texts where the field has a separator.

    Returns:
        `[M]` values, at most `field.n_slots` of each row, its first or newest one first; and `[M]` int64 ascending, the row of each.
    """
    if field.separator is not None:
        _check_texts(column, field, origin)
    waiting, begin, end = np.arange(len(column)), 0, field.n_slots + 1
    n_kept = np.zeros(len(column), np.int64)
    values, parents = list[pa.Array](), list[np.ndarray]()
    while len(waiting):
        lists = column if len(waiting) == len(column) else column.take(pa.array(waiting))
        where = origin.at(waiting)
        if field.separator is not None:
            lists = pc.split_pattern(lists, field.separator, max_splits=end, reverse=_from_end(field))
        flat, parent, sizes = _window(lists, begin, end, from_end=_from_end(field))
        if field.separator is not None:
            flat = pc.utf8_trim_whitespace(flat)
            flat = pc.if_else(pc.equal(flat, ""), pa.scalar(None, pa.string()), flat)
        flat = whole(pa.chunked_array([flat]), field.source, where.at(parent))
        at = np.flatnonzero(_is_value(flat, field))
        row = waiting[parent[at]]
        kept = n_kept[row] + ranks(row, len(column)) < field.n_slots
        at, row = at[kept], row[kept]
        if len(at):
            values.append(flat.take(pa.array(at)))
            parents.append(row)
        n_kept += np.bincount(row, minlength=len(column))
        waiting = waiting[(sizes > end) & (n_kept[waiting] < field.n_slots)]
        begin, end = end, end * _GROWTH
    if not values:
        return pa.array([], pa.string()), np.zeros(0, np.int64)
    if len(values) == 1:
        return values[0], parents[0]
    rows = np.concatenate(parents)
    order = np.argsort(rows, kind="stable")
    return pa.concat_arrays(values).take(pa.array(order)), rows[order]


def ranks(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """`[M]` int64: the number of values of the same row before each one; `rows [M]`, ascending and below `n_rows`, are the values' rows."""
    n = np.bincount(rows, minlength=n_rows)
    return np.arange(len(rows)) - np.repeat(np.cumsum(n) - n, n)


def note_printed_lists(coded: pa.DictionaryArray, name: str, origin: Origin) -> None:
    """Note the values of a column with one value per row that look like lists."""
    texts = coded.dictionary
    odd = pc.or_(pc.or_(pc.starts_with(texts, "["), pc.starts_with(texts, "{")), pc.starts_with(texts, "("))
    if pc.any(odd).as_py():
        like_list = pc.and_(odd, pc.match_substring_regex(texts, _PRINTED_LIST))
        rows = pc.fill_null(like_list.take(coded.indices), False).to_numpy(zero_copy_only=False)
        origin.note(
            name, rows, "texts in brackets look like lists and are one value each; for several values, write a list"
        )


def _from_end(field: Listed) -> bool:
    return isinstance(field, SequenceField) and field.newest == "last"


def _check_texts(column: pa.Array, field: Listed, origin: Origin) -> None:
    if not pa.types.is_string(column.type):
        remedy = "remove separator from the field, or correct the column"
        origin.wrong_type(field.source, column.type, "text to split", remedy)
    bad = printed_lists(column)
    if bad.any():
        origin.refuse(field.source, bad, "text {!r}, a list in brackets,", AS_LIST, column)


AS_LIST = "write a list (in Parquet), or the values alone with a separator between them, such as new,sale"
"""What to do about lists in brackets."""


def printed_lists(column: pa.Array) -> np.ndarray:
    """`[N]` bool: where a text is a list in brackets. A separator would split it into pieces of a list's spelling."""
    opened = pc.match_substring_regex(column, r"^\s*[\[{(]").fill_null(False)
    if pc.any(opened).as_py():
        opened = pc.and_(opened, pc.match_substring_regex(column, _BRACKETED).fill_null(False))
    return np.asarray(opened.to_numpy(zero_copy_only=False), bool)


def _window(lists: pa.Array, begin: int, end: int, *, from_end: bool) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """The values `begin` to `end` of all lists, counted from their start or from their end; the index of each value's list, ascending;
    and the size of each list."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    first, last = offsets[:-1], offsets[1:]
    sizes = np.where(nulls(lists), 0, last - first)  # a null list may have values beneath it
    n = np.clip(sizes - begin, 0, end - begin)
    parent = np.repeat(np.arange(len(lists)), n)
    position = begin + np.arange(len(parent)) - np.repeat(np.cumsum(n) - n, n)
    at = last[parent] - 1 - position if from_end else first[parent] + position
    return lists.values.take(pa.array(at)), parent, sizes


def _is_value(flat: pa.Array, field: Listed) -> np.ndarray:
    present = ~nulls(flat)
    if field.padding is None or not present.any() or pa.types.is_nested(flat.type):
        return present
    padding = canonical_texts(pa.array([field.padding], pa.string()))[0]
    if pa.types.is_string(flat.type):  # long histories have many different texts; few of them begin like 0 or 0.0
        like = pc.or_(pc.equal(flat, padding), pc.starts_with(flat, pattern=f"{padding.as_py()}."))
    else:
        like = flat.is_valid()
    like = np.asarray(pc.fill_null(like, False).to_numpy(zero_copy_only=False), bool)
    coded = flat.filter(pa.array(like)).dictionary_encode()
    is_padding = pc.equal(canonical_texts(coded.dictionary), padding).take(coded.indices)
    present[like] = ~np.asarray(is_padding.to_numpy(zero_copy_only=False), bool)
    return present
