"""Avro files, batch by batch. Needs the extra `avro`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from diet_ray.errors import BadInputError, ResourceError, first_line, install_extra

_BATCH_ROWS = 16_384
"""Rows that are held at a time."""

_DIGITS = 76
"""Most digits of a decimal in Arrow."""

_PLAIN = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64(),
    "bytes": pa.binary(), "string": pa.string(), "enum": pa.string(),
}  # fmt: skip

_LOGICAL = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
    ("string", "uuid"): pa.string(),
}
"""Types of columns with a logical type; other logical types leave the plain type."""


def names(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        BadInputError: the file cannot be read, or holds no records.
        ResourceError: the extra is not installed.
    """
    return [field["name"] for field in _record(path)["fields"]]


def batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The columns of a file, in batches of a bounded number of rows.

    Raises:
        BadInputError: the file cannot be read, or a column has a type that no column of a log has.
        ResourceError: the extra is not installed.
    """
    record = _record(path)
    wanted = [field for field in record["fields"] if field["name"] in columns]
    types = {field["name"]: _type(path, field["name"], field["type"]) for field in wanted}
    # The decoder skips what the reader's schema lacks.
    with _opened(path, _named_once(record | {"fields": wanted or record["fields"][:1]}, set())) as reader:
        while rows := list(islice(reader, _BATCH_ROWS)):
            if wanted:
                values = {name: [row[name] for row in rows] for name in types}
                yield pa.record_batch({name: _array(values[name], kind) for name, kind in types.items()})
            else:
                yield pa.record_batch({"": pa.nulls(len(rows))})


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):  # UUIDs come as objects
        values = [value if value is None or isinstance(value, str) else str(value) for value in values]
    return pa.array(values, kind)


def _record(path: Path) -> dict[str, Any]:
    """The schema of a file's records, with each named type written out wherever it is used."""
    with _opened(path) as reader:
        from fastavro.schema import expand_schema

        schema = expand_schema(reader.writer_schema)
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise BadInputError(path, "an Avro file without records", remedy="write each row as a record with named fields")
    return schema


def _named_once(kind: Any, seen: set[str]) -> Any:
    """A type in which each named type is written out only where it first occurs, as a schema has to be."""
    if isinstance(kind, list):
        return [_named_once(one, seen) for one in kind]
    if not isinstance(kind, dict):
        return kind
    if "name" in kind and kind.get("type") in ("record", "enum", "fixed"):
        if kind["name"] in seen:
            return kind["name"]
        seen.add(kind["name"])
    inside = {key: _named_once(kind[key], seen) for key in ("type", "items", "values") if key in kind}
    fields = {"fields": [_named_once(one, seen) for one in kind["fields"]]} if "fields" in kind else {}
    return kind | inside | fields


@contextmanager
def _opened(path: Path, schema: dict[str, Any] | None = None) -> Iterator[Any]:
    try:
        import fastavro
    except ImportError as error:
        raise ResourceError(f"{path} is an Avro file, which needs fastavro: {install_extra('avro')}") from error
    try:
        with path.open("rb") as file:
            yield fastavro.reader(file, schema)
    except Exception as error:  # the codecs have errors of their own
        raise BadInputError(
            path,
            f"cannot be read: {first_line(error)[:200]}",
            remedy="truncated or damaged? export it again, packed with deflate, snappy or zstandard",
        ) from error


def _type(path: Path, column: str, kind: Any) -> pa.DataType:
    """The Arrow type of an Avro type: a plain or logical one, a list of such, each of them perhaps null."""
    if isinstance(kind, list):  # a union
        others = [one for one in kind if one != "null"]
        if len(others) == 1:
            return _type(path, column, others[0])
    elif isinstance(kind, str) and kind in _PLAIN:
        return _PLAIN[kind]
    elif isinstance(kind, dict):
        name, logical = kind["type"], kind.get("logicalType")
        if logical == "decimal" and name in ("bytes", "fixed") and 0 < kind.get("precision", 0) <= _DIGITS:
            make = pa.decimal128 if kind["precision"] <= 38 else pa.decimal256
            return make(kind["precision"], kind.get("scale", 0))
        if name == "array":
            return pa.list_(_type(path, column, kind["items"]))
        if name == "fixed":
            return pa.binary(kind["size"])
        if isinstance(name, str) and name in _PLAIN:
            return _LOGICAL.get((name, str(logical)), _PLAIN[name])
    raise BadInputError(
        path,
        f"has the Avro type {str(kind)[:100]}",
        column=column,
        remedy="write it as a number, text, time or a list of them",
    )
