"""The log as an Iceberg table of pyiceberg: with rows that were deleted since.

An Iceberg table names its files by absolute paths: it can be read only in the folder where it was written.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyiceberg
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from rows import DELETED, PARTITIONED, N, Written, log, main
from with_pyarrow import array


def write(folder: Path) -> None:
    """Write all kinds."""
    rows = log(N + DELETED)
    table = pa.table({name: array(name, values) for name, values in rows.items()})
    names = [name for name in rows if name != "city"]

    def new(schema: pa.Schema, path: Path) -> Table:
        catalog = InMemoryCatalog("made-up", warehouse=f"file://{folder}")
        catalog.create_namespace("log")
        few = {"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "1"}
        return catalog.create_table(("log", "made_up"), schema, location=f"file://{path}", properties=few)

    def versions(columns: list[str], path: Path) -> None:
        part = table.select(columns)
        made = new(part.schema, path)
        made.append(part)
        if "n" in columns:
            made.delete(f"n >= {N}")

    def partitioned(columns: list[str], path: Path) -> None:
        part = table.select(columns)[:N]
        made = new(part.schema, path)
        with made.update_spec() as spec:
            for name in ("day", "city"):
                spec.add_field(name, IdentityTransform())
        made.append(part)

    written = Written("pyiceberg", pyiceberg.__version__, folder)
    for kind, name, columns, make in (
        ("Iceberg", "iceberg", names, versions),
        ("partitioned Iceberg", "iceberg-partitioned", PARTITIONED, partitioned),
    ):
        written.add(kind, name, columns, make, home=str(folder / name))
    written.close()


main(write)
