"""Rows of a log in memory, and the Parquet file of a shard."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.manifests import LogShard
from diet_ray.schema import Schema
from diet_ray.storage.arrays import Columns, column_of, column_problems, values_of
from diet_ray.storage.entries import OtherFileError, read_content
from diet_ray.storage.hashes import sha256
from diet_ray.storage.parquet import check_whole
from diet_ray.storage.parquet_writing import write_parquet

DTYPES = {"row_id": np.int64, "time": np.int64, "user": np.int64, "ids": np.int32, "labels": np.uint8}
"""The columns of a shard, as `blocks.py` describes them."""

AGAIN = "restore it from a copy or ingest the log again"
"""The remedy for a damaged log."""


@dataclass(frozen=True)
class Rows:
    """Rows of a log in memory, column-wise; N rows, S slots, T tasks."""

    row_id: np.ndarray
    """`[N]` int64."""
    time: np.ndarray
    """`[N]` int64, ms since the epoch."""
    user: np.ndarray
    """`[N]` int64 hash."""
    ids: np.ndarray
    """`[N, S]` int32."""
    labels: np.ndarray
    """`[N, T]` uint8."""

    def __len__(self) -> int:
        return len(self.row_id)

    def take(self, index: np.ndarray | slice) -> Rows:
        """The rows at the positions `index`, or where the mask `index` is true; those of a slice share this object's memory."""
        return Rows(**{part.name: getattr(self, part.name)[index] for part in fields(self)})

    @staticmethod
    def concat(parts: list[Rows]) -> Rows:
        """All rows of `parts`, in order."""
        return Rows(**{part.name: np.concatenate([getattr(p, part.name) for p in parts]) for part in fields(Rows)})


def write_shard(path: Path, rows: Rows) -> LogShard:
    """Write rows as one Parquet shard and return its manifest entry. The same rows give the same bytes."""
    table = pa.table({name: column_of(getattr(rows, name).astype(kind, copy=False)) for name, kind in DTYPES.items()})
    write_parquet(table, path)
    return LogShard(
        path=path.name,
        rows=len(rows),
        bytes=path.stat().st_size,
        sha256=sha256(path),
        positives=[int(n) for n in rows.labels.sum(axis=0, dtype=np.int64)],
    )


def read_shard(path: Path, shard: LogShard, schema: Schema) -> Rows:
    """Read a shard once, and check the bytes read against its manifest entry.

    Raises:
        CorruptArtefactError: the file is missing, truncated, changed, or of another shape than the schema says.
    """
    try:
        content = read_content(path, shard.bytes, shard.sha256)
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            # Checked by the footer, before anything is allocated.
            if file.metadata.num_rows != shard.rows:
                raise OtherFileError(f"{file.metadata.num_rows} rows, its manifest says {shard.rows}")
            check_whole(content, file, row_bytes(schema))
            for name, problem in column_problems(file.schema_arrow, shard_columns(schema)):
                raise CorruptArtefactError(f"{path}: column {name!r} {problem}; {AGAIN}")
            table = file.read()
        table.validate(full=True)
        columns = {name: values_of(table[name]) for name in DTYPES}
    except OtherFileError as error:
        raise CorruptArtefactError(f"{path}: {error}; {AGAIN}") from error
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise CorruptArtefactError(f"{path}: not a readable shard ({error}); {AGAIN}") from error
    return Rows(**columns)


def shard_columns(schema: Schema) -> Columns:
    """The columns of a shard of a log of that schema."""
    widths = {"ids": schema.n_slots, "labels": schema.n_tasks}
    return {name: (kind, widths.get(name)) for name, kind in DTYPES.items()}


def row_bytes(schema: Schema) -> int:
    """Bytes of a row in memory."""
    return sum(np.dtype(kind).itemsize * (width or 1) for kind, width in shard_columns(schema).values())
