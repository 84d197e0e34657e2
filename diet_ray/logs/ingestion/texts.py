"""The canonical text of category values and users: one value has one text, whatever type and file it comes from.

5, 5.0, "5", "5.0", the decimal 5.00 and "5.0E0", as floats are printed, are one value; so are true, "true", "True" and 1. "05", "5.50" and
"1e5" stay the texts that they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.checks import NUMBER, Origin

LONGEST = 4096
"""Most bytes in the text of one value. A longer text is not an id; it may be the rest of a CSV file after a stray quote."""

_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
"""By the bits of a float, the magnitude from which neighbouring integers are one float."""

NULL_WORDS = ("NULL", "null", "None", "nan", "NaN", "N/A", "<NA>", r"\N")
"""Texts by which other systems mean "no value"."""

BOOLEANS = {"true": "1", "True": "1", "TRUE": "1", "false": "0", "False": "0", "FALSE": "0"}
"""Booleans as they are printed, and their canonical texts."""

_INTEGRAL = r"^(-?(?:0|[1-9][0-9]*))\.0+$"
_PRINTED = r"^[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+$|^[+-]?[0-9]+[eE][+-][0-9]+$"
"""A number with an exponent as floats are printed, such as 1.0E7, 1e+16 and 1e-05."""
_MAYBE_PRINTED = r"^[0-9]+[eE][0-9]+$"
"""Without point and sign, as in 1e5, it may as well be a code, such as the hexadecimal digits of a hash."""

_ODD = (
    r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+[eE][-+]?[0-9])[-+0-9eE]*$"
    rf"|^(?:{'|'.join([*NULL_WORDS[:-1], *BOOLEANS])}|\\N)$"
)
"""Texts that need a closer look: numbers with a point or an exponent, and words. Most columns have none, and are not looked at again."""


def text_of(column: pa.Array, name: str, origin: Origin, *, allow_negative: bool) -> pa.DictionaryArray:
    """The canonical text of the values of an array (`checks.whole`).

    Raises:
        BadInputError: the array's type is none of categories.
        BadRows: values that are no ids: a NaN, an infinity, a float of a magnitude at which it no longer tells integers apart (as a number
            or as text), a text of more than `LONGEST` bytes; a negative integer, unless `allow_negative`.
    """
    _check_kind(column.type, name, origin)
    coded = column.dictionary_encode()
    values = _Values(coded, name, origin)
    raw = coded.dictionary
    if pa.types.is_floating(raw.type):
        magnitude, bits = pc.abs(raw.cast(pa.float64())), raw.type.bit_width
        values.refuse(pc.invert(pc.is_finite(magnitude)), "NaN or infinity where a category is needed", _AS_NULL)
        values.refuse(pc.greater_equal(magnitude, float(_EXACT[bits])), _inexact(bits), _AS_INTEGER, column)
    texts = _read(raw, values) if pa.types.is_string(raw.type) else canonical_texts(raw)
    too_long = f"text of more than {LONGEST} bytes as one value"
    values.refuse(pc.greater(pc.binary_length(texts), LONGEST), too_long, "is a quote missing? shorten the value")
    if not allow_negative:
        negative = pc.starts_with(texts, "-")
        if pc.any(negative).as_py():
            negative = pc.match_substring_regex(texts, r"^-[0-9]+$")
            values.refuse(
                negative, "negative id {}", f"{_AS_NULL}, or set allow_negative on the field", texts.take(coded.indices)
            )
    if texts is raw or pa.types.is_integer(raw.type):
        return pa.DictionaryArray.from_arrays(coded.indices, texts)
    again = texts.dictionary_encode()  # several raw values may have the same text
    return pa.DictionaryArray.from_arrays(again.indices.take(coded.indices), again.dictionary)


def canonical_texts(values: pa.Array) -> pa.Array:
    """The canonical texts of an array of a category's type without nulls, value by value: a Python loop over some of them.

    Floats that are not finite are `nan` and `inf`. A printed float of 2^53 and more stays as it is.
    """
    kind = values.type
    if pa.types.is_string(kind):
        odd = pc.match_substring_regex(values, _ODD)
        return pc.replace_with_mask(values, odd, _of_odd(values.filter(odd)))
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64()).to_pylist()
        return pa.array([str(int(v)) if v.is_integer() else repr(v) for v in numbers], pa.string())
    if pa.types.is_decimal(kind):
        return _of_decimals(values.cast(pa.string()))
    return (values.cast(pa.int8()) if pa.types.is_boolean(kind) else values).cast(pa.string())


@dataclass(frozen=True)
class _Values:
    """The distinct values of a column: what is true of one of them is refused or noted for all of its rows."""

    coded: pa.DictionaryArray
    name: str
    origin: Origin

    def refuse(self, bad: pa.Array, problem: str, remedy: str, shown: pa.Array | None = None) -> None:
        """Raise BadRows where a row has a value for which `bad` is true; `shown` has the values of all rows for the message."""
        if pc.any(bad).as_py():
            self.origin.refuse(self.name, self._rows(bad), problem, remedy, shown)

    def note(self, concerned: pa.Array, what: str) -> None:
        """Note what was done with the values for which `concerned` is true."""
        self.origin.note(self.name, self._rows(concerned), what)

    def _rows(self, mask: pa.Array) -> np.ndarray:
        return np.asarray(pc.fill_null(mask.take(self.coded.indices), False).to_numpy(zero_copy_only=False), bool)


_AS_NULL = "write a missing value as null"
_AS_INTEGER = "write the column as integers or as text"


def _inexact(bits: int) -> str:
    return f"{{!r}}, a float{bits} beyond {_EXACT[bits]}, where neighbouring ids become one,"


def _check_kind(kind: pa.DataType, name: str, origin: Origin) -> None:
    of = pa.types
    if of.is_boolean(kind) or of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind):
        return
    if of.is_string(kind) or of.is_date(kind) or of.is_timestamp(kind):
        return
    if of.is_struct(kind) or of.is_map(kind) or of.is_union(kind):
        remedy = "write the part that counts as a column of its own"
    else:
        remedy = "turn the column into text or integers before ingest"
    origin.wrong_type(name, kind, "an integer, text or date", remedy)


def _read(raw: pa.Array, values: _Values) -> pa.Array:
    """The canonical texts of distinct texts. What is read otherwise than it stands there is noted, and what may be meant otherwise too."""
    odd = pc.match_substring_regex(raw, _ODD)
    if not pc.any(odd).as_py():
        return raw
    some = raw.filter(odd)
    texts = _of_odd(some)
    printed, as_it_was = pc.match_substring_regex(some, _PRINTED), pc.equal(some, texts)
    # Beyond exactness, they are as they were; negative exponents are of no harm.
    beyond = pc.and_(pc.and_(printed, as_it_was), pc.match_substring_regex(some, r"[eE]\+?[0-9]+$"))
    values.refuse(_among(odd, beyond), _inexact(64), _AS_INTEGER, raw.take(values.coded.indices))
    integral = pc.and_(pc.greater_equal(pc.binary_length(texts), 16), pc.match_substring_regex(some, _INTEGRAL))
    notes = [
        (pc.and_(printed, pc.invert(as_it_was)), "numbers with an exponent read by their value, 1.0E5 as 100000"),
        (pc.is_in(some, pa.array(list(BOOLEANS))), "true and false read as 1 and 0"),
        (integral, "integers of 16 digits and more end in .0: if they were floats, neighbouring ids have become one"),
        *((pc.equal(some, word), what) for word, what in _unread(values.origin.nulls)),
    ]
    maybe = pc.match_substring_regex(some, _MAYBE_PRINTED)
    if pc.any(maybe).as_py() and _all_numbers(raw.slice(0, 100)) and _all_numbers(raw):
        notes.append((maybe, "1e5 and the like read as text, not as numbers; write integers without an exponent"))
    for concerned, what in notes:
        if pc.any(concerned).as_py():
            values.note(_among(odd, concerned), what)
    return pc.replace_with_mask(raw, odd, texts)


def _all_numbers(texts: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, NUMBER)).as_py())


def _among(odd: pa.Array, mask: pa.Array) -> pa.Array:
    """A mask of all distinct values from one of those that are odd."""
    return pc.replace_with_mask(odd, odd, mask)


def _unread(nulls: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The words that may mean "no value" and are read as values, each with its note."""
    for word in NULL_WORDS:
        if word not in nulls:
            listed = ", ".join("'" + text.replace("'", "''") + "'" for text in (*nulls, word))
            yield word, f"'{word}' read as a value; if it means no value, set nulls: [{listed}] in the schema"


