"""Checking the columns of a log and bringing them to one canonical form. Pure.

The canonical form of a table of N rows has the columns `time` int64 (ms since the epoch), `user` int64 (hash), `label.0`.. uint8, and
one column `slot.0`.. per id slot: nullable string for vocabulary fields, nullable int32 id for hashed ones, nullable float64 for
numeric ones. Null means a missing value. Nothing in it depends on other rows, so any piece of a log can be brought to it alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError
from diet_ray.schema import Field, Schema, Time

_PER_MS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
LONGEST = 4096
"""Bytes that the text of one value may have; a longer one is no id but, say, the rest of a CSV file behind a stray quote."""

_LATEST = np.datetime64("2200-01-01", "ms").astype(np.int64)
_INTEGRAL = r"^(-?(?:0|[1-9][0-9]*))\.0+$"


@dataclass(frozen=True)
class Origin:
    """Where rows came from, so that an error can say so."""

    file: str
    """Path of the file."""
    rows: np.ndarray
    """`[N]` int64: each row's position in the file, from 0, the header not counted."""

    def refuse(
        self, column: str, bad: np.ndarray, problem: str, remedy: str, values: pa.Array | None = None
    ) -> NoReturn:
        """Raise BadRows for the rows where the mask `bad` holds; `{}` or `{!r}` in `problem` stands for their `values`."""
        at = np.flatnonzero(bad)
        if values is None:
            problems = [problem] * len(at)
        else:
            problems = [problem.format(_brief(value)) for value in values.take(pa.array(at)).to_pylist()]
        raise BadRows(self.file, column, self.rows[at], problems, remedy)

    def wrong_type(self, column: str, kind: pa.DataType, wanted: str, remedy: str) -> NoReturn:
        """Raise BadInputError for a column of the wrong type."""
        raise BadInputError(self.file, f"has type {kind}, {wanted} is needed", column=column, remedy=remedy)


class BadRows(BadInputError):
    """Rows that break one rule. Without them the rest of their table may be sound.

    Attributes:
        rows: `[K]` int64, their positions in the file.
        problems: what is wrong with each.
    """

    def __init__(self, file: str, column: str, rows: np.ndarray, problems: list[str], remedy: str) -> None:
        more = f", and {len(rows) - 1} more nearby" if len(rows) > 1 else ""
        super().__init__(file, f"{problems[0]} in row {rows[0]} (from 0){more}", column=column, remedy=remedy)
        self.rows, self.problems = rows, problems


def canonical(table: pa.Table, schema: Schema, origin: Origin) -> pa.Table:
    """Check the rows of `table` (N rows, at least the columns of `schema`) and return their canonical form.

    Raises:
        BadInputError: a column has the wrong type. The message names file and column.
        BadRows: values that must not be learned from: a null time, user or label, a label other than 0/1, a NaN or an infinity, a
            negative id, text that is not UTF-8 or longer than `LONGEST`. The message names the first row.
    """
    columns = {"time": pa.array(read_time(table, schema.time, origin))}
    with _usable(schema.user, origin):
        columns["user"] = pa.array(_user(table, schema.user, origin))
    for task, name in enumerate(schema.tasks):
        with _usable(name, origin):
            columns[f"label.{task}"] = pa.array(_label(table, name, origin))
    slot = 0
    for index, field in enumerate(schema.fields):
        with _usable(field.source, origin):
            values = _field(table, field, int(schema.first_static_id[index]), origin)
        for part in values:
            columns[f"slot.{slot}"] = part
            slot += 1
    return pa.table(columns)


def _field(table: pa.Table, field: Field, first_id: int, origin: Origin) -> list[pa.Array]:
    """The slots of a field."""
    column = _whole(table[field.source], field.source, origin)
    if pa.types.is_null(column.type):  # how some writers store a column without any value
        values = [pa.nulls(len(column), pa.float64() if field.kind == "numeric" else pa.string())] * field.max_values
    elif field.kind == "numeric":
        values = [_numeric(column, field.source, origin)]
    else:
        values = _categories(column, field, origin)
    return [_hash(part, field, first_id) for part in values] if field.kind == "hashed" else values


