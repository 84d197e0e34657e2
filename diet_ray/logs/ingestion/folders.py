"""The files of a source, and the values in their folders' names: plain folders, partitions (`day=2024-03-04/`), Delta tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from diet_ray.errors import BadInputError, ResourceError

SUFFIXES = (".parquet", ".csv", ".csv.gz")
"""The kinds of file that are read."""

_LOG = "_delta_log"

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Name of the partition of rows without a value, by the convention of Hive and Spark."""

_FEATURES = {
    "columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck",
}  # fmt: skip
"""Features that a Delta table may require of its readers. The first two are checked further; the others change nothing here."""


@dataclass(frozen=True)
class Found:
    """A file to read."""

    path: Path
    given: dict[str, str | None] = field(default_factory=dict)
    """Values of columns for all of its rows, as text, used where the file has no column of that name; None is a missing value."""


def found_files(sources: list[Path]) -> list[Found]:
    """The files of all sources, in the order given. A folder contains the files in it and in its subfolders, sorted by path.

    A folder named `NAME=VALUE` in the path of a file gives all of its rows that value, as Hive and Spark write partitions. A Delta table,
    or a folder or file in one, contains the files of its latest version (needs the extra `delta`).

    Raises:
        BadInputError: a source is missing, of an unknown kind, or given twice (under another name, too), or is a Delta table whose files
            alone do not determine its rows.
        ResourceError: it is a Delta table, and the extra is not installed.
    """
    files = [file for source in sources for file in _below(source)]
    targets: set[Path] = set()
    for path in (file.path for file in files):
        if not path.is_file():  # reading a pipe could wait forever
            raise BadInputError(
                path, "is a link that leads nowhere, or no file at all", remedy="remove it, or put the file there"
            )
        if path.resolve() in targets:
            raise BadInputError(path, "is given twice", remedy="its rows would count twice; name it once")
        targets.add(path.resolve())
    return files


def _below(source: Path) -> list[Found]:
    if not source.exists():
        raise BadInputError(source, "no such file or folder", remedy="correct the path")
    place = source.absolute()
    table = next((folder for folder in (place, *place.parents) if (folder / _LOG).is_dir()), None)
    if table is not None:
        return _live(table, place)
    if not source.is_dir():
        if not source.name.endswith(SUFFIXES):
            raise BadInputError(
                source, "neither Parquet nor CSV by its name", remedy=f"name it one of {', '.join(SUFFIXES)}"
            )
        return [Found(source, _partition(source))]
    inside = sorted(_inside(source))
    if not inside:
        raise BadInputError(
            source, "folder without any Parquet or CSV file", remedy="give the files, or the folder that holds them"
        )
    return [Found(path, _partition(path)) for path in inside]


def _inside(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        # Names that begin with "." or "_" are markers and half-written files, by convention.
        names = path.relative_to(folder).parts
        if path.name == _LOG:
            raise BadInputError(path.parent, "is a Delta table within the folder", remedy="give the tables by name")
        hidden = any(name.startswith((".", "_")) and "=" not in name for name in names)
        if path.name.endswith(SUFFIXES) and not hidden:
            yield path


def _partition(path: Path) -> dict[str, str | None]:
    """The values in the names of the folders above a file, the nearest folder last."""
    pairs = [name.split("=", 1) for name in path.parts[:-1] if "=" in name]
    return {name: None if value in ("", _NO_VALUE) else unquote(value) for name, value in pairs}


# --- Delta


def _live(table: Path, below: Path) -> list[Found]:
    """The files of a Delta table's latest version that lie at or below a path, sorted by path."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise ResourceError(f"{table} is a Delta table: pip install 'diet_ray[delta]'") from error
    try:
        version = DeltaTable(str(table))
        _check(table, version)
        files = pa.table(version.get_add_actions(flatten=True)).to_pylist()
        columns: dict[str, str | None] = dict.fromkeys(column.name for column in version.schema().fields)
    except DeltaError as error:
        raise BadInputError(
            table,
            f"Delta table that cannot be read: {str(error).splitlines()[0]}",
            remedy="check it with the tool that wrote it",
        ) from error
    of_version = [Found(_place(table, file["path"]), columns | _values(file)) for file in files]
    selected = [file for file in of_version if file.path.is_relative_to(below)]
    if not selected:
        raise BadInputError(
            below, f"no file of the latest version of the Delta table {table} is here", remedy="give the table itself"
        )
    return sorted(selected, key=lambda file: file.path)


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