def _of_odd(texts: pa.Array) -> pa.Array:
    plain = pc.replace_substring_regex(texts, _INTEGRAL, r"\1")
    plain = pc.if_else(pc.is_in(plain, _TRUE_WORDS), "1", pc.if_else(pc.is_in(plain, _FALSE_WORDS), "0", plain))
    printed = pc.match_substring_regex(plain, _PRINTED)
    if not pc.any(printed).as_py():
        return plain
    read = pa.array([_of_printed(text) for text in plain.filter(printed).to_pylist()], pa.string())
    return pc.replace_with_mask(plain, printed, read)


_TRUE_WORDS, _FALSE_WORDS = (pa.array([word for word, text in BOOLEANS.items() if text == of]) for of in "10")


def _of_printed(text: str) -> str:
    """The canonical text of a printed float; the text itself where it is too long, too large or too small to be one."""
    if len(text) > 400:
        return text
    value = Decimal(text)
    if value and (abs(value.adjusted()) > 300 or abs(value) >= _EXACT[64]):
        return text
    return _of_decimal(value)


def _of_decimals(texts: pa.Array) -> pa.Array:
    """The canonical texts of decimals as Arrow writes them: without zeros at the end."""
    plain = pc.replace_substring_regex(pc.replace_substring_regex(texts, r"(\.[0-9]*?)0+$", r"\1"), r"\.$", "")
    rare = pc.match_substring_regex(texts, r"E|^-?0\.0000")
    if not pc.any(rare).as_py():
        return plain
    read = pa.array([_of_decimal(Decimal(text)) for text in texts.filter(rare).to_pylist()], pa.string())
    return pc.replace_with_mask(plain, rare, read)


def _of_decimal(value: Decimal) -> str:
    """The text of a decimal: that of the float which is printed like it, if there is one, which has an exponent where it is small."""
    if value == value.to_integral_value():
        return str(int(value))
    as_float = repr(float(value))
    return as_float if Decimal(as_float) == value else format(value, "f").rstrip("0")
