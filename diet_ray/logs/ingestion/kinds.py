"""The kinds of file that are read, by their names and by their first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

from diet_ray.settings import Settings

Kind = Literal["parquet", "csv", "orc", "avro"]

ENDINGS = ".parquet, .csv, .tsv, .csv.gz, .orc, .avro"
"""The usual endings, for messages."""

_NAMES: list[tuple[re.Pattern[str], Kind]] = [
    (re.compile(r"\.(parquet|parq|pq)$", re.IGNORECASE), "parquet"),
    (re.compile(r"\.(csv|tsv)(\.(gz|bz2|zst|zstd))?$", re.IGNORECASE), "csv"),
    (re.compile(r"\.orc$", re.IGNORECASE), "orc"),
    (re.compile(r"\.avro$", re.IGNORECASE), "avro"),
]

_MAGIC: list[tuple[bytes, Kind]] = [(b"PAR1", "parquet"), (b"ORC", "orc"), (b"Obj\x01", "avro")]

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}


class Deletes(Settings):
    """The rows of a file that a table no longer has, by files that list them."""

    file: str
    """The file's name in those lists."""
    lists: list[str]
    """The lists: Parquet files of positions, or Puffin files of deletion vectors."""


@dataclass(frozen=True)
class Found:
    """A file to read."""

    path: Path
    kind: Kind
    given: dict[str, str | None] = field(default_factory=dict)
    """Values of columns for all of its rows, as text, used where the file has no column of that name; None is a missing value."""
    named: Callable[[pa.Schema], dict[str, str]] | None = None
    """The columns of the file, whose schema it takes, with their names in it; None where the file has them under their own names."""
    deletes: Deletes | None = None
    """Rows of the file that a table no longer has."""


def kind_by_name(name: str) -> Kind | None:
    """The kind that a file's name tells, in capitals or not; None where it tells none."""
    return next((kind for pattern, kind in _NAMES if pattern.search(name)), None)


def kind_by_magic(path: Path) -> Kind | None:
    """The kind that the first bytes of a file tell; None where they tell none, as those of text do, packed or not."""
    start = _start(path)
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), None)


def packed_with(path: Path) -> str | None:
    """The compression of a text file, as Arrow calls it; None if there is none. Some exports are packed without `.gz` in their names.

    Raises:
        OSError: the file cannot be read.
    """
    start, ending = _start(path), path.suffix.lower()
    by_magic = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    return {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}.get(ending, by_magic)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
