"""The vocabulary of a log: the values of its fields, and the id that each value got when it first appeared. Ids grow forward in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.schema import Schema
from diet_ray.storage.parquet import BombError, batches

VOCABULARY = pa.schema([("field", pa.string()), ("value", pa.string()), ("id", pa.int32()), ("block", pa.int32())])
"""Every vocabulary value, in id order: its field's name, its canonical text, its id, the block that added it."""


MOST_PER_BYTE = 1000
"""A vocabulary's file may unpack to this multiple of its size: its values are all different."""


def read_vocabulary(path: Path) -> pa.Table:
    """A log's vocabulary, schema `VOCABULARY`, which the file must have. Raises pa.ArrowException or OSError where it cannot be read."""
    return pa.Table.from_batches(_batches(path), VOCABULARY)


def unpacked_vocabulary(path: Path, to: Path) -> pa.Table:
    """As `read_vocabulary`, mapped from a new Arrow file `to`: however many values there are, some are in memory at a time."""
    with pa.ipc.new_file(str(to), VOCABULARY) as writer:
        for batch in _batches(path):
            writer.write_batch(batch)
    return mapped_vocabulary(to)


def mapped_vocabulary(path: Path) -> pa.Table:
    """The vocabulary in an Arrow file that is not packed."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        return reader.read_all()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    n_bytes, most = 0, MOST_PER_BYTE * path.stat().st_size
    for batch in batches(path, VOCABULARY.names):
        n_bytes += batch.nbytes
        if n_bytes > most:
            raise BombError(f"unpacks to more than {MOST_PER_BYTE} times its size")
        yield batch


def first_slots(schema: Schema) -> np.ndarray:
    """`[F]` int64: the first id slot of each field."""
    return np.searchsorted(schema.field_of_slot, np.arange(schema.n_fields))


def values_per_block(vocabulary: pa.Table, n_blocks: int) -> np.ndarray:
    """`[B]` int64: the values that each of the first `n_blocks` blocks adds; those of later ones do not count.

    Raises:
        ValueError: the values are not in the order of their blocks.
    """
    added, before = np.zeros(n_blocks, np.int64), 0
    for chunk in vocabulary["block"].chunks:
        block = chunk.to_numpy()
        if not len(block):
            continue
        if block[0] < before or (block[1:] < block[:-1]).any():
            raise ValueError("its values are not in the order of their blocks")
        before = int(block[-1])
        opens = np.flatnonzero(np.append(True, block[1:] > block[:-1]))
        n, of = np.diff([*opens, len(block)]), block[opens]
        added[of[of < n_blocks]] += n[of < n_blocks]
    return added


def ids_after(vocabulary: pa.Table, schema: Schema, n_blocks: int) -> np.ndarray:
    """`[B]` int64, B = `n_blocks`: the size of the id space after each block; all ids of rows up to there are below it."""
    return np.asarray(schema.first_static_id[-1] + np.cumsum(values_per_block(vocabulary, n_blocks)), np.int64)
