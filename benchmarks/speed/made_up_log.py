"""A made-up log of any size for the benchmark of ingest, as several Parquet files: ids as text and as integers, numbers, lists of tags.

Ids have long tails and new ones appear every day, as in a real log. The same number of rows gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS = 8
FIRST = 1_709_510_400_000
"""4 March 2024, ms since the epoch."""
DAY = 86_400_000
FILES = 8
GROUP_ROWS = 250_000
"""Rows of a row group."""

SCHEMA = """\
name: made-up
time: {column: at, unit: ms}
user: member
tasks: [click, buy]
fields:
  - {name: member, kind: vocabulary, min_count: 2}
  - {name: item, kind: vocabulary, min_count: 2}
  - {name: shop, kind: vocabulary}
  - {name: device, kind: vocabulary}
  - {name: place, kind: hashed, buckets: 10000}
  - {name: campaign, kind: hashed, buckets: 1000}
  - {name: price, kind: numeric, buckets: 32}
  - {name: dwell, kind: numeric, buckets: 16, transform: log}
  - {name: tags, kind: vocabulary, max_values: 3}
"""
"""The schema of the log, for `diet-ray ingest`."""


def make(folder: Path, rows: int, *, distinct: float = 0.1, least: int = 2) -> None:
    """Write the log of `rows` rows; `distinct` is the number of members over that of rows, and there are half as many
    items; `least` is the `min_count` of both."""
    folder.mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(rows), FILES)):
        writer = None
        # A file holds a time of its own, but for some late rows; within a file, rows are in no order.
        for begin in range(0, len(part), GROUP_ROWS):
            table = _rows(part[begin : begin + GROUP_ROWS], rows, distinct)
            writer = writer or pq.ParquetWriter(folder / f"part-{number}.parquet", table.schema)
            writer.write_table(table, row_group_size=GROUP_ROWS)
        if writer is not None:
            writer.close()
    schema = SCHEMA.replace("min_count: 2", f"min_count: {least}")
    (folder.parent / f"{folder.name}.yaml").write_text(schema, encoding="utf-8")


def _rows(index: np.ndarray, rows: int, distinct: float) -> pa.Table:
    n, draw = len(index), np.random.default_rng(int(index[0]))
    late = draw.exponential(3_600_000, n) * (draw.random(n) < 0.02)
    at = FIRST + (index * (DAYS * DAY - 1) // rows - late).clip(0).astype(np.int64)
    order = draw.permutation(n)

    def tail(size: float) -> np.ndarray:
        """Ids below `size`, whose number grows with time; a few are frequent."""
        size = max(size, 10)
        return (draw.random(n) ** 3 * size * (0.3 + 0.7 * index / rows)).astype(np.int64)

    def texts(prefix: str, ids: np.ndarray) -> pa.Array:
        kinds, at_ = np.unique(ids, return_inverse=True)
        return pa.array([f"{prefix}{kind:x}" for kind in (kinds * 2_654_435_761 % 2**32).tolist()]).take(pa.array(at_))

    tags = tail(5_000)
    lengths = draw.integers(0, 4, n)
    lists = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()),
        texts("t", (np.repeat(tags, lengths) + draw.integers(0, 50, lengths.sum())) % 5_000),
    )
    table = pa.table(
        {
            "at": at,
            "member": tail(distinct * rows) * 7 + 1_000_000,
            "item": texts("item-", tail(distinct * rows / 2)),
            "shop": texts("s", tail(2_000)),
            "device": draw.integers(0, 300, n),
            "place": texts("place ", tail(50_000)),
            "campaign": tail(20_000),
            "price": pa.array(np.round(draw.lognormal(3, 1, n), 2), mask=draw.random(n) < 0.05),
            "dwell": draw.exponential(30, n).astype(np.float32),
            "tags": lists,
            "click": (draw.random(n) < 0.1).astype(np.int8),
            "buy": draw.random(n) < 0.01,
        }
    )
    return table.take(pa.array(order))
