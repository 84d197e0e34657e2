"""Tables of several files, recognised by their folders: Delta, Iceberg; Hudi and Lance are refused.

Such a folder also holds files of older versions and files whose rows are deleted: what the table consists of stands in its own log.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion import delta
from diet_ray.logs.ingestion.kinds import Found


def live_files(source: Path) -> list[Found] | None:
    """The files of the table's latest version at or below a path, sorted by path; None where it lies in no table.

    Raises:
        BadInputError: the table cannot be read, or its latest version has no file there.
        ResourceError: the extra that reads it is not installed.
    """
    place = source.absolute()
    for folder in (place, *place.parents):
        kind = _kind(folder)
        if kind == "Delta":
            return delta.live_files(folder, place)
        if kind is not None:
            _refuse(folder, kind)
    return None


def refuse_within(path: Path) -> None:
    """Raise BadInputError where a path inside a folder is a table, which cannot be read together with other files."""
    kind = _kind(path)
    if kind is not None:
        raise BadInputError(path, f"is {_a(kind)} table within the folder", remedy="give the tables by name")


def _kind(folder: Path) -> str | None:
    if (folder / "_delta_log").is_dir():
        return "Delta"
    if (folder / ".hoodie").is_dir():
        return "Hudi"
    return None


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def _refuse(folder: Path, kind: str) -> NoReturn:
    raise BadInputError(
        folder, f"is {_a(kind)} table, which is not read", remedy="write the rows that you want as Parquet"
    )