@contextmanager
def _usable(column: str, origin: Origin) -> Iterator[None]:
    """Of what Arrow cannot do with a column, say which it is: the types that it knows are more than those it computes with."""
    try:
        yield
    except pa.ArrowException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            origin.file, f"cannot be used: {reason[:200]}", column=column, remedy="correct the column or the schema"
        ) from error


def pick(table: pa.Table, index: np.ndarray, origin: Origin) -> tuple[pa.Table, Origin]:
    """The rows at the positions `index`, and where they come from. Raises BadInputError for a column that Arrow cannot pick from."""
    columns = {}
    for name in table.column_names:
        with _usable(name, origin):
            # Arrow cannot yet pick from views.
            columns[name] = table[name].cast(_without_views(table[name].type)).take(pa.array(index))
    return pa.table(columns), Origin(origin.file, origin.rows[index])


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    inside = _without_views(kind.value_type) if pa.types.is_list(kind) else None
    return kind if inside is None or inside == kind.value_type else pa.list_(inside)


def read_time(table: pa.Table, time: Time, origin: Origin) -> np.ndarray:
    """The time column as `[N]` int64 ms since the epoch.

    Raises:
        BadInputError: the column has the wrong type.
        BadRows: a null, a value that is no time, or one outside 1970-2200 (usually a wrong unit).
    """
    with _usable(time.column, origin):
        column = _whole(table[time.column], time.column, origin)
        if column.null_count:
            origin.refuse(time.column, _nulls(column), "no time", "remove the row, or give it its time")
        stamp = _timestamps(column, time, origin) if time.unit == "timestamp" else _epoch(column, time, origin)
    _inside(stamp, 0, int(_LATEST), column, time, origin)
    return stamp


def stable_hash(texts: np.ndarray, key: str) -> np.ndarray:
    """`[N]` object array of str to `[N]` uint64: SipHash keyed with `key`, the same on every machine and in every release."""
    return np.asarray(
        pd.util.hash_array(texts, hash_key=hashlib.sha256(key.encode()).hexdigest()[:16], categorize=False), np.uint64
    )


def _brief(value: object) -> object:
    return value if not isinstance(value, str) or len(value) <= 100 else f"{value[:100]}..."


def _inside(stamp: np.ndarray, first: int, end: int, column: pa.Array, time: Time, origin: Origin) -> None:
    outside = (stamp < first) | (stamp >= end)
    if outside.any():
        remedy = f"is time.unit {time.unit!r} right? else correct the time"
        origin.refuse(time.column, outside, "time outside 1970-2200", remedy)


def _whole(column: pa.ChunkedArray, name: str, origin: Origin) -> pa.Array:
    """One array of plain values: dictionary and 64-bit-offset types are storage details that the rest need not know."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # zero chunks, or more than fit one array
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    if pa.types.is_string(array.type):
        _utf8(array, name, origin)
    return array


def _utf8(column: pa.Array, name: str, origin: Origin) -> None:
    """Neither Parquet nor Arrow looks whether what is called text is text."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        bad = np.array([_undecodable(value) for value in column.cast(pa.binary()).to_pylist()], bool)
        if not bad.any():
            raise
        origin.refuse(name, bad, "text that is not UTF-8", "write the column in UTF-8")


def _undecodable(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _nulls(column: pa.Array) -> np.ndarray:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)


def _epoch(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    times, divide = _PER_MS[time.unit]
    limit = int(_LATEST) * divide // times
    if pa.types.is_string(column.type):
        column = _parse(column, pa.int64(), r"^-?([0-9]{1,18}|[1-8][0-9]{18})$", time.column, origin, "an integer")
    if pa.types.is_floating(column.type):
        _finite(column, time.column, origin)
        stamp = np.clip(
            column.cast(pa.float64()).to_numpy(zero_copy_only=False), -1, limit
        )  # what is clipped is refused by the caller
        return np.asarray(np.floor(stamp * times / divide), np.int64)
    if not pa.types.is_integer(column.type):
        origin.wrong_type(
            time.column, column.type, "an integer epoch", "set time.unit to timestamp, or correct the column"
        )
    values = np.asarray(column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False))
    # Checked before scaling: a wrong unit must end in a message, not in an overflow.
    _inside(values, 0, limit, column, time, origin)
    return values * times // divide


