"""The temporary batches between two passes: canonical rows of one piece and one shard each, in Arrow files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa


def read_batches(batches: list[tuple[str, int]], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Read temporary batches, with one file open at a time; some of their columns, or all.

    Opening a file takes a time proportional to all of its columns and batches, however few of them are read.
    """
    name, reader = "", None
    for file, position in batches:
        if file != name or reader is None:
            source = pa.memory_map(file)
            fields = None
            if columns is not None:
                schema = pa.ipc.open_file(source).schema
                fields = [schema.get_field_index(column) for column in columns]
            name, reader = file, pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        yield reader.get_batch(position)
