"""The temporary batches between two passes: canonical rows of one piece and one shard each, in Arrow files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa


def read_batches(batches: list[tuple[str, int]], column: str | None = None) -> Iterator[pa.RecordBatch]:
    """Read temporary batches, with one file open at a time; one column of them, or all."""
    name, reader = "", None
    for file, position in batches:
        if file != name or reader is None:
            source = pa.memory_map(file)
            fields = None if column is None else [pa.ipc.open_file(source).schema.get_field_index(column)]
            name, reader = file, pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        yield reader.get_batch(position)
