"""Reads the rows of a stage's table or of its moments, without the whole: a process needs memory for the rows that it asks for.

All files of the chain (`table_chain.py`) are mapped, and only the pages that are touched are read.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diet_ray.errors import ConfigError, CorruptArtefactError, ResourceError
from diet_ray.memory.facts import StageFacts
from diet_ray.memory.pruning import pruned, stage_file
from diet_ray.memory.table_chain import OF_TABLE, ROWS, broken, links, rows_problem
from diet_ray.storage.tensors import PIECE_BYTES, Pieces, load_tensors
from diet_ray.training.embedding import lookup

IN_MEMORY = 64 << 20
"""Most bytes of a tensor that is put together in memory; a larger one is put together in a temporary file."""

EMBEDDED_AT_ONCE = 1 << 15
"""Rows that are embedded at once."""


class LinkFile(NamedTuple):
    """A file of a chain."""

    path: Path
    n_ids: int
    """Rows of the table at the end of its stage."""


class LocalRows(NamedTuple):
    """The rows of a table that some ids name, and the ids by their places among these: what a lookup needs, and no more."""

    table: Tensor
    """`[U, d]` float32; row 0 is the padding."""
    ids: np.ndarray
    """The ids, of the shape in which they were given."""


class TableReader:
    """Reads rows. The chain's tensors that have no row for each id (nets, step counts) are in `others`.

    It is opened by `open`, or from `files`, those of another reader: they are then not hashed again, for example by the owners of units.
    """

    def __init__(self, files: list[LinkFile]) -> None:
        """Map the files, the whole table first.

        Raises CorruptArtefactError where a file is missing or damaged, or its rows cannot be.
        """
        self.files, self.n_ids = files, files[-1].n_ids
        self.others: dict[str, Tensor] = {}
        self._first: dict[str, Tensor] = {}
        self._later: list[tuple[Tensor, dict[str, Tensor]]] = []
        before = files[0].n_ids
        for number, (path, n_ids) in enumerate(files):
            tensors = load_tensors(path)
            rows = tensors.pop(ROWS, torch.zeros(0, dtype=torch.int32)) if number else None
            of_table = {name: tensors.pop(name) for name in OF_TABLE if name in tensors}
            if rows is not None:
                problem = rows_problem(rows.numpy(), before, n_ids)
                if problem:
                    raise CorruptArtefactError(f"{path}, tensor {ROWS!r}: {problem}; restore it from a copy")
                self._later.append((rows, of_table))
            else:
                self._first = of_table
            if len(files) > 1:
                self._check(of_table, n_ids if rows is None else len(rows), path)
            self.others |= tensors
            before = n_ids

    @staticmethod
    def open(folder: Path, stage: StageFacts, *, moments: bool = False) -> TableReader:
        """A reader of the last checkpoint of a stage, or of its moments, with all files checked.

        Args:
            folder: the stage's; the stages on which its table builds are beside it.
            stage: its manifest.
            moments: whether to read the moments.

        Raises:
            ConfigError: it was pruned.
            CorruptArtefactError: a file is missing or damaged, or a stage on which it builds is not there.
        """
        files = []
        for place, link in links(folder, stage):
            try:
                path = stage_file(place, link.optimiser if moments else link.checkpoints[-1])
            except (ConfigError, CorruptArtefactError) as error:
                record = pruned(folder)  # looked at only now: a stage may be pruned, with its links, while it is opened
                own = stage.optimiser if moments else stage.checkpoints[-1]
                if record and own.path in record.names:
                    raise record.refusal(folder) from None
                if link.index == stage.index:
                    raise
                raise broken(folder, stage, link.index, f"is damaged ({error})") from error
            files.append(LinkFile(path, link.n_ids))
        reader, last = TableReader(files), files[-1]
        for name in OF_TABLE:
            kind = reader.kind(name)
            if kind is not None and kind[1][:1] != (last.n_ids,):
                raise CorruptArtefactError(
                    f"{last.path}, tensor {name!r}: {kind[0]} {list(kind[1])}, the manifest has {last.n_ids} ids; restore the run folder "
                    "from a copy"
                )
        return reader

    def kind(self, name: str = "table") -> tuple[torch.dtype, tuple[int, ...]] | None:
        """The type and the shape of a tensor that has a row for each id; None where there is none."""
        if name not in self._first:
            return None
        own = self._first[name]
        return own.dtype, (self.n_ids, *own.shape[1:]) if self._later else tuple(own.shape)

    def take(self, ids: np.ndarray | Tensor, name: str = "table") -> Tensor:
        """The rows of `ids [U]`, `[U, d]`: of each the newest. They are found fastest where ids ascend.

        Raises IndexError where an id is not in the table.
        """
        wanted = torch.as_tensor(ids).long()
        base = self._first[name]
        if not self._later:
            return base.index_select(0, wanted)
        if len(wanted) and int(wanted.max()) >= self.n_ids:  # one beyond int32 would be found as another row
            raise IndexError(f"id {int(wanted.max())} is not in a table of {self.n_ids} rows")
        found = base.new_empty(len(wanted), base.shape[1])
        left = torch.arange(len(wanted))
        for rows, newer in reversed(self._later):
            if name not in newer or not len(rows) or not len(left):
                continue
            own = wanted[left]
            at = torch.searchsorted(rows, own.to(rows.dtype)).clamp_(max=len(rows) - 1)
            hit = rows[at] == own
            found[left[hit]] = newer[name].index_select(0, at[hit])
            left = left[~hit]
        found[left] = base.index_select(0, wanted[left])
        return found

    def local(self, ids: np.ndarray, field_of_slot: np.ndarray) -> LocalRows:
        """The rows that ids `[N, S]` of the log name; an id that is not in the table is read as its field's `unknown`."""
        ids = np.where(ids < self.n_ids, ids, (field_of_slot + 1).astype(ids.dtype))
        rows = np.unique(np.append(ids.ravel(), ids.dtype.type(0)))
        return LocalRows(self.take(rows), np.searchsorted(rows, ids).astype(ids.dtype))

    def embed(self, ids: np.ndarray, field_of_slot: np.ndarray) -> Tensor:
        """`[N, S]` ids to `[N, F, d]` inputs, as `diet_ray.training.embedding.lookup` gives them on the whole table."""
        slots = torch.tensor(field_of_slot)
        if (
            not self._later or self._bytes("table") <= IN_MEMORY
        ):  # a small table is put together faster than its rows are found
            return lookup(self.whole(), torch.tensor(ids), slots)
        parts = []
        for start in range(0, max(len(ids), 1), EMBEDDED_AT_ONCE):
            table, own = self.local(ids[start : start + EMBEDDED_AT_ONCE], field_of_slot)
            parts.append(lookup(table, torch.from_numpy(own), slots))
        return torch.cat(parts)

    def pieces(self, name: str = "table", start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        """The rows from `start` to `stop`, by default all of them, in bounded pieces `[r, d]`. Change none: they may be the file's own."""
        base, end = self._first[name], self.n_ids if stop is None else stop
        n = max(1, PIECE_BYTES // (base.shape[1] * base.element_size()))
        for first in range(start, end, n):
            last = min(first + n, end)
            if not self._later:
                yield base[first:last]
                continue
            piece = base.new_zeros(last - first, base.shape[1])
            old = base[first:last]
            piece[: len(old)] = old
            for rows, newer in self._later:
                if name in newer:
                    begin, after = np.searchsorted(rows.numpy(), [first, last]).tolist()
                    piece[rows[begin:after].long() - first] = newer[name][begin:after]
            yield piece

    def as_pieces(self, name: str = "table") -> Pieces:
        """A tensor as `save_tensors` writes it, piece by piece."""
        base = self._first[name]
        return Pieces(base.dtype, (self.n_ids, base.shape[1]), lambda: self.pieces(name))

    def whole(self, name: str = "table") -> Tensor:
        """A tensor as a whole, `[n_ids, d]`; who changes it changes no file.

        It is mapped. A large one of a chain is put together in a temporary file, which needs no name and no memory of the process.

        Raises:
            ResourceError: the folder of temporary files has no room.
        """
        base = self._first[name]
        if not self._later:
            return base
        size = self._bytes(name)
        if size <= IN_MEMORY:
            whole = base.new_zeros(self.n_ids, base.shape[1])
            whole[: len(base)] = base
            for rows, newer in self._later:
                if name in newer:
                    whole[rows.long()] = newer[name]
            return whole
        try:
            with tempfile.TemporaryFile() as file:
                for piece in self.pieces(name):
                    file.write(piece.numpy().data)
                file.flush()
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise ResourceError(
                f"{tempfile.gettempdir()}: no room for a table of {size} bytes ({error}); free some, or set TMPDIR to a larger folder"
            ) from error
        return torch.frombuffer(mapped, dtype=base.dtype).view(self.n_ids, base.shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, as a stage that writes its table whole has them."""
        return {name: self.whole(name) for name in self._first} | self.others

    def _bytes(self, name: str) -> int:
        base = self._first[name]
        return self.n_ids * base.shape[1] * base.element_size()

    def _check(self, tensors: dict[str, Tensor], n: int, path: Path) -> None:
        for name, value in tensors.items():
            if value.dim() != 2 or len(value) != n:
                raise CorruptArtefactError(
                    f"{path}, tensor {name!r}: {list(value.shape)} for {n} rows; restore it from a copy"
                )
            whole = self._first.get(name)
            if whole is None or value.dtype != whole.dtype or value.shape[1] != whole.shape[1]:
                wanted = "no such rows" if whole is None else f"{whole.dtype} of width {whole.shape[1]}"
                raise CorruptArtefactError(
                    f"{path}, tensor {name!r}: {value.dtype} of width {value.shape[1]}, the table on which it builds has {wanted}; "
                    "restore it from a copy"
                )
