"""Writes Parquet files with every setting given: the same table gives the same bytes, whatever a release of pyarrow takes as default.

Only the name of pyarrow's release, which stands in each file, differs between releases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from diet_ray.settings import whole_file

SETTINGS: dict[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "row_group_size": 1 << 20,
    "data_page_size": 1 << 20,
    "dictionary_pagesize_limit": 1 << 20,
    "write_batch_size": 1024,
    "max_rows_per_page": 20_000,
    "use_dictionary": True,
    "use_byte_stream_split": False,
    "use_compliant_nested_type": True,
    "store_decimal_as_integer": False,
    "write_time_adjusted_to_utc": False,
    "store_schema": True,
    "write_statistics": True,
    "write_page_index": False,
    "write_page_checksum": False,
}
"""What decides the bytes of a file, beside the compression."""

LEVELS = {"zstd": 1, "snappy": None}
"""The level of each compression; snappy has none."""


def write_parquet(table: pa.Table, path: Path, *, compression: Literal["zstd", "snappy"] = "zstd") -> None:
    """Write a table as one Parquet file; tables of results are `snappy`, all else is `zstd`."""
    pq.write_table(table, path, compression=compression, compression_level=LEVELS[compression], **SETTINGS)


def write_result(table: pa.Table, path: Path) -> None:
    """Write a table of results as `path.parquet` and `path.csv`, each whole or not at all."""
    with whole_file(path.with_name(f"{path.name}.parquet")) as draft:
        write_parquet(table, draft, compression="snappy")
    with whole_file(path.with_name(f"{path.name}.csv")) as draft:
        pa.csv.write_csv(table, draft)
