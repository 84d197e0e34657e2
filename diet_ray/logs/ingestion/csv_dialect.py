"""CSV as different systems write it: packed or not, with one of four delimiters, with quotes doubled; Spark's `\\"` is refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from functools import partial
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
_MARK = b"\xef\xbb\xbf"
_END = "\x1f"
"""The value of a last row that is added to each block: where it is missing, an unclosed quote has swallowed it."""
_ESCAPED = b'\\"'


def dialect_of(path: Path, columns: Collection[str] | None) -> tuple[list[str], str]:
    """The columns of a file, and its delimiter.

    That is the delimiter under which the header has the most of `columns`, or the most columns where None are known; of several, the first
    one. In a `.tsv`, the tab comes first.

    Raises:
        BadInputError: the header has more than `MOST_CSV_COLUMNS` columns.
        pa.ArrowException, OSError, UnicodeDecodeError: the file cannot be read.
    """
    text = _header(path)
    order = sorted(DELIMITERS, key=lambda delimiter: delimiter != "\t") if _is_tsv(path) else DELIMITERS

    def fitting(delimiter: str) -> int:
        names = set(_names(text, delimiter))
        return len(names if columns is None else names & set(columns))

    best = max(order, key=fitting)
    if text.count(best) >= MOST_CSV_COLUMNS:  # Arrow takes minutes and gigabytes for a million of them
        raise BadInputError(
            path, f"its header has more than {MOST_CSV_COLUMNS} columns", remedy="leave out those that are not needed"
        )
    return _names(text, best), best


def csv_tables(path: Path, delimiter: str, convert: pa_csv.ConvertOptions, block_bytes: int) -> Iterator[pa.Table]:
    """The rows of a file, in tables from blocks of about `block_bytes` bytes of text.

    Arrow's own reader of streams would do, but it counts on threads, which cannot wait for a check of the text in Python.

    Args:
        delimiter: the file's own.
        convert: what to read, and how: all columns as text. Where it names no columns, the first one is read.

    Raises:
        BadInputError: quotes within values are escaped by a backslash, or a quote is not closed.
        pa.ArrowException, OSError, UnicodeDecodeError: the file cannot be read.
    """
    sound, n_rows, names = _sound(delimiter), 0, _names(_header(path), delimiter)
    convert.include_columns = convert.include_columns or names[:1]  # for Arrow, an empty list means all
    end = delimiter.join([_END] * len(names)).encode() + b"\n"
    parse = pa_csv.ParseOptions(delimiter=delimiter)
    for block in _blocks(path, block_bytes):
        _refuse_escapes(path, block, sound)
        text = block + end
        read = pa_csv.ReadOptions(column_names=names, block_size=len(text), use_threads=False)
        try:
            table = pa_csv.read_csv(pa.BufferReader(text), read, parse, convert)
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(_ROW.sub(partial(_in_file, n_rows + 1), str(error))) from error
        if table.column(0)[-1].as_py() != _END:
            raise BadInputError(
                path,
                f"a quote that is not closed, or a line break within a value, below row {n_rows}",
                remedy="is a quote missing? write the values without line breaks",
            )
        n_rows += table.num_rows - 1
        yield table.slice(0, table.num_rows - 1)


_ROW = re.compile(r"(?<=Row #)\d+")


def _in_file(before: int, match: re.Match[str]) -> str:
    """A line's number in the file: Arrow counts those of the block."""
    return str(int(match[0]) + before)


def _blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    """The lines below the header, in blocks of whole lines."""
    with pa.input_stream(str(path), compression=packed_with(path)) as stream:
        header, text = b"", b""
        while data := stream.read(block_bytes):
            text += data
            end = text.rfind(b"\n" if b"\n" in data else b"\r") + 1
            if not end and len(text) > 2 * block_bytes:
                raise pa.ArrowInvalid(f"a line of more than {block_bytes} bytes")
            lines, text = text[:end], text[end:]
            if lines and not header:
                header, lines = _cut(lines)
            if lines:
                yield lines
        if text and header:
            yield text + b"\n"


def _header(path: Path) -> str:
    with pa.input_stream(str(path), compression=packed_with(path)) as stream:
        header, _ = _cut(stream.read(_HEADER_BYTES))
    if not header:
        raise pa.ArrowInvalid("Empty CSV file")
    return header.decode()


def _cut(text: bytes) -> tuple[bytes, bytes]:
    """The header and the rest."""
    text = text.removeprefix(_MARK).lstrip(b"\r\n")
    header = text.splitlines()[0] if text else b""
    return header, text[len(header) :]


def _names(header: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:  # a name of more than 128 KiB
        return []


def _is_tsv(path: Path) -> bool:
    return ".tsv" in [suffix.lower() for suffix in path.suffixes]


# --- escapes


def _sound(delimiter: str) -> re.Pattern[bytes]:
    """A line without line breaks in values whose quotes are doubled."""
    end = re.escape(delimiter).encode()
    value = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^"%b\r\n]*+)' % end
    return re.compile(rb"%b(?:%b%b)*+\r?" % (value, end, value))


def _refuse_escapes(path: Path, block: bytes, sound: re.Pattern[bytes]) -> None:
    """Refuse quotes that are escaped by a backslash: Arrow would take one for the end of a value.

    `"a\\"` may be a value that ends in a backslash, and `"5\\" pipe"` holds a quote by Spark's convention. No line with such a quote is
    valid where quotes are doubled: after the quote comes neither a delimiter nor the end of the line, or it opens an unquoted value that
    has a quote in it. So only lines that hold a backslash before a quote are checked, and sound ones pass.
    """
    at = block.find(_ESCAPED)
    while at >= 0:
        end = block.find(b"\n", at)
        end = len(block) if end < 0 else end
        line = block[block.rfind(b"\n", 0, at) + 1 : end]
        if not sound.fullmatch(line):
            text = line.decode("utf-8", "replace").strip()
            raise BadInputError(
                path,
                f"quotes escaped by a backslash, in the line {text if len(text) <= 100 else f'{text[:100]}...'!r}",
                remedy="""write it with quotes doubled and no line breaks in values; Spark: .option("escape", '"')""",
            )
        at = block.find(_ESCAPED, end)
