"""The log as a Delta table of delta-rs: with rows that were deleted since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from rows import DELETED, PARTITIONED, N, Written, log, main
from with_pyarrow import array


def write(folder: Path) -> None:
    """Write all kinds."""
    rows = log(N + DELETED)
    table = pa.table({name: array(name, values) for name, values in rows.items()})
    names = [name for name in rows if name != "city"]

    def versions(columns: list[str], path: Path, **options: Any) -> None:
        write_deltalake(path, table.select(columns), **options)
        if "n" in columns:
            DeltaTable(path).delete(f"n >= {N}")

    written = Written("deltalake", deltalake.__version__, folder)
    # pyarrow cannot open a file in which delta-rs wrote pyarrow's UUIDs, whatever is read of it.
    written.add("Delta", "delta", [name for name in names if name != "session"], versions)
    written.add("Delta with UUIDs", "delta-uuids", ("n", "epoch", "item", "buy", "session"), versions, asks=["session"])
    may_mark = {"delta.enableDeletionVectors": "true"}
    written.add(
        "partitioned Delta, deletion vectors allowed",
        "delta-partitioned",
        PARTITIONED,
        lambda columns, path: versions(
            columns,
            path,
            configuration=may_mark,
            **({"partition_by": ["day", "city"]} if "day" in columns and "city" in columns else {}),
        ),
    )
    written.close()


main(write)
