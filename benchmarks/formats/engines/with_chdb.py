"""The log as ClickHouse (chdb) writes it, and an export as it reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chdb
from rows import COLUMNS, DEVICES, Written, column_report, log, main

TYPES = {
    "int64": "Int64",
    "int64 or null": "Nullable(Int64)",
    "instant": "DateTime64(3, 'UTC')",
    "wall clock": "DateTime64(3)",
    "date": "Date",
    "text": "String",
    "text or null": "Nullable(String)",
    "uint64": "UInt64",
    "decimal(20,0)": "Decimal(20, 0)",
    "uuid": "UUID",
    "enum": f"Enum8({', '.join(map(repr, DEVICES))})",
    "decimal(10,2)": "Decimal(10, 2)",
    "float64": "Float64",
    "boolean": "Bool",
    "list of text or null": "Array(String)",
    "list of int64": "Array(Int64)",
}


def _json(value: Any) -> Any:
    """A value as ClickHouse reads it from JSON: whole numbers in full, everything else as text."""
    if isinstance(value, list):
        return [_json(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value).removesuffix("+00:00")


def write(folder: Path) -> None:
    """Write all kinds."""
    rows = log()
    types = {name: TYPES[kind] for name, kind in COLUMNS.items() if kind in TYPES} | {"city": "Nullable(String)"}
    lines = [
        json.dumps(
            {
                name: [] if name == "tags" and value is None else _json(value)
                for name, value in zip(types, row, strict=True)
            }
        )
        for row in zip(*(rows[name] for name in types), strict=True)
    ]
    source = folder / "rows.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    source.write_text("\n".join(lines), encoding="utf-8")
    kinds = ", ".join(f"{name} {kind}" for name, kind in types.items()).replace("\\", "\\\\").replace("'", "\\'")

    def export(columns: list[str], path: Path, form: str) -> None:
        chdb.query(
            f"SELECT {', '.join(columns)} FROM file('{source}', JSONEachRow, '{kinds}') ORDER BY n "
            f"INTO OUTFILE '{path}' FORMAT {form}"
        )

    written = Written("ClickHouse (chdb)", chdb.__version__, folder)
    names = [name for name in types if name != "city"]
    for kind, name, form in (
        ("Parquet", "log.parquet", "Parquet"),
        ("CSV", "log.csv", "CSVWithNames"),
        ("ORC", "log.orc", "ORC"),
        ("Avro", "log.avro", "Avro"),
    ):
        written.add(kind, name, names, lambda columns, path, form=form: export(columns, path, form))
    kinds = written.about["kinds"]
    kinds["CSV"]["lacks"]["at_utc"] = "written as a wall clock of its zone, without the zone: name it in time.timezone"
    for name in ("at_utc", "at_local"):
        kinds["ORC"]["lacks"][name] = "written as a wall clock of UTC, without a zone: name UTC in time.timezone"
    kinds["ORC"]["lacks"]["device"] = "an Enum is written as the number of its name"
    source.unlink()
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export."""
    source = f"file('{export}/units-*.parquet')"
    kinds = [json.loads(line) for line in str(chdb.query(f"DESCRIBE {source}", "JSONEachRow")).splitlines()]
    # As text, a Float32 has the digits of a Float32, which are another double.
    wide = [f"CAST({kind['name']}, '{'Array(Float64)' if 'Array' in kind['type'] else 'Float64'}')" for kind in kinds]
    columns = ", ".join(f"{cast} AS {kind['name']}" for cast, kind in zip(wide, kinds, strict=True))
    lines = [
        json.loads(line) for line in str(chdb.query(f"SELECT {columns} FROM {source}", "JSONEachRow")).splitlines()
    ]
    return {kind["name"]: column_report(kind["type"], [line[kind["name"]] for line in lines]) for kind in kinds}


main(write, read)
