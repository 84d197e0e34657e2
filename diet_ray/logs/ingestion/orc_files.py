"""ORC files, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import orc

from diet_ray.storage.parquet import check_rows

_BATCH_ROWS = 16_384
"""Rows that are held at a time."""


def names(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        pa.ArrowException, OSError: the file cannot be read.
    """
    return list(orc.ORCFile(path).schema.names)


def batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The columns of a file, in batches of a bounded number of rows.

    Raises:
        pa.ArrowException, OSError: the file cannot be read, or claims more rows than its size can hold.
    """
    check_rows(path, orc.ORCFile(path).nrows)
    # A stripe is read in parts: a whole one may unpack to gigabytes.
    yield from ds.dataset(path, format="orc").to_batches(
        columns=columns, batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=0, use_threads=False
    )
