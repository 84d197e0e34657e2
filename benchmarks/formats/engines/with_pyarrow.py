"""The log as pyarrow writes it: the types that other engines are compared with in the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.orc
import pyarrow.parquet as pq
from rows import PARTITIONED, Written, column_report, log, main

TYPES: dict[str, Any] = {
    "at_utc": pa.timestamp("us", "UTC"),
    "at_local": pa.timestamp("us"),
    "shop": pa.int64(),
    "serial": pa.uint64(),
    "code": pa.decimal128(20, 0),
    "session": pa.uuid(),
    "device": pa.dictionary(pa.int8(), pa.string()),
    "price": pa.decimal128(10, 2),
    "watched": pa.duration("ms"),
    "tags": pa.list_(pa.string()),
    "history": pa.list_(pa.int64()),
}


def array(name: str, values: list[Any]) -> pa.Array:
    """A column of the log with the type that pyarrow has for it."""
    if name == "session":
        return pa.array([value.bytes for value in values], pa.uuid())
    return pa.array(values, TYPES.get(name))


def write(folder: Path) -> None:
    """Write all kinds."""
    rows = log()
    table = pa.table({name: array(name, values) for name, values in rows.items()})
    names = [name for name in rows if name != "city"]
    written = Written("pyarrow", pa.__version__, folder)
    written.add("Parquet", "log.parquet", names, lambda columns, path: pq.write_table(table.select(columns), path))
    written.add("CSV", "log.csv", names, lambda columns, path: pyarrow.csv.write_csv(table.select(columns), path))
    written.add(
        "partitioned Parquet",
        "partitioned",
        PARTITIONED,
        lambda columns, path: pq.write_to_dataset(
            table.select(columns), path, partition_cols=["day", "city"], basename_template="part-{i}.parquet"
        ),
    )
    written.add("ORC", "log.orc", names, lambda columns, path: pyarrow.orc.write_table(table.select(columns), path))
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export."""
    units = pq.read_table(sorted(export.glob("units-*.parquet")))
    return {field.name: column_report(field.type, units[field.name].to_pylist()) for field in units.schema}


if __name__ == "__main__":
    main(write, read)
