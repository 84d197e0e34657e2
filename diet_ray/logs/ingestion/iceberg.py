"""The files of an Iceberg table's current snapshot, and the rows deleted from them. Needs the extra `iceberg`, which imports this module.

A table's metadata names all files by where the table was written. They are looked for where the folder is now.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import FileFormat
from pyiceberg.table import StaticTable
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType

from diet_ray.errors import BadInputError, DietError, first_line
from diet_ray.logs.ingestion.kinds import Deletes, Found

METADATA = re.compile(r"v?(\d+)(-[^.]*)?(\.gz)?\.metadata\.json(\.gz)?")
"""Names of metadata files, with the number of the version."""


def files_of(table: Path, metadata: Path | None = None) -> list[Found]:
    """The files of a table's current snapshot: that of its newest metadata file, or of `metadata`.

    Raises:
        BadInputError: the table cannot be read, has files elsewhere or of another kind than Parquet, or deletes rows by their values.
    """
    metadata = metadata or _newest(table)
    try:
        return _files(table, metadata)
    except DietError:
        raise
    except Exception as error:  # pyiceberg and its decoders have many errors of their own
        raise BadInputError(
            metadata,
            f"Iceberg table that cannot be read: {first_line(error)[:200]}",
            remedy="check it, or rewrite its data files, with the engine that wrote it",
        ) from error


def _newest(table: Path) -> Path:
    versions: dict[int, list[Path]] = {}
    for path in sorted((table / "metadata").iterdir()):
        if match := METADATA.fullmatch(path.name):
            versions.setdefault(int(match[1]), []).append(path)
    newest = versions[max(versions)]
    if len(newest) > 1:  # of a commit that lost against another one, for example
        raise BadInputError(
            table,
            f"Iceberg table with two newest versions, {newest[0].name} and {newest[1].name}",
            remedy="give the one of the two files that the catalog names as the source",
        )
    return newest[0]


def _files(table: Path, metadata: Path) -> list[Found]:
    content = metadata.read_bytes()
    about = TableMetadataUtil.parse_raw((gzip.decompress(content) if ".gz" in metadata.suffixes else content).decode())
    place = partial(_place, table, about.location)
    moved: Any = _Moved(place)  # of a FileIO, only what a scan asks for
    static = StaticTable(("table",), about, str(metadata), moved, NoopCatalog("table"))
    mapping = about.name_mapping() or ()
    by_name = {name: mapped.field_id for mapped in mapping if mapped.field_id is not None for name in mapped.names}
    ids = {field.name: field.field_id for field in static.schema().fields}
    found = []
    for task in static.scan().plan_files():
        file = task.file
        path = place(file.file_path)
        if file.file_format != FileFormat.PARQUET:
            raise BadInputError(path, f"is {file.file_format} in an Iceberg table", remedy="rewrite it as Parquet")
        lists = sorted(str(place(delete.file_path)) for delete in task.delete_files)
        found.append(
            Found(
                path,
                "parquet",
                given=_given(static, file),
                named=partial(_named, path, ids, by_name),
                deletes=Deletes(file=file.file_path, lists=lists) if lists else None,
            )
        )
    return found


class _Moved:
    """How pyiceberg reads the table's files: from where the folder is now."""

    def __init__(self, place: Callable[[str], Path]) -> None:
        self._place, self._io = place, PyArrowFileIO()

    def new_input(self, location: str) -> Any:
        return self._io.new_input(str(self._place(location)))


def _place(table: Path, location: str, name: str) -> Path:
    inside = _path(name).removeprefix(f"{_path(location).rstrip('/')}/")
    if inside == _path(name) or ".." in Path(inside).parts:
        raise BadInputError(
            table, f"Iceberg table with a file elsewhere, {name!r}", remedy="copy the table whole, and give the copy"
        )
    return table / inside


def _path(location: str) -> str:
    """A location without its scheme: `s3` and `s3a`, `file:` and none, are the same place."""
    return re.sub(r"^[A-Za-z0-9+.-]+:/*|^/*", "/", location, count=1)


def _named(path: Path, ids: dict[str, int], by_name: dict[str, int], schema: pa.Schema) -> dict[str, str]:
    """The table's columns that a file has, with their names in it: by field ids, or by the table's mapping of names where it has none."""
    own = {int(field.metadata[_ID]): field.name for field in schema if _ID in (field.metadata or {})}
    if not own:
        own = {by_name[name]: name for name in schema.names if name in by_name}
    if not own:
        raise BadInputError(path, "has no field ids, and its Iceberg table no mapping of names", remedy="rewrite it")
    return {name: own[number] for name, number in ids.items() if number in own}


_ID = b"PARQUET:field_id"


def _given(table: Any, file: Any) -> dict[str, str | None]:
    """The values of columns that a file may lack: those of its partition, and those with which the table fills a newer column."""
    given = {}
    for field in table.schema().fields:
        default = field.initial_default
        if default is None or isinstance(default, bool | int | float | str | Decimal):
            given[field.name] = _text(default)
    spec = table.specs()[file.spec_id]
    for position, part in enumerate(spec.fields):
        if isinstance(part.transform, IdentityTransform):
            field, value = table.schema().find_field(part.source_id), file.partition[position]
            if isinstance(field.field_type, DateType) and isinstance(value, int):
                value = pa.scalar(value, pa.date32()).as_py()
            given[field.name] = _text(value)
    return given


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
