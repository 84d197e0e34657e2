"""What a column of a sample holds: its kind of value, how many different ones, how many are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.checks import NUMBER
from diet_ray.logs.ingestion.forms import is_list, one_array
from diet_ray.logs.ingestion.lists import printed_lists
from diet_ray.logs.ingestion.texts import BOOLEANS, NULL_WORDS

Kind = Literal["time", "integer", "float", "boolean", "text", "list", "unusable"]

SEPARATORS = "|;,"
"""What may separate several values in a text. A space is none: titles have spaces."""

_INTEGER = r"^[+-]?[0-9]{1,18}$"
_MANY = 0.1
"""Share of texts with a separator from which the column holds several values per row."""


@dataclass(frozen=True)
class Column:
    """A column of a sample of N rows."""

    name: str
    kind: Kind
    """The kind of its values, or of the texts that spell them."""
    array: pa.Array
    """`[N]` values as the file holds them; texts that mean "no value" are nulls."""
    is_text: bool
    """Whether the file holds its values as text."""
    null_words: list[str] = field(default_factory=list)
    """Texts that mean "no value" and that the column has."""
    separator: str | None = None
    """What separates several values in its texts."""
    why_unusable: str = ""
    """Why an ingest could not read it as a field."""

    @property
    def missing(self) -> float:
        """Share of rows without a value."""
        return float(self.array.null_count / max(len(self.array), 1))

    @cached_property
    def members(self) -> pa.Array:
        """The single values, without nulls: the members of lists, the parts of texts with a separator."""
        values = self.array
        if self.kind == "list":
            lists = pc.split_pattern(values, self.separator) if self.separator else values
            values = one_array(pa.chunked_array([lists.drop_null().flatten()]))
            if self.separator:
                values = pc.utf8_trim_whitespace(values)
        return values.drop_null()

    @cached_property
    def distinct(self) -> pa.Array:
        """The different single values."""
        return self.members.unique()

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of values of each row that has any; 1 where it holds no lists."""
        present = self.array.drop_null()
        if self.kind != "list":
            return np.ones(len(present), np.int64)
        lists = pc.split_pattern(present, self.separator) if self.separator else present
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        return np.asarray(lengths[lengths > 0], np.int64)

    @cached_property
    def numbers(self) -> np.ndarray:
        """`[N]` float64 of a column of numbers or booleans, nan where there is no value."""
        values = self.array
        if self.is_text and self.kind == "boolean":
            values = pd.Series(values.to_pandas()).map(BOOLEANS)
            return np.asarray(pd.to_numeric(values).to_numpy(), np.float64)
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.string())
        return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    @property
    def is_binary(self) -> bool:
        """Whether all rows have a value, and all values are 0 or 1."""
        if self.kind not in ("integer", "boolean", "float") or self.array.null_count:
            return False
        return bool(len(self.distinct) <= 4 and np.isin(self.numbers, (0, 1)).all())


def columns_of(table: pa.Table) -> list[Column]:
    """What each column of a sample holds."""
    return [_column(name, one_array(table[name])) for name in table.column_names]


def _column(name: str, array: pa.Array) -> Column:
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.cast(kind.value_type)
        kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        try:
            array = array.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            return Column(name, "unusable", array, False, why_unusable="bytes that are no text")
        kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text(name, array.cast(pa.string()))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Column(name, "time", array, False)
    if pa.types.is_boolean(kind):
        return Column(name, "boolean", array, False)
    if pa.types.is_integer(kind):
        return Column(name, "integer", array, False)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Column(name, "float", array, False)
    if is_list(kind):
        if pa.types.is_nested(kind.value_type):
            return Column(name, "unusable", array, False, why_unusable="lists of lists or structs: flatten it")
        return Column(name, "list", array, False)
    if pa.types.is_null(kind):
        return Column(name, "unusable", array, False, why_unusable="no value at all")
    return Column(name, "unusable", array, False, why_unusable=f"of type {kind}: flatten it into columns of its own")


def _text(name: str, array: pa.Array) -> Column:
    is_word = pc.is_in(array, pa.array(["", *NULL_WORDS]))
    words = sorted(word for word in array.filter(is_word).unique().to_pylist() if word)
    array = pc.if_else(is_word, pa.scalar(None, pa.string()), array)
    values = array.drop_null().unique()
    if not len(values):
        return Column(name, "unusable", array, True, words, why_unusable="no value at all")
    kind: Kind = "text"
    if _all(pc.is_in(values, pa.array(list(BOOLEANS)))):
        kind = "boolean"
    elif _all(pc.match_substring_regex(values, _INTEGER)):
        kind = "integer"
    elif _all(pc.match_substring_regex(values, NUMBER)):
        kind = "float"
    elif _all(pc.match_substring_regex(values, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?$")):
        kind = "time"
    elif printed_lists(values).mean() > _MANY:
        return Column(name, "unusable", array, True, words, why_unusable="lists printed as text: write them as lists")
    else:
        for separator in SEPARATORS:
            parted = Column(name, "list", array, True, words, separator)
            if float(np.mean(parted.lengths > 1)) >= _MANY and len(parted.distinct) <= len(values):
                return parted
    return Column(name, kind, array, True, words)


def _all(condition: pa.Array) -> bool:
    return bool(pc.all(condition).as_py())
