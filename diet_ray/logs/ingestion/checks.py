"""Shared parts of the checks of all columns: the origin of rows, the refusal of bad rows, and columns as arrays of plain values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError, first_line
from diet_ray.logs.ingestion.forms import one_array
from diet_ray.logs.notes import Note
from diet_ray.schema import NO_TEXT

EMPTY = "'' read as no value (schema key nulls)"
"""The note on empty texts that a file has beside nulls."""


@dataclass(frozen=True)
class Origin:
    """The origin of rows, for error messages and notes."""

    file: str
    """Path of the file."""
    rows: np.ndarray
    """`[N]` int64: each row's position in the file, from 0, the header not counted."""
    notes: list[Note] = field(default_factory=list, compare=False)
    """What was noted about the rows so far; origins made by `at` share it."""
    nulls: tuple[str, ...] = NO_TEXT
    """The texts that mean "no value" in these rows: the schema's key `nulls`."""
    instants: frozenset[str] = frozenset()
    """Columns whose timestamps are instants, although their type names no zone; see `Piece.int96`."""

    def at(self, index: np.ndarray) -> Origin:
        """The origin of the rows at the positions `index`, or where the mask `index` is true."""
        return replace(self, rows=self.rows[index])

    def note(self, column: str, concerned: np.ndarray, what: str) -> None:
        """Note what was done in the rows where the mask `concerned` is true, if there are any. Values of one list are one row."""
        if concerned.any():
            rows = len(np.unique(self.rows[concerned]))
            self.notes.append(Note(column=column, what=what, rows=rows, file=self.file))

    def refuse(
        self, column: str, bad: np.ndarray, problem: str, remedy: str, values: pa.Array | None = None
    ) -> NoReturn:
        """Raise BadRows for the rows where the mask `bad` is true; `{}` or `{!r}` in `problem` stands for each row's value."""
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
        problems: the problem of each row.
    """

    def __init__(self, file: str, column: str, rows: np.ndarray, problems: list[str], remedy: str) -> None:
        more = f", and {len(rows) - 1} more nearby" if len(rows) > 1 else ""
        super().__init__(file, f"{problems[0]} in row {rows[0]} (from 0){more}", column=column, remedy=remedy)
        self.rows, self.problems = rows, problems


@contextmanager
def usable(column: str, origin: Origin) -> Iterator[None]:
    """Turn Arrow's errors into a BadInputError that names the column. Arrow can read more types than it can compute with."""
    try:
        yield
    except pa.ArrowException as error:
        raise BadInputError(
            origin.file,
            f"cannot be used: {first_line(error)[:200]}",
            column=column,
            remedy="correct the column or the schema",
        ) from error


def whole(column: pa.ChunkedArray, name: str, origin: Origin, *, separated: bool = False) -> pa.Array:
    """The column as one array of plain values (`forms.py`), in which null means "no value" by the one rule for all sources: a null of the
    file, or one of the texts `origin.nulls`. Bytes are read as text. A column without any value has Arrow's type null, whatever it was.

    `separated`: the column's texts will be split, and an empty one has no parts in any case."""
    array = one_array(column)
    if pa.types.is_binary(array.type) or pa.types.is_fixed_size_binary(array.type):
        array = _text_of_bytes(array, name, origin)
    if pa.types.is_string(array.type):
        _utf8(array, name, origin)
        array = _without_null_texts(array, name, origin, told=not separated)
    if len(array) and array.null_count == len(array):
        return pa.nulls(len(array))
    return array


def _without_null_texts(column: pa.Array, name: str, origin: Origin, *, told: bool) -> pa.Array:
    lengths = pa.array([len(text.encode()) for text in origin.nulls], pa.int32())
    if not pc.any(pc.is_in(pc.binary_length(column), lengths)).as_py():
        return column
    hit = pc.is_in(column, pa.array(origin.nulls, pa.string()), skip_nulls=True)
    if told and origin.nulls == NO_TEXT:  # nobody asked for it
        origin.note(name, hit.to_numpy(zero_copy_only=False), EMPTY)
    return pc.if_else(hit, pa.scalar(None, pa.string()), column)


def _text_of_bytes(column: pa.Array, name: str, origin: Origin) -> pa.Array:
    """Bytes as text: older writers of Parquet do not say which of their columns are text."""
    fixed = pa.types.is_fixed_size_binary(column.type)
    text = column.cast(pa.binary()).view(pa.string())
    _utf8(text, name, origin, _NO_TEXT, _AS_TEXT)
    if fixed:  # shorter texts are filled up with zero bytes
        text = pc.utf8_rtrim(text, "\0")
    odd = pc.match_substring_regex(text, "[\\x00-\\x1f\\x7f]").fill_null(False).to_numpy(zero_copy_only=False)
    if odd.any():
        origin.refuse(name, odd, _NO_TEXT, _AS_TEXT)
    origin.note(name, ~nulls(text), "bytes read as text in UTF-8")
    return text


_NO_TEXT = "bytes that are no text"
_AS_TEXT = "write the column as text (numbers as numbers, UUIDs as Parquet's type UUID or as text)"


def _utf8(
    column: pa.Array,
    name: str,
    origin: Origin,
    problem: str = "text that is not UTF-8",
    remedy: str = "write the column in UTF-8",
) -> None:
    """Check that text is UTF-8: neither Parquet nor Arrow does."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        bad = np.array([_undecodable(value) for value in column.cast(pa.binary()).to_pylist()], bool)
        if not bad.any():
            raise
        origin.refuse(name, bad, problem, remedy)


def _undecodable(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def nulls(column: pa.Array) -> np.ndarray:
    """`[N]` bool: where there is no value."""
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)


def parsed(column: pa.Array, kind: pa.DataType, pattern: str, name: str, origin: Origin, noun: str) -> pa.Array:
    """A string array read as `kind`. Raises BadRows for text that does not match `pattern`; `noun` names that form in words."""
    bad = pc.invert(pc.match_substring_regex(column, pattern)).fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        remedy = "correct the value or the schema, whose key nulls lists texts that mean no value"
        origin.refuse(name, bad, f"text {{!r}}, where {noun} is needed", remedy, column)
    return column.cast(kind)


NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
"""A number in text."""


def check_finite(column: pa.Array, name: str, origin: Origin) -> None:
    """Raise BadRows where a floating array is NaN or infinite."""
    bad = pc.invert(pc.is_finite(column)).fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        origin.refuse(name, bad, "NaN or infinity", "write a missing value as null (an empty cell in CSV)")


def _brief(value: object) -> object:
    return value if not isinstance(value, str) or len(value) <= 100 else f"{value[:100]}..."
