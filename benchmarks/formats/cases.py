"""What is asked of each type of column: the schema by which it is ingested, and the values that must come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from benchmarks.formats.engines.rows import ZONE, log, milliseconds
from diet_ray.schema import Schema


@dataclass(frozen=True)
class Case:
    """A column in one role."""

    column: str
    """The column of the log."""
    role: str
    """`time`, `user`, `label`, `category`, `number`, `list` or `history`."""
    title: str
    """The type, as the table names it."""
    unit: str = "timestamp"
    """Of a time."""
    ordered: bool = False
    """Whether a number is compared by its order alone: its unit differs from engine to engine."""

    @property
    def name(self) -> str:
        """Role and column."""
        return f"{self.role}: {self.column}"

    def plain(self) -> pa.Array:
        """The column in the plainest form that Parquet has: text, integers, doubles. It is what every engine's must be read as."""
        return pa.array([None if value is None else _PLAIN[self.role](value) for value in log()[self.column]])


def schema_of(cases: Sequence[Case], separator: str | None = None) -> Schema:
    """A schema with the columns of all cases, of which at most one is a time and one a user. `separator` splits lists that are text.

    The other roles are taken by columns that cannot be misread. Fields are named after their columns, but for `row`, the row's number.
    """
    when: dict[str, Any] = {"column": "epoch", "unit": "ms", "timezone": ZONE.key}
    user, tasks, fields = "n", [], [_category("row", "n"), _category("again", "n")]
    for case in cases:
        match case.role:
            case "time":
                when |= {"column": case.column, "unit": case.unit}
            case "user":
                user = case.column
            case "label":
                tasks.append(case.column)
            case "number":
                fields.append({"name": case.column, "kind": "numeric", "buckets": 16})
            case "list":
                fields.append(_category(case.column, case.column) | {"max_values": 3, "separator": separator})
            case "history":
                kind = {"kind": "sequence", "of": "item", "length": 3, "pool": "none", "separator": separator}
                fields.append({"name": case.column} | kind)
            case _:
                fields.append(_category(case.column, case.column))
    if any(case.role == "history" for case in cases) and not any(case.column == "item" for case in cases):
        fields.append(_category("item", "item"))
    about = {"name": "formats", "time": when, "user": user, "tasks": tasks or ["buy"], "fields": fields}
    return Schema.model_validate(about)


def _category(name: str, column: str) -> dict[str, Any]:
    return {"name": name, "kind": "vocabulary", "column": column}


def _instant(value: Any) -> int:
    """A time in ms: of an epoch, an instant, a wall clock or the beginning of a day in `ZONE`."""
    if isinstance(value, int):
        return value
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return milliseconds(moment if moment.tzinfo else moment.replace(tzinfo=ZONE))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float | Decimal) else value.total_seconds()


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values]


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "time": _instant,
    "user": str,
    "label": int,
    "category": str,
    "number": _number,
    "list": _texts,
    "history": _texts,
}

CASES = [
    Case("epoch", "time", "time: epoch in ms", unit="ms"),
    Case("at_utc", "time", "time: timestamp with zone"),
    Case("at_local", "time", "time: timestamp without zone"),
    Case("day", "time", "time: date"),
    Case("user", "user", "user: text with leading zeros"),
    Case("item", "category", "id: int64 beyond 2^53"),
    Case("shop", "category", "id: small int64, some null"),
    Case("seller", "category", "id: int64 beyond 2^53, some null"),
    Case("serial", "category", "id: uint64 beyond 2^63"),
    Case("code", "category", "id: decimal(20,0)"),
    Case("session", "category", "id: UUID"),
    Case("brand", "category", "text: some empty, some null"),
    Case("title", "category", "text: quotes, commas, backslashes"),
    Case("device", "category", "enum, categorical"),
    Case("day", "category", "date as a category"),
    Case("price", "number", "number: decimal(10,2)"),
    Case("cost", "number", "number: float64"),
    Case("count", "number", "number: int64, some null"),
    Case("watched", "number", "number: duration", ordered=True),
    Case("click", "label", "label: boolean"),
    Case("buy", "label", "label: 0/1 integer"),
    Case("tags", "list", "list of text"),
    Case("history", "history", "history: list of int64"),
]
"""The types of a file."""

FOLDER_CASES = [
    Case("day", "time", "time: date in the folders' names"),
    Case("city", "category", "text in the folders' names, some null"),
    Case("item", "category", "id: int64 beyond 2^53"),
    Case("buy", "label", "label: 0/1 integer"),
]
"""The types of a log in folders named after values."""
