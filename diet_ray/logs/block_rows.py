"""The rows of one block, kept while a stage needs them. Where they fit in memory, each file is read and hashed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pyarrow import ArrowException

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.blocks import BlockManifest, Log, Rows, row_bytes
from diet_ray.storage.entries import OtherFileError, check_size
from diet_ray.storage.parquet import batches

KEEP_BYTES = 256 << 20
"""Bytes of rows that a process keeps of a block. A larger block is streamed, and read again at each use."""


class BlockRows:
    """Iterates over the rows of a block, shard by shard, in time order, any number of times."""

    def __init__(self, log: Log, block: BlockManifest, *, keep_bytes: int = KEEP_BYTES) -> None:
        self.log, self.block = log, block
        self.kept: list[Rows] = []
        self.keeps = block.rows * row_bytes(log.schema) <= keep_bytes
        """Whether the block is small enough to be kept."""

    def __iter__(self) -> Iterator[Rows]:
        """The rows of each shard. Raises CorruptArtefactError where one is damaged."""
        if not self.keeps:
            yield from self.log.iter_block(self.block)
            return
        if not self.kept:
            self.kept = list(self.log.iter_block(self.block))
        yield from self.kept

    def row_ids(self) -> np.ndarray:
        """`[N]` int64: the ids of all rows. If the block is not kept, only the ids' column is read, which no checksum covers."""
        if self.keeps:
            return np.concatenate([rows.row_id for rows in self])
        return np.concatenate([self._ids_in(number) for number in range(len(self.block.shards))])

    def release(self) -> None:
        """Free the memory of the rows after their last use."""
        self.kept = []

    def _ids_in(self, number: int) -> np.ndarray:
        shard = self.block.shards[number]
        path = self.log.shard_path(self.block, shard)
        try:
            check_size(path, shard.bytes)
            parts = [batch.column(0).to_numpy() for batch in batches(path, ["row_id"])]
            row_id = np.concatenate([np.zeros(0, np.int64), *parts])
            if row_id.dtype != np.int64 or len(row_id) != shard.rows:
                raise OtherFileError(
                    f"{len(row_id)} row ids of type {row_id.dtype}, its manifest says {shard.rows} rows"
                )
            return row_id
        except (OtherFileError, ArrowException, OSError, KeyError) as error:
            raise CorruptArtefactError(f"{path}: {error}; restore it from a copy or ingest the log again") from error
