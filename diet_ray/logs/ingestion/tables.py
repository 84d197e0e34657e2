"""Tables of several files, recognised by their folders: Delta, Iceberg; Hudi and Lance are refused.

Such a folder also holds files of older versions and files whose rows are deleted: what the table consists of stands in its own log.
"""

from __future__ import annotations

from pathlib import Path

from diet_ray.errors import BadInputError, ResourceError, install_extra
from diet_ray.logs.ingestion import delta
from diet_ray.logs.ingestion.kinds import Found


def live_files(source: Path) -> list[Found] | None:
    """The files of the table's latest version at or below a path, sorted by path; None where it lies in no table.

    Raises:
        BadInputError: the table cannot be read, or its latest version has no file there.
        ResourceError: the extra that reads it is not installed.
    """
    place = source.absolute()
    for table in (place, *place.parents):
        kind = _kind(table)
        if kind is None:
            continue
        if kind == "Delta":
            files = delta.files_of(table)
        elif kind == "Iceberg":
            files = _iceberg(table, place)
            place = table if _is_metadata(place) else place
        else:
            raise BadInputError(
                table, f"is {_a(kind)} table, which is not read", remedy="write the rows that you want as Parquet"
            )
        below = [file for file in files if file.path.is_relative_to(place)]
        if not below:
            raise BadInputError(
                source,
                f"no file of the latest version of the {kind} table {table} is here",
                remedy="give the table itself",
            )
        return sorted(below, key=lambda file: file.path)
    return None


def refuse_within(path: Path) -> None:
    """Raise BadInputError where a path inside a folder is a table, which cannot be read together with other files."""
    kind = _kind(path)
    if kind is not None:
        raise BadInputError(path, f"is {_a(kind)} table within the folder", remedy="give the tables by name")


def _kind(folder: Path) -> str | None:
    if (folder / "_delta_log").is_dir():
        return "Delta"
    if any(map(_is_metadata, (folder / "metadata").glob("*.metadata.json*"))):
        return "Iceberg"
    if (folder / ".hoodie").is_dir():
        return "Hudi"
    return "Lance" if any((folder / "_versions").glob("*.manifest")) else None


def _is_metadata(path: Path) -> bool:
    """Whether a path may be an Iceberg table's metadata file, by its name."""
    return path.parent.name == "metadata" and path.name.endswith((".metadata.json", ".metadata.json.gz"))


def _iceberg(table: Path, place: Path) -> list[Found]:
    try:
        from diet_ray.logs.ingestion import iceberg
    except ImportError as error:
        raise ResourceError(
            f"{table} is an Iceberg table, which needs pyiceberg: {install_extra('iceberg')}"
        ) from error
    return iceberg.files_of(table, place if _is_metadata(place) else None)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
