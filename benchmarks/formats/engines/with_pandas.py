"""The log as pandas writes it, and an export as pandas reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rows import DEVICES, PARTITIONED, Written, column_report, log, main


def frame() -> pd.DataFrame:
    """The log with the types that pandas gives Python values by itself; only the enum is asked for."""
    table = pd.DataFrame(log())
    return table.assign(device=pd.Categorical(table["device"], categories=DEVICES))


def write(folder: Path) -> None:
    """Write all kinds."""
    table = frame()
    names = [name for name in table.columns if name != "city"]
    written = Written("pandas", pd.__version__, folder)
    written.add("Parquet", "log.parquet", names, lambda columns, path: table[columns].to_parquet(path))
    written.add("CSV", "log.csv", names, lambda columns, path: table[columns].to_csv(path, index=False))
    written.add(
        "partitioned Parquet",
        "partitioned",
        PARTITIONED,
        lambda columns, path: table[columns].to_parquet(path, partition_cols=["day", "city"]),
    )
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export."""
    table = pd.concat(pd.read_parquet(path) for path in sorted(export.glob("units-*.parquet")))
    return {name: column_report(_type(table[name]), table[name].tolist()) for name in table}


def _type(column: pd.Series) -> str:
    return f"object of {type(column.iloc[0]).__name__}" if column.dtype == object else str(column.dtype)


if __name__ == "__main__":
    main(write, read)