def _timestamps(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    if pa.types.is_string(column.type):
        return _iso(column, time, origin)
    if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
        origin.wrong_type(
            time.column,
            column.type,
            "a date, timestamp or ISO text",
            "set time.unit to s, ms, us or ns for an integer epoch",
        )
    aware = False
    if pa.types.is_timestamp(column.type):
        aware, (times, divide) = column.type.tz is not None, _PER_MS[column.type.unit]
        # Before scaling, as above; a zone may move a time by less than a day.
        raw, day = column.cast(pa.int64()).to_numpy(zero_copy_only=False), 86_400_000 * divide // times
        _inside(raw, -day, int(_LATEST) * divide // times + day, column, time, origin)
    stamp = (
        column.cast(pa.timestamp("ms", column.type.tz if aware else None), safe=False)
        .cast(pa.int64())
        .to_numpy(zero_copy_only=False)
    )
    return np.asarray(stamp) if aware else _local(pd.DatetimeIndex(stamp.astype("datetime64[ms]")), time.timezone)


def _iso(column: pa.Array, time: Time, origin: Origin) -> np.ndarray:
    zoned = pc.match_substring_regex(column, r"[0-9](Z|[+-][0-9]{2}:?[0-9]{2})$").to_numpy(zero_copy_only=False)
    # A date such as 2022-04-25 ends like an offset; only what follows a time of day is one.
    zoned &= pc.match_substring(column, ":").to_numpy(zero_copy_only=False)
    text = column.to_numpy(zero_copy_only=False)
    stamp = np.zeros(len(column), np.int64)
    for mask, utc in ((zoned, True), (~zoned, False)):
        if mask.any():
            parsed = pd.DatetimeIndex(pd.to_datetime(text[mask], format="ISO8601", errors="coerce", utc=utc))
            if parsed.isna().any():
                bad = np.zeros(len(column), bool)
                bad[np.flatnonzero(mask)[parsed.isna()]] = True
                origin.refuse(
                    time.column,
                    bad,
                    "text that is no ISO 8601 time",
                    "write it as 2022-04-25 13:45:00, or set time.unit",
                )

            stamp[mask] = parsed.tz_localize(None).as_unit("ms").asi8 if utc else _local(parsed, time.timezone)
    return stamp


def _local(naive: pd.DatetimeIndex, timezone: str) -> np.ndarray:
    """Wall-clock times of a zone to ms; the hour that clocks repeat is read as its first pass, the one they skip as its end."""
    first = np.ones(len(naive), bool)
    aware = naive.as_unit("ms").tz_localize(timezone, ambiguous=first, nonexistent="shift_forward")
    return np.asarray(aware.tz_convert("UTC").tz_localize(None).as_unit("ms").asi8)


def _user(table: pa.Table, name: str, origin: Origin) -> np.ndarray:
    column = _whole(table[name], name, origin)
    if column.null_count:
        origin.refuse(name, _nulls(column), "no user", "remove the row, or give unknown users an id of their own")
    coded = _text(column, name, origin, allow_negative=True)
    hashes = (stable_hash(_objects(coded.dictionary), "user") >> np.uint64(1)).astype(np.int64)
    return np.asarray(hashes[coded.indices.to_numpy()])


def _label(table: pa.Table, name: str, origin: Origin) -> np.ndarray:
    column = _whole(table[name], name, origin)
    if column.null_count:
        origin.refuse(name, _nulls(column), "no label", "remove the row: an unknown outcome is no negative")
    if pa.types.is_string(column.type):
        column = pc.utf8_lower(column)
        one, zero = (pc.is_in(column, pa.array(words)) for words in (["1", "1.0", "true"], ["0", "0.0", "false"]))
    elif pa.types.is_boolean(column.type):
        one, zero = column, pc.invert(column)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        number = column.cast(pa.float64(), safe=False)
        one, zero = pc.equal(number, 1), pc.equal(number, 0)
    else:
        origin.wrong_type(name, column.type, "0/1 or a boolean", "make the label 0/1 before ingest")
    positive = one.to_numpy(zero_copy_only=False)
    other = ~(positive | zero.to_numpy(zero_copy_only=False))
    if other.any():
        origin.refuse(name, other, "label {!r}, which is not 0/1", "make the label 0/1 before ingest", column)
    return np.asarray(positive, np.uint8)


def _numeric(column: pa.Array, name: str, origin: Origin) -> pa.Array:
    if pa.types.is_string(column.type):
        number = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$|(?i)^\s*[+-]?(nan|inf|infinity)\s*$"
        column = _parse(pc.utf8_trim_whitespace(column), pa.float64(), number, name, origin, "a number")
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
    if not numeric and not pa.types.is_boolean(column.type):
        origin.wrong_type(name, column.type, "a number", "make the field hashed or vocabulary, or correct the column")
    column = column.cast(pa.float64(), safe=False)
    _finite(column, name, origin)
    return column


def _parse(column: pa.Array, kind: pa.DataType, pattern: str, name: str, origin: Origin, what: str) -> pa.Array:
    bad = pc.invert(pc.match_substring_regex(column, pattern)).fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        origin.refuse(name, bad, f"text {{!r}}, where {what} is needed", "correct the value or the schema", column)
    return column.cast(kind)


def _finite(column: pa.Array, name: str, origin: Origin) -> None:
    bad = pc.invert(pc.is_finite(column)).fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        origin.refuse(name, bad, "NaN or infinity", "write a missing value as null (an empty cell in CSV)")


def _categories(column: pa.Array, field: Field, origin: Origin) -> list[pa.Array]:
    """One nullable string array per slot of the field."""
    name = field.source
    if field.separator is not None:
        if not pa.types.is_string(column.type):
            origin.wrong_type(
                name, column.type, "text to split", "remove separator from the field, or correct the column"
            )
        column = pc.split_pattern(column, field.separator)
    listed = (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    )
    if not listed:
        if field.max_values > 1:
            origin.wrong_type(name, column.type, "a list or a separator", "set separator, or max_values: 1")
        return [_decode(_text(column, name, origin, allow_negative=field.allow_negative))]
    flat, parent = column.flatten(), pc.list_parent_indices(column).to_numpy()
    of_value = Origin(origin.file, origin.rows[parent])
    flat = _whole(pa.chunked_array([flat]), name, of_value)
    if pa.types.is_null(flat.type):  # how some writers store lists that are all empty
        flat = flat.cast(pa.string())
    if pa.types.is_nested(flat.type):
        origin.wrong_type(name, column.type, "a list of single values", "flatten the column before ingest")
    if field.separator is not None:
        flat = pc.utf8_trim_whitespace(flat)
        flat = pc.if_else(pc.equal(flat, ""), pa.scalar(None, pa.string()), flat)
    present = ~_nulls(flat)
    values = _text(
        flat.filter(pa.array(present)),
        name,
        Origin(origin.file, of_value.rows[present]),
        allow_negative=field.allow_negative,
    )
    parent = parent[present].astype(np.int64)
    rank = np.arange(len(parent)) - np.searchsorted(parent, parent)
    text, slots = _decode(values), []
    for slot in range(field.max_values):
        at = np.flatnonzero(rank == slot)
        index = np.full(len(column), -1)
        index[parent[at]] = at
        slots.append(text.take(pa.array(index, mask=index < 0)))
    return slots


def _text(column: pa.Array, name: str, origin: Origin, *, allow_negative: bool) -> pa.DictionaryArray:
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
    again = values.dictionary_encode()  # several raw values may have one text
    return pa.DictionaryArray.from_arrays(again.indices.take(coded.indices), again.dictionary)


def _decode(coded: pa.DictionaryArray) -> pa.Array:
    return coded.dictionary.take(coded.indices)


def _objects(texts: pa.Array) -> np.ndarray:
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


def _hash(text: pa.Array, field: Field, first_id: int) -> pa.Array:
    coded = text.dictionary_encode()
    bucket = (stable_hash(_objects(coded.dictionary), field.name) % np.uint64(field.buckets)).astype(np.int32)
    return pa.array(bucket + np.int32(first_id), pa.int32()).take(coded.indices)
