"""The log as fastparquet writes it."""

from __future__ import annotations

from pathlib import Path

import fastparquet
from rows import PARTITIONED, Written, main
from with_pandas import frame


def write(folder: Path) -> None:
    """Write all kinds."""
    table = frame()
    names = [name for name in table.columns if name != "city"]

    def partitioned(columns: list[str], path: Path) -> None:
        on = [name for name in ("day", "city") if name in columns]
        rows = table[["n", *(name for name in columns if name != "n")]]
        fastparquet.write(str(path), rows, file_scheme="hive", partition_on=on)
        back = len(fastparquet.ParquetFile(str(path)).to_pandas())
        if back != len(rows):
            raise ValueError(f"fastparquet drops rows whose value is null: {back} of {len(rows)} are left")

    written = Written("fastparquet", fastparquet.__version__, folder)
    written.add("Parquet", "log.parquet", names, lambda columns, path: fastparquet.write(str(path), table[columns]))
    written.add(
        "partitioned Parquet",
        "partitioned",
        PARTITIONED,
        partitioned,
    )
    written.close()


main(write)
