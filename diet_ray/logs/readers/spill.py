"""Rows stored on disk by a key, such as their day, and read back one key at a time, to sort a large log."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from diet_ray.errors import ConfigError


class Spill:
    """One temporary Arrow file whose batches each hold rows of one key; memory holds the positions of the batches.

    A context manager, which removes the file at its end.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`; its folder is created where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._writer: pa.RecordBatchFileWriter | None = None
        self._reader: pa.RecordBatchFileReader | None = None
        self._batches: dict[int, list[int]] = defaultdict(list)
        self._written = 0

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = None
        self._path.unlink(missing_ok=True)

    def add(self, rows: pa.Table, key: np.ndarray) -> None:
        """Store the rows, each under its key, `[N]` int64. All tables have one schema. No rows may be added after the first `read`."""
        order = np.argsort(key, kind="stable")
        kinds, first = np.unique(key[order], return_index=True)
        rows = rows.take(pa.array(order)).combine_chunks()
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(str(self._path), rows.schema, options=options)
        for kind, begin, end in zip(kinds.tolist(), first, [*first[1:], len(order)], strict=True):
            [batch] = rows.slice(begin, end - begin).to_batches()
            self._writer.write_batch(batch)
            self._batches[kind].append(self._written)
            self._written += 1

    @property
    def keys(self) -> list[int]:
        """The keys that have rows, ascending."""
        return sorted(self._batches)

    def read(self, key: int) -> pa.Table:
        """The rows of a key (at least one), in the order in which they were added."""
        if self._reader is None:
            if self._writer is None:
                raise ConfigError("no row was stored")
            self._writer.close()
            self._writer = None
            self._reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        return pa.Table.from_batches([self._reader.get_batch(at) for at in self._batches[key]]).combine_chunks()
