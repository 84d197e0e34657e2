"""From published text files to Parquet, a batch at a time: functions that the readers of large logs share.

A line with too many or too few values, or with a value of the wrong type, ends the reading with an error: in these logs it means a broken
download, and a guessed value would be learned from. Blank lines are skipped; an empty value is missing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from diet_ray.errors import BadInputError, ConfigError, first_line

ROW_GROUP = 131_072
"""Most rows per row group of a prepared file: the unit of parallel reading."""

_BLOCK_BYTES = 16 << 20
_REMEDY = "truncated or damaged? fetch it again"


def locate(source: Path | None, names: Sequence[str], log: str) -> Path:
    """The first of `names` that lies in the folder `source`; `source` itself where it is a file.

    Raises:
        ConfigError: no source given.
        BadInputError: the folder has none of them, or there is no such folder.
    """
    if source is None:
        raise ConfigError(
            f"{log}: give the folder of the published files with --from (docs/logs.md says where they are)"
        )
    if source.is_file():
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise BadInputError(
        source, f"holds no {' or '.join(names)}", remedy="give the folder of the published files, unpacked"
    )


def read_rows(
    path: Path,
    types: dict[str, pa.DataType],
    *,
    names: list[str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
    missing: Sequence[str] = (),
    required: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """The columns `types` of a text file, in that order, in batches of about 16 MiB of text; `.gz` is unpacked on the way.

    Args:
        path: the file.
        types: the columns wanted and their Arrow types.
        names: the file's columns where it has no header; a header's names lose the blanks around them.
        delimiter: between values. Where it is a comma, values may be quoted; where it has several characters, the file is read at once.
        encoding: of the text.
        missing: values that mean a missing value, besides the empty one.
        required: columns that must have a value on every line.

    Raises:
        BadInputError: the file is missing, damaged, or lacks a column, or a line is malformed; the message names the line.
    """
    try:
        columns = names or _header(path, delimiter, encoding)
        for column in types:
            if column not in columns:
                raise BadInputError(
                    path, "column is missing", column=column, remedy=f"the file has {', '.join(columns)}"
                )
        source: str | io.BytesIO = str(path)
        if len(delimiter) > 1:
            source, delimiter = io.BytesIO(path.read_bytes().replace(delimiter.encode(), b"\x1f")), "\x1f"
        # One thread: with several, pyarrow's errors do not name the line.
        read = pa_csv.ReadOptions(
            use_threads=False,
            block_size=_BLOCK_BYTES,
            column_names=columns,
            skip_rows=int(names is None),
            encoding=encoding,
        )
        parse = pa_csv.ParseOptions(delimiter=delimiter, quote_char='"' if delimiter == "," else False)
        convert = pa_csv.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=["", *missing],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        )
        with pa_csv.open_csv(source, read, parse, convert) as batches:
            line = 2 if names is None else 1
            for batch in batches:
                for column in required:
                    if batch[column].null_count:
                        empty = line + pc.index(batch[column].is_null(), True).as_py()
                        raise BadInputError(path, f"line {empty} has no value", column=column, remedy=_REMEDY)
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
                line += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, error) from error


def read_table(path: Path, types: dict[str, pa.DataType], **layout: object) -> pa.Table:
    """All of a small file: `read_rows` with the same arguments, as one table."""
    schema = pa.schema(list(types.items()))
    return pa.concat_tables([schema.empty_table(), *read_rows(path, types, **layout)]).combine_chunks()  # type: ignore[arg-type]


def write_rows(path: Path, tables: Iterator[pa.Table]) -> Path:
    """Write the tables one after another to the Parquet file `path`, and return it.

    Raises:
        BadInputError: there is no row at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=ROW_GROUP)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise BadInputError(path.stem, "no row is left of the published files", remedy="are they complete?")
    return path


def count_lines(path: Path) -> int:
    """Lines of a text file, in one pass of bounded memory.

    Raises:
        BadInputError: the file cannot be read.
    """
    lines, last = 0, b"\n"
    try:
        with pa.input_stream(str(path)) as stream:
            while block := stream.read(_BLOCK_BYTES):
                lines += block.count(b"\n")
                last = block[-1:]
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    return lines + (last != b"\n")


def damaged(path: Path, error: Exception) -> BadInputError:
    """The error for a file that could not be read."""
    reason = first_line(error)[:200]
    reason = re.sub(r"\bRow #(\d+)", r"line \1", reason)
    return BadInputError(path, f"cannot be read: {reason}", remedy=_REMEDY)


def _header(path: Path, delimiter: str, encoding: str) -> list[str]:
    with pa.input_stream(str(path)) as stream:
        first = io.BytesIO(stream.read(1 << 16)).readline()
    text = first.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    return [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
