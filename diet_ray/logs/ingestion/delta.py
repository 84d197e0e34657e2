"""The files of a Delta table's latest version, by its log. Needs the extra `delta`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from diet_ray.errors import BadInputError, ResourceError, first_line, install_extra
from diet_ray.logs.ingestion.kinds import Found

_FEATURES = {
    "columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck",
    "variantType", "variantType-preview",
}  # fmt: skip
"""Features that a Delta table may require of its readers. The first two are checked further. The others change nothing here: a variant
is a structure in the files, which no field takes, and values of a narrower type are the same values."""


def files_of(table: Path) -> list[Found]:
    """The files of a Delta table's latest version.

    Raises:
        BadInputError: the table cannot be read, or its files alone do not determine its rows.
        ResourceError: the extra is not installed.
    """
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise ResourceError(f"{table} is a Delta table, which needs deltalake: {install_extra('delta')}") from error
    try:
        version = DeltaTable(str(table))
        _check(table, version)
        files = pa.table(version.get_add_actions(flatten=True)).to_pylist()
        columns: dict[str, str | None] = dict.fromkeys(column.name for column in version.schema().fields)
    except DeltaError as error:
        raise BadInputError(
            table,
            f"Delta table that cannot be read: {first_line(error)}",
            remedy="check it with the tool that wrote it, or write its rows as Parquet",
        ) from error
    return [Found(_place(table, file["path"]), "parquet", columns | _values(file)) for file in files]


def _check(table: Path, version: Any) -> None:
    """Refuse a table whose files alone do not determine its rows: deleted rows, for example, would be learned from."""
    required = set(version.protocol().reader_features or ())
    if required - _FEATURES:
        raise BadInputError(
            table,
            f"Delta table that requires the reader features {', '.join(sorted(required - _FEATURES))}, which diet_ray lacks",
            remedy="write it as Parquet, or drop the feature",
        )
    if version.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise BadInputError(
            table, "Delta table whose columns have other names in its files", remedy="drop its column mapping"
        )
    if pa.table(version.deletion_vectors()).num_rows:
        raise BadInputError(
            table, "Delta table with deleted rows in its files", remedy="rewrite those: REORG TABLE ... APPLY (PURGE)"
        )


def _place(table: Path, name: str) -> Path:
    path = Path(unquote(name))
    if "://" in name or path.is_absolute() or ".." in path.parts:
        raise BadInputError(
            table, f"Delta table with a file elsewhere, {name!r}", remedy="copy it whole; a shallow clone is not enough"
        )
    return table / path


def _values(file: dict[str, Any]) -> dict[str, str | None]:
    """The values of a file's partition."""
    start = "partition."
    return {
        name.removeprefix(start): None if value is None else str(value)
        for name, value in file.items()
        if name.startswith(start)
    }
