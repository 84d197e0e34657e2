"""The log as polars writes it, and an export as polars reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from rows import DEVICES, PARTITIONED, Written, column_report, log, main

TYPES: dict[str, Any] = {
    "serial": pl.UInt64,
    "code": pl.Decimal(20, 0),
    "device": pl.Enum(DEVICES),
    "price": pl.Decimal(10, 2),
    "session": pl.Object,
}


def write(folder: Path) -> None:
    """Write all kinds."""
    rows = log()
    frame = pl.DataFrame([pl.Series(name, values, TYPES.get(name)) for name, values in rows.items()])
    names = [name for name in rows if name != "city"]
    written = Written("polars", pl.__version__, folder)
    written.add("Parquet", "log.parquet", names, lambda columns, path: frame.select(columns).write_parquet(path))
    written.add("CSV", "log.csv", names, lambda columns, path: frame.select(columns).write_csv(path))
    written.add("Avro", "log.avro", names, lambda columns, path: frame.select(columns).write_avro(path))
    written.add(
        "partitioned Parquet",
        "partitioned",
        PARTITIONED,
        lambda columns, path: frame.select(columns).write_parquet(path, partition_by=["day", "city"]),
    )
    wide = frame.with_columns(total=pl.col("n").cast(pl.Int128))
    written.add(
        "Parquet with an Int128 beside",
        "int128.parquet",
        ("n", "epoch", "item", "buy", "total"),
        lambda columns, path: wide.select(columns).write_parquet(path),
        asks=["item", "buy"],
    )
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export."""
    frame = pl.read_parquet(export / "units-*.parquet")
    return {name: column_report(frame[name].dtype, frame[name].to_list()) for name in frame.columns}


main(write, read)
