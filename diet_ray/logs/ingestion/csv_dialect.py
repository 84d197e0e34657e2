"""CSV as different systems write it: packed or not, with one of four delimiters, with quotes doubled; Spark's `\\"` is refused."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.kinds import packed_with

DELIMITERS = ",;\t|"
"""Delimiters that are recognised. The comma comes first: where several fit, the first one counts."""

MOST_CSV_COLUMNS = 16_384
"""Most columns that a CSV file may have, whether they are read or not."""

_HEADER_BYTES = 1 << 20


def delimiter_of(path: Path, columns: Collection[str]) -> str:
    """The delimiter under which a file's header has the most of `columns`; of several, the first one. In a `.tsv`, the tab comes first.

    Raises:
        BadInputError: the header has more than `MOST_CSV_COLUMNS` columns.
        pa.ArrowException, OSError, UnicodeDecodeError: the file cannot be read.
    """
    with pa.input_stream(str(path), compression=packed_with(path)) as stream:
        start = stream.read(_HEADER_BYTES)
    header = start.lstrip(b"\r\n").splitlines()[0].decode("utf-8-sig", "replace") if start.strip(b"\r\n") else ""
    order = sorted(DELIMITERS, key=lambda delimiter: delimiter != "\t") if _is_tsv(path) else DELIMITERS
    best = max(order, key=lambda delimiter: len(set(columns) & set(_names(header, delimiter))))
    if header.count(best) >= MOST_CSV_COLUMNS:  # Arrow takes minutes and gigabytes for a million of them
        raise BadInputError(
            path, f"its header has more than {MOST_CSV_COLUMNS} columns", remedy="leave out those that are not needed"
        )
    return best


def open_csv(
    path: Path,
    delimiter: str,
    *,
    block_bytes: int = 1 << 20,
    convert: pa_csv.ConvertOptions | None = None,
) -> pa_csv.CSVStreamingReader:
    """Open a CSV file to read it in blocks of `block_bytes` bytes of text.

    Raises:
        BadInputError: here, or while it is read: quotes within values are escaped by a backslash.
        pa.ArrowException, OSError, UnicodeDecodeError: the file cannot be read.
    """
    stream = pa.input_stream(str(path), compression=packed_with(path))
    return pa_csv.open_csv(
        _Watched(path, stream, delimiter),
        pa_csv.ReadOptions(block_size=block_bytes),
        pa_csv.ParseOptions(delimiter=delimiter),
        convert,
    )


def _names(header: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:  # a name of more than 128 KiB
        return []


def _is_tsv(path: Path) -> bool:
    return ".tsv" in [suffix.lower() for suffix in path.suffixes]


class _Watched(io.RawIOBase):
    """The text of a CSV file, on its way to Arrow, which cannot tell a quote escaped by a backslash from the end of a value.

    `"a\\"` may be a value that ends in a backslash, and `"5\\" pipe"` holds a quote by Spark's convention. No line with such a quote is
    valid where quotes are doubled: after the quote comes neither a delimiter nor the end of the line, or it opens an unquoted value that
    has a quote in it. So only lines that hold a backslash before a quote are checked, and sound ones
    pass.
    """

    def __init__(self, path: Path, stream: pa.NativeFile, delimiter: str) -> None:
        super().__init__()
        self._path, self._stream, self._rest = path, stream, b""
        value = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^"%b\r\n]*+)' % re.escape(delimiter).encode()
        self._sound = re.compile(rb"%b(?:%b%b)*+\r?" % (value, re.escape(delimiter).encode(), value))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size if size >= 0 else None)
        lines = self._rest + data
        end = lines.rfind(b"\n") + 1 if data else len(lines)
        # A line that takes more than a block is refused by Arrow; the check need not hold it.
        self._rest = lines[end:] if len(lines) - end < 2 * max(len(data), 1) else b""
        self._check(lines[:end])
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _check(self, lines: bytes) -> None:
        at = lines.find(_ESCAPED)
        while at >= 0:
            end = lines.find(b"\n", at)
            end = len(lines) if end < 0 else end
            line = lines[lines.rfind(b"\n", 0, at) + 1 : end]
            if not self._sound.fullmatch(line):
                text = line.decode("utf-8", "replace").strip()
                raise BadInputError(
                    self._path,
                    f"quotes escaped by a backslash, in the line {text if len(text) <= 100 else f'{text[:100]}...'!r}",
                    remedy="""write it with quotes doubled and no line breaks in values; Spark: .option("escape", '"')""",
                )
            at = lines.find(_ESCAPED, end)


_ESCAPED = b'\\"'
