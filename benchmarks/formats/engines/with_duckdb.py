"""The log as DuckDB writes it, and an export as DuckDB reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
from rows import COLUMNS, DEVICES, PARTITIONED, Written, column_report, log, main

TYPES = {
    "int64": "BIGINT",
    "int64 or null": "BIGINT",
    "instant": "TIMESTAMPTZ",
    "wall clock": "TIMESTAMP",
    "date": "DATE",
    "text": "VARCHAR",
    "text or null": "VARCHAR",
    "uint64": "UBIGINT",
    "decimal(20,0)": "DECIMAL(20,0)",
    "uuid": "UUID",
    "enum": f"ENUM {DEVICES}",
    "decimal(10,2)": "DECIMAL(10,2)",
    "float64": "DOUBLE",
    "duration": "INTERVAL",
    "boolean": "BOOLEAN",
    "list of text or null": "VARCHAR[]",
    "list of int64": "BIGINT[]",
}


def write(folder: Path) -> None:
    """Write all kinds."""
    rows, base = log(), duckdb.connect()
    types = {name: TYPES[kind] for name, kind in COLUMNS.items()} | {"city": "VARCHAR"}
    base.execute(f"CREATE TABLE log ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
    for row in zip(*(rows[name] for name in types), strict=True):
        base.execute(f"INSERT INTO log VALUES ({', '.join('?' * len(types))})", row)

    def copy(columns: list[str], path: Path, options: str) -> None:
        base.execute(f"COPY (SELECT {', '.join(columns)} FROM log ORDER BY n) TO '{path}' {options}")

    written = Written("DuckDB", duckdb.__version__, folder)
    written.add("Parquet", "log.parquet", COLUMNS, lambda columns, path: copy(columns, path, ""))
    written.add("CSV", "log.csv", COLUMNS, lambda columns, path: copy(columns, path, ""))
    partitioned = "(FORMAT parquet, PARTITION_BY (day, city))"
    written.add(
        "partitioned Parquet", "partitioned", PARTITIONED, lambda columns, path: copy(columns, path, partitioned)
    )
    # What a sum of integers gives.
    written.add(
        "Parquet with HUGEINT ids",
        "hugeint.parquet",
        ("n", "epoch", "item", "buy"),
        lambda columns, path: copy([name.replace("item", "item::HUGEINT AS item") for name in columns], path, ""),
        asks=["item"],
    )
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export."""
    units = duckdb.sql(f"SELECT * FROM '{export}/units-*.parquet'")
    values = zip(*units.fetchall(), strict=True)
    return {
        name: column_report(kind, list(column))
        for name, kind, column in zip(units.columns, units.types, values, strict=True)
    }


main(write, read)
