"""Arrow IPC files, read within bounds: the unpacked sizes that the buffers claim are added up before any buffer is unpacked.

Each buffer of a compressed record batch begins with the length that Arrow allocates for it. The batch's metadata, an uncompressed
flatbuffer, gives the positions of the buffers (Arrow's format, `Message.fbs`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from diet_ray.storage.parquet import BombError

MOST_BYTES = 1 << 30
"""Bytes that a file of any size may unpack to."""
MOST_PER_BYTE = 1000
"""Beyond `MOST_BYTES`, a file may unpack to this multiple of its size: deltas that are all zero compress well."""

_MAGIC = 8
_Unpacked = tuple[int, int]


def read_table(path: Path, check: Callable[[pa.Schema], object] = lambda schema: None) -> pa.Table:
    """Read a file as one table. `check` is called with the schema first, and may raise.

    Raises:
        pa.ArrowException, OSError: the file cannot be read; or `BombError`, where it would unpack to too much.
    """
    data = pa.py_buffer(path.read_bytes())
    reader = pa.ipc.open_file(data)
    check(reader.schema)
    # A file is a stream with a footer, and the messages of a stream can be read one by one.
    first, *messages = pa.ipc.MessageReader.open_stream(data.slice(_MAGIC))
    schema = pa.ipc.read_schema(first)
    kinds = {message.type for message in messages}
    if not schema.equals(reader.schema, check_metadata=True) or kinds - {"record batch"}:
        raise pa.ArrowInvalid("its content differs from its footer")
    if len(messages) != reader.num_record_batches:
        raise pa.ArrowInvalid(f"has {len(messages)} batches, its footer names {reader.num_record_batches}")
    n_rows, n_bytes = (sum(parts) for parts in zip((0, 0), *map(_unpacked, messages), strict=True))
    if n_rows > data.size:
        raise BombError(f"claims {n_rows} rows in {data.size} bytes")
    if n_bytes > max(MOST_BYTES, MOST_PER_BYTE * data.size):
        raise BombError(f"its {data.size} bytes unpack to {n_bytes}")
    return pa.Table.from_batches([pa.ipc.read_record_batch(message, schema) for message in messages], schema)


def _unpacked(message: pa.Message) -> _Unpacked:
    """Rows of a record batch, and the bytes that its buffers claim to unpack to."""
    try:
        meta, body = memoryview(message.metadata), memoryview(message.body)
        batch = _at(meta, _field(meta, _at(meta, 0), 2))
        rows, buffers, compression = (_field(meta, batch, number) for number in (0, 2, 3))
        n_rows = struct.unpack_from("<q", meta, rows)[0] if rows else 0
        if not compression:
            return n_rows, len(body)
        vector, total = _at(meta, buffers), 0
        for number in range(struct.unpack_from("<I", meta, vector)[0]):
            offset, length = struct.unpack_from("<qq", meta, vector + 4 + 16 * number)
            if length:
                claimed = struct.unpack_from("<q", body, offset)[0]
                total += length if claimed == -1 else claimed
                if claimed < -1:
                    raise pa.ArrowInvalid("a buffer's length is below 0")
        return n_rows, total
    except struct.error as error:
        raise pa.ArrowInvalid(f"a batch's metadata is damaged: {error}") from error


def _at(data: memoryview, place: int) -> int:
    """The position to which the offset at `place` points."""
    return place + int(struct.unpack_from("<I", data, place)[0])


def _field(data: memoryview, table: int, number: int) -> int:
    """The position of a field of a flatbuffer's table; 0 where the table lacks the field."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0]
    return table + int(offset) if offset else 0
