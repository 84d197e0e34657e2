"""Faults: what is wrong with a folder, gathered instead of raised, so that one look finds them all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from diet_ray.errors import CorruptArtefactError, VersionError
from diet_ray.settings import Settings, parse_json
from diet_ray.storage.arrays import Columns, column_problems, values_of
from diet_ray.storage.entries import OtherFileError, check_content

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    where: str
    """The file, below the folder that is verified, and the column or tensor."""
    what: str
    """What is wrong with it."""
    remedy: str
    """What to do about it."""


class Faults:
    """The faults of the folder `root`, in the order in which they are found; `remedy` is what usually helps there."""

    def __init__(self, root: Path, remedy: str) -> None:
        self.root, self.remedy = root, remedy
        self.found: list[Fault] = []

    def add(self, path: Path, what: str, *, part: str | None = None, remedy: str | None = None) -> None:
        """Note a fault of a file or folder, or of a `part` of it, such as `column 'ids'`."""
        where = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
        self.found.append(Fault(f"{where}, {part}" if part else where, what, remedy or self.remedy))

    def manifest(self, kind: type[S], path: Path) -> S | None:
        """Read a manifest; None where that is a fault."""
        if path.is_symlink():
            self.add(path, "is a link")
            return None
        try:
            return parse_json(kind, path)
        except CorruptArtefactError as error:
            self.add(path, str(error).removeprefix(f"{path}: "))
        except VersionError as error:
            remedy = "verify it with the release that made it, or make it again with this one"
            self.add(path, str(error).removeprefix(f"{path}: ").partition(":")[0], remedy=remedy)
        return None

    def intact(self, path: Path, n_bytes: int, checksum: str) -> bool:
        """Whether a file is there and is the one that its manifest describes. Its size is looked at first."""
        try:
            check_content(path, n_bytes, checksum)
        except OtherFileError as error:
            self.add(path, str(error))
            return False
        return True

    def strays(self, folder: Path, named: set[str], *, remedy: str) -> None:
        """Note what lies in a folder and is not among the names."""
        for path in sorted(folder.iterdir()):
            if path.name not in named:
                self.add(path, "stray: no manifest names it", remedy=remedy)

    def columns(self, path: Path, schema: pa.Schema, wanted: Columns) -> bool:
        """Whether a table has the columns that it should have; looks at its schema alone."""
        problems = list(column_problems(schema, wanted))
        for name, problem in problems:
            self.add(path, problem, part=f"column {name!r}")
        return not problems

    def arrays(self, path: Path, table: pa.Table, wanted: Columns) -> dict[str, np.ndarray] | None:
        """The columns of a table whose types are right; None where values are missing."""
        empty = [name for name in wanted if _nulls(table[name])]
        for name in empty:
            self.add(path, "has missing values", part=f"column {name!r}")
        return None if empty else {name: values_of(table[name]) for name in wanted}


def few(ids: np.ndarray, bad: np.ndarray, what: str) -> str:
    """How many `what` the mask `bad [N]` says, and the first of their `ids [N]`."""
    return f"{int(bad.sum())} of {len(ids)} {what}, the first is {int(ids[bad][0])}"


def _nulls(column: pa.ChunkedArray) -> int:
    inside = sum(chunk.flatten().null_count for chunk in column.chunks if pa.types.is_fixed_size_list(chunk.type))
    return int(column.null_count + inside)
