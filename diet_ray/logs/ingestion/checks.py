"""Shared parts of the checks of all columns: the origin of rows, the refusal of bad rows, and columns as arrays of plain values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError
from diet_ray.logs.notes import Note


@dataclass(frozen=True)
class Origin:
    """The origin of rows, for error messages and notes."""

    file: str
    """Path of the file."""
    rows: np.ndarray
    """`[N]` int64: each row's position in the file, from 0, the header not counted."""
    notes: list[Note] = field(default_factory=list, compare=False)
    """What was noted about the rows so far; origins made by `at` share it."""
    instants: frozenset[str] = frozenset()
    """Columns whose timestamps are instants, although their type names no zone; see `Piece.int96`."""

    def at(self, index: np.ndarray) -> Origin:
        """The origin of the rows at the positions `index`, or where the mask `index` is true."""
        return Origin(self.file, self.rows[index], self.notes, self.instants)

    def note(self, column: str, concerned: np.ndarray, what: str) -> None:
        """Note what was done in the rows where the mask `concerned` is true, if there are any."""
        if concerned.any():
            self.notes.append(Note(column=column, what=what, rows=int(concerned.sum()), file=self.file))

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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            origin.file, f"cannot be used: {reason[:200]}", column=column, remedy="correct the column or the schema"
        ) from error


def whole(column: pa.ChunkedArray, name: str, origin: Origin) -> pa.Array:
    """The column as one array of plain values. Dictionaries and 64-bit offsets are details of storage, and are resolved here."""
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
    """Check that text is UTF-8: neither Parquet nor Arrow does."""
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


def nulls(column: pa.Array) -> np.ndarray:
    """`[N]` bool: where there is no value."""
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)


def parsed(column: pa.Array, kind: pa.DataType, pattern: str, name: str, origin: Origin, noun: str) -> pa.Array:
    """A string array read as `kind`. Raises BadRows for text that does not match `pattern`; `noun` names that form in words."""
    bad = pc.invert(pc.match_substring_regex(column, pattern)).fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        origin.refuse(name, bad, f"text {{!r}}, where {noun} is needed", "correct the value or the schema", column)
    return column.cast(kind)


def check_finite(column: pa.Array, name: str, origin: Origin) -> None:
    """Raise BadRows where a floating array is NaN or infinite."""
    bad = pc.invert(pc.is_finite(column)).fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        origin.refuse(name, bad, "NaN or infinity", "write a missing value as null (an empty cell in CSV)")


def _brief(value: object) -> object:
    return value if not isinstance(value, str) or len(value) <= 100 else f"{value[:100]}..."
