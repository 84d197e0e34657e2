"""Faults of a folder: they are collected in a list and not raised, so that one check reports all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from diet_ray.errors import CorruptArtefactError, VersionError, remedy_of
from diet_ray.settings import Settings, parse_json
from diet_ray.storage.arrays import Columns, column_problems, values_of
from diet_ray.storage.entries import OtherFileError, check_content

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Fault:
    """One fault."""

    where: str
    """The file, below the folder that is verified, and the column or tensor."""
    what: str
    """The problem."""
    remedy: str
    """What the user can do about it."""


class Faults:
    """The faults of the folder `root`, in the order in which they are found; `remedy` is the default remedy."""

    def __init__(self, root: Path, remedy: str) -> None:
        self.root, self.remedy = root, remedy
        self.faults: list[Fault] = []

    def add(self, path: Path, problem: str, *, part: str | None = None, remedy: str | None = None) -> None:
        """Note a fault of a file or folder, or of a `part` of it, such as `column 'ids'`."""
        where = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
        self.faults.append(Fault(f"{where}, {part}" if part else where, problem, remedy or self.remedy))

    @contextmanager
    def going_on(self, path: Path) -> Iterator[None]:
        """Note a fault, and go on behind the body, where the operating system refuses a path in it; `path` where it does not say which."""
        try:
            yield
        except OSError as error:
            named = error.filename
            place = Path(os.fsdecode(named)) if isinstance(named, str | bytes | os.PathLike) else path
            self.add(place, f"cannot be read ({error.strerror or error})", remedy=remedy_of(error))

    def manifest(self, kind: type[S], path: Path) -> S | None:
        """Read a manifest; None, and a fault, where that fails."""
        try:
            with self.going_on(path):
                if path.is_symlink():
                    self.add(path, "is a link")
                    return None
                return parse_json(kind, path)
        except CorruptArtefactError as error:
            self.add(path, str(error).removeprefix(f"{path}: "))
        except VersionError as error:
            remedy = "verify it with the release that made it, or make it again with this one"
            self.add(path, str(error).removeprefix(f"{path}: ").partition(":")[0], remedy=remedy)
        return None

    def intact(self, path: Path, n_bytes: int, checksum: str) -> bool:
        """Whether a file is there and matches its manifest; if not, note a fault. The size is checked first."""
        with self.going_on(path):
            try:
                check_content(path, n_bytes, checksum)
                return True
            except OtherFileError as error:
                self.add(path, str(error))
        return False

    def strays(self, folder: Path, named: set[str], *, remedy: str) -> None:
        """Note a fault for each file or folder in `folder` whose name is not in `named`."""
        with self.going_on(folder):
            for path in sorted(folder.iterdir()):
                if path.name not in named:
                    self.add(path, "stray: no manifest names it", remedy=remedy)

    def columns(self, path: Path, schema: pa.Schema, wanted: Columns) -> bool:
        """Whether a table has the wanted columns, by its schema alone; if not, note the faults."""
        problems = list(column_problems(schema, wanted))
        for name, problem in problems:
            self.add(path, problem, part=f"column {name!r}")
        return not problems

    def arrays(self, path: Path, table: pa.Table, wanted: Columns) -> dict[str, np.ndarray] | None:
        """The columns of a table, whose types have been checked, as arrays; None, and faults, where values are missing."""
        empty = [name for name in wanted if _nulls(table[name])]
        for name in empty:
            self.add(path, "has missing values", part=f"column {name!r}")
        return None if empty else {name: values_of(table[name]) for name in wanted}


def few(ids: np.ndarray, bad: np.ndarray, noun: str) -> str:
    """The number of `noun`, such as `rows`, for which the mask `bad [N]` is true, and the first of their `ids [N]`, as text."""
    return f"{int(bad.sum())} of {len(ids)} {noun}, the first is {int(ids[bad][0])}"


def _nulls(column: pa.ChunkedArray) -> int:
    inside = sum(chunk.flatten().null_count for chunk in column.chunks if pa.types.is_fixed_size_list(chunk.type))
    return int(column.null_count + inside)
