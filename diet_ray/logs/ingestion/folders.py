"""The files of a source, and the values in their folders' names: plain folders, partitions (`day=2024-03-04/`), tables of several files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion import tables
from diet_ray.logs.ingestion.kinds import ENDINGS, Found, Kind, kind_by_magic, kind_by_name
from diet_ray.logs.notes import Note

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Name of the partition of rows without a value, by the convention of Hive and Spark."""

_NAMED = 3
"""Files that a note names."""


def found_files(sources: list[Path], notes: list[Note] | None = None) -> list[Found]:
    """The files of all sources, in the order given. A folder contains the files in it and in its subfolders, sorted by path.

    A folder named `NAME=VALUE` in the path of a file gives all of its rows that value, as Hive and Spark write partitions. A table
    (`tables.py`), or a folder or file in one, contains the files of its latest version. What is passed over in a folder is added to
    `notes`: files whose names tell no kind and links to folders, but not markers, whose names begin with "." or "_".

    Raises:
        BadInputError: a source is missing, of an unknown kind, or given twice (under another name, too), or is a table whose files alone
            do not determine its rows.
        ResourceError: it is a table, and the extra that reads it is not installed.
    """
    passed: list[str] = []
    files = [file for source in sources for file in _below(source, passed)]
    targets: set[Path] = set()
    for path in (file.path for file in files):
        if not path.is_file():  # reading a pipe could wait forever
            raise BadInputError(
                path, "is a link that leads nowhere, or no file at all", remedy="remove it, or put the file there"
            )
        if path.resolve() in targets:
            raise BadInputError(path, "is given twice", remedy="its rows would count twice; name it once")
        targets.add(path.resolve())
    if passed and notes is not None:
        notes.append(Note(what=_listed(passed)))
    return files


def _below(source: Path, passed: list[str]) -> list[Found]:
    if not source.exists():
        raise BadInputError(source, "no such file or folder", remedy="correct the path")
    live = tables.live_files(source)
    if live is not None:
        return live
    if not source.is_dir():
        kind = kind_by_name(source.name) or (kind_by_magic(source) if source.is_file() else None)
        if kind is None:
            raise BadInputError(
                source, "of a kind that neither its name nor its first bytes tell", remedy=f"name it one of {ENDINGS}"
            )
        return [Found(source, kind, _partition(source))]
    found, over = list[Found](), list[str]()
    for path in sorted(_inside(source)):
        kind = None if _is_marker(path.name) else _kind(path)
        if kind is None:
            over.append(os.fsencode(path.relative_to(source)).decode("utf-8", "replace"))
        else:
            found.append(Found(path, kind, _partition(path)))
    if not found:
        raise BadInputError(
            source,
            "folder without any Parquet, CSV, ORC or Avro file" + (f"; {_listed(over)}" if over else ""),
            remedy="give the files, or the folder that holds them",
        )
    passed += over
    return found


def _inside(folder: Path) -> Iterator[Path]:
    """The files below a folder that are to be read or named. Markers and half-written files are neither, unless their names end as data."""
    for path in folder.rglob("*"):
        if path.is_dir():
            tables.refuse_within(path)
            if not path.is_symlink():
                continue
        if any(map(_is_marker, path.relative_to(folder).parts[:-1])):
            continue
        if not _is_marker(path.name) or kind_by_name(path.name):
            yield path


def _is_marker(name: str) -> bool:
    """Whether a name is one of a marker or of a half-written file, by convention."""
    return name.startswith((".", "_")) and "=" not in name


def _kind(path: Path) -> Kind | None:
    """The kind of a file in a folder. Only names without an ending, as Spark and Hive give them, leave it to the first bytes: a copy
    that is called `a.parquet.old` is not meant to be read."""
    if path.is_dir():  # a link to one
        return None
    try:
        return kind_by_name(path.name) or (kind_by_magic(path) if "." not in path.name and path.is_file() else None)
    except OSError:
        return None


def _listed(passed: list[str]) -> str:
    more = f" and {len(passed) - _NAMED} more" if len(passed) > _NAMED else ""
    files = "1 file" if len(passed) == 1 else f"{len(passed)} files"
    return f"{files} passed over: {', '.join(passed[:_NAMED])}{more}"


def _partition(path: Path) -> dict[str, str | None]:
    """The values in the names of the folders above a file, the nearest folder last."""
    pairs = [name.split("=", 1) for name in path.parts[:-1] if "=" in name]
    return {name: None if value in ("", _NO_VALUE) else unquote(value) for name, value in pairs}
