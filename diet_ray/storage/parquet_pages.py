"""The page headers of a Parquet file, read before any page is unpacked, and without pyarrow.

A page's header is uncompressed and in Thrift's compact protocol. It gives the number of bytes and values to which the page's body unpacks.
Arrow allocates memory by it. The file's footer, which pyarrow shows, may differ from it (parquet-format, `PageHeader` of `parquet.thrift`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_DELTA_BYTE_ARRAY = 7
_MOST_HEADER = 16 << 20
"""Most bytes of a header; Arrow reads no longer one."""
_INT32, _STRUCT = 5, 12


class PageError(ValueError):
    """A page's header is invalid."""


@dataclass(frozen=True)
class Chunk:
    """The claims of the pages of one column of a row group."""

    values: int
    """Values of all data pages, nulls included."""
    dictionary: int
    """Bytes of the dictionary page."""
    largest: int
    """Bytes of the largest data page."""
    total: int
    """Bytes of all data pages."""
    densest: int
    """Most bytes per value of a data page."""
    prefixed: bool
    """Whether values may share prefixes, so that each value may be as long as its page."""


def read_chunk(file: BinaryIO, start: int, n_values: int) -> Chunk:
    """The claims of a column chunk whose first page is at `start`. Like Arrow, the reader stops after the page that completes `n_values`.

    Raises:
        PageError: a page's header is invalid.
    """
    values = dictionary = largest = total = densest = 0
    prefixed = False
    while values < n_values:
        header, length = _header(file, start)
        kind, size, stored = (_number(header, key) for key in (1, 2, 3))
        if kind == _DICTIONARY:
            dictionary += size
            if _number(_body(header, 7, start), 1) > size:
                raise PageError(f"the dictionary at byte {start} claims more values than it has bytes")
        elif kind in (_DATA, _DATA_V2):
            body = _body(header, 5 if kind == _DATA else 8, start)
            n = _number(body, 1)
            values, total, largest = values + n, total + size, max(largest, size)
            densest = max(densest, -(-size // max(n, 1)))
            prefixed |= _number(body, 2 if kind == _DATA else 4) == _DELTA_BYTE_ARRAY
        start += length + stored
    return Chunk(values, dictionary, largest, total, densest, prefixed)


def _header(file: BinaryIO, start: int) -> tuple[dict[int, Any], int]:
    """The fields of the header at `start`, and its length."""
    n = 256
    while True:
        file.seek(start)
        data = file.read(n)
        try:
            return _struct(data, 0, depth=0)
        except IndexError:  # the header is longer than `data`
            if len(data) < n or n >= _MOST_HEADER:
                raise PageError(f"no valid page header at byte {start}") from None
            n *= 8


def _body(header: dict[int, Any], key: int, start: int) -> dict[int, Any]:
    body = header.get(key)
    if not isinstance(body, dict):
        raise PageError(f"the header of the page at byte {start} does not describe its content")
    return body


def _number(fields: dict[int, Any], key: int) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or value < 0:
        raise PageError("a page's header lacks a number or has one below 0")
    return value


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The numbers and structures inside a structure, by field, and the position of its end. Other kinds of fields are skipped."""
    if depth > 8:
        raise PageError("a page's header is too deep")
    fields: dict[int, Any] = {}
    key = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            key += step
        else:
            long, at = _varint(data, at)
            key = _signed(long)
        value, at = _value(data, at, kind, depth)
        if kind in (_INT32, _STRUCT):
            fields[key] = value
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a boolean: its kind is its value
        return None, at
    if kind == 3:
        return None, at + 1
    if kind in (4, _INT32, 6):
        value, at = _varint(data, at)
        return _signed(value & 0xFFFFFFFF), at
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind in (9, 10):
        inner, n = data[at] & 15, data[at] >> 4
        n, at = _varint(data, at + 1) if n == 15 else (n, at + 1)
        for _ in range(n):
            _, at = _value(data, at, 3 if inner in (1, 2) else inner, depth)  # in a list, a boolean takes a byte
        return None, at
    raise PageError("a page's header has a field of an invalid kind")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise PageError("a page's header has a number without an end")


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
