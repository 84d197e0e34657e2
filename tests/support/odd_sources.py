"""More bad input: what spreadsheets, databases, downloads and interrupted transfers make of the files that a user gives."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq

from tests.support.corpus import HEAD, INF, NAN, ROW, Column, Files, good_table, text

DAY = "2022-04-25"


def _times(*values: str) -> list[Column]:
    return [Column("t", [DAY, value, DAY], "no ISO 8601 time in row 1", unit="timestamp") for value in values]


def _labels(*values: str) -> list[Column]:
    return [Column("y", ["0", value, "1"], f"label {value!r}, which is not 0/1 in row 1") for value in values]


def _numbers(*values: str) -> list[Column]:
    return [Column("b", ["1", value, "3"], f"text {value!r}, where a number is needed in row 1") for value in values]


def _coded(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string()).dictionary_encode()


NOTHING = pa.nulls(3)

ODD_COLUMNS = [
    *_times(
        "2022-13-01", "2022-04-25 25:00", "2022-04-25 10:00:61", "2022-04-25 24:00:01", "2022/04-25", "Apr 25 2022"
    ),
    *_times(
        "25.04.2022",
        "10:00:00",
        "1650844800",
        "2022-W54-1",
        "2022-366",
        "2022-04-25T10:00:00Z+01:00",
        "\uff12022-04-25",
    ),
    *_times(
        "2022-04-25 10:00 Mars/Olympus", "2022-04-31", "2022-02-29", "22-04-25", "2022-04-25T10:00:00.5.5", "#VALUE!"
    ),
    Column("t", ["1", "1 000", "3"], "'1 000', where a number is needed"),
    Column("t", ["1", "1,000", "3"], "'1,000', where a number is needed"),
    Column("t", ["1", "\uff11\uff12", "3"], "where a number is needed"),
    Column("t", ["1", "NULL", "3"], "'NULL', where a number is needed"),
    Column("t", ["1", "t", "3"], "'t', where a number is needed"),
    Column("t", _coded("1", "soon", "3"), "'soon', where a number is needed"),
    Column("t", NOTHING, "no time in row 0", bad=(0, 1, 2)),
    Column("t", [[1], [2], [3]], "type list", bad=()),
    Column("t", [{"k": 1}] * 3, "type struct", bad=()),
    Column("t", pa.array([1, 2, 3], pa.time64("us")), "type time64", bad=()),
    Column("t", [Decimal("1"), Decimal("-5"), Decimal("3")], "outside 1970-2200"),
    Column("u", NOTHING, "no user in row 0", bad=(0, 1, 2)),
    Column("u", _coded("7", None, "9"), "no user in row 1"),
    Column("u", pa.array([7.0, 2050.0, 9.0], pa.float16()), "a float16 beyond 2048"),
    Column("u", [7.0, -INF, 9.0], "NaN or infinity"),
    Column("u", pa.array([1, 2, 3], pa.time64("us")), "type time64", bad=()),
    Column("u", pa.array([1, 2, 3], pa.duration("s")), "type duration", bad=()),
    Column("u", pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())), "type map", bad=()),
    Column("u", ["7", "é" * 2049, "9"], "more than 4096 bytes"),
    *_labels("yes", "1.5", "on", "2", "1,0", "\u0661", "0x1", "#N/A", "clicked", "NULL", "100%", "-1"),
    Column("y", NOTHING, "no label in row 0", bad=(0, 1, 2)),
    Column("y", [Decimal("0.0"), Decimal("0.5"), Decimal("1.0")], "label Decimal('0.5')"),
    Column("y", [0.0, INF, 1.0], "label inf"),
    Column("y", [0.0, 1e-300, 1.0], "label 1e-300"),
    Column("y", [0.0, 1.0000000000000002, 1.0], "label 1.0000000000000002"),
    Column("y", _coded("0", "2", "1"), "label '2'"),
    Column("y", pa.array([0, 1, 2], pa.timestamp("s")), "type timestamp", bad=()),
    Column("y", text(b"0", b"\xff", b"1"), "not UTF-8 in row 1"),
    Column("y", pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())), "type map", bad=()),
    Column("a", ["1", "-5.0", "3"], "negative id -5"),
    Column("a", ["1", "-5.0E1", "3"], "negative id -50"),
    Column("a", [Decimal("1"), Decimal("-2"), Decimal("3")], "negative id -2"),
    Column("a", [1.0, NAN, 3.0], "NaN or infinity where a category"),
    Column("a", pa.array([1.0, 2.0**25, 3.0], pa.float32()), "a float32 beyond 16777216"),
    Column("a", ["1", "9.007199254740993E15", "3"], "a float64 beyond"),
    Column("a", [b"1", b"\x01\x02\x03\x04", b"3"], "bytes that are no text in row 1"),
    Column("a", pa.array([b"\x00" * 15 + b"\x01"] * 3, pa.binary(16)), "bytes that are no text", bad=(0, 1, 2)),
    Column("a", pa.array([1, 2, 3], pa.duration("ms")), "type duration", bad=()),
    *_numbers("1,5", "$5", "5%", "1 000", "#N/A", "1e", ".", "+-1", "\u0661", "NULL", "1.2.3", "five", "1_000", "(5)"),
    Column("b", ["1", "-Infinity", "3"], "NaN or infinity in row 1"),
    Column("b", pa.array([1.0, NAN, 3.0], pa.float32()), "NaN or infinity in row 1"),
    Column("b", pa.array([1, 2, 3], pa.date32()), "type date32", bad=()),
    Column("b", pa.array([1, 2, 3], pa.duration("s")), "type duration", bad=()),
    Column("b", [{"k": 1.0}] * 3, "type struct", bad=()),
    Column("b", [b"1", b"\xff", b"3"], "bytes that are no text in row 1"),
    Column("c", [1, -1, 3], "negative id -1"),
    Column("c", [1.0, NAN, 3.0], "NaN or infinity where a category"),
    Column("c", [{"k": "x"}] * 3, "type struct", bad=()),
    Column("c", pa.array([[("k", "x")]] * 3, pa.map_(pa.string(), pa.string())), "type map", bad=()),
    Column("c", [[["x"]]] * 3, "list of single values", bad=()),
    Column("d", [["1"], ["2", "-4.0"], None], "negative id -4"),
    Column("d", [[1.0], [2.0, INF], None], "NaN or infinity"),
    Column("d", [[{"k": 1}]] * 3, "list of single values", bad=()),
    Column("d", pa.array([[1], [2, -3], None], pa.large_list(pa.int64())), "negative id -3"),
    Column("d", pa.array([[1, 2], [2, -3], [4, 5]], pa.list_(pa.int64(), 2)), "negative id -3"),
    Column("d", [[b"x"], [b"\xff"], [b"z"]], "bytes that are no text in row 1"),
    Column("d", pa.array([[1], [2], [3]], pa.list_(pa.duration("s"))), "type duration", bad=()),
    Column("d", [1, 2, 3], "set separator, or max_values: 1", bad=()),
    Column("d", [{"k": "x"}] * 3, "set separator, or max_values: 1", bad=()),
    Column("e", [["x"], ["y"], ["z"]], "text to split", bad=()),
    Column("e", ["x", "y,-3", "z"], "negative id -3"),
    Column("e", text(b"x", b"y,\xff", b"z"), "not UTF-8 in row 1"),
    Column("e", ["x", "('a', 'b')", "z"], "a list in brackets, in row 1"),
    Column("e", ["x", "{}", "z"], "a list in brackets, in row 1"),
]


def _as_is(data: bytes, name: str) -> Callable[[Path], list[Path]]:
    """A source of these bytes, whatever its name says."""

    def build(folder: Path) -> list[Path]:
        (folder / name).write_bytes(data)
        return [folder / name]

    return build


def _parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(good_table(), sink, row_group_size=10)
    return sink.getvalue()


def _changed(change: Callable[[bytes], bytes], name: str = "x.parquet") -> Callable[[Path], list[Path]]:
    """A source of the bytes of a sound Parquet file, changed."""
    return lambda folder: _as_is(change(_parquet_bytes()), name)(folder)


def _arrow(folder: Path) -> list[Path]:
    feather.write_feather(good_table(), str(folder / "x.parquet"))
    return [folder / "x.parquet"]


def _orc(change: Callable[[bytes], bytes]) -> Callable[[Path], list[Path]]:
    def build(folder: Path) -> list[Path]:
        orc.write_table(good_table(), str(folder / "x.orc"))
        (folder / "x.orc").write_bytes(change((folder / "x.orc").read_bytes()))
        return [folder / "x.orc"]

    return build


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("x.csv", HEAD + ROW)
    return sink.getvalue()


def _beside(name: str, content: bytes = b"") -> Callable[[Path], list[Path]]:
    """A folder with a sound file, and another one of this path, which makes it a table."""

    def build(folder: Path) -> list[Path]:
        pq.write_table(good_table(), folder / "x.parquet")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return [folder]

    return build


HTML = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

ODD_FILES = [
    Files("web page called Parquet", _as_is(HTML, "x.parquet"), "cannot be read", "x.parquet"),
    Files("web page called CSV", _as_is(HTML, "x.csv"), "column is missing", "x.csv", "t"),
    Files("pointer of Git LFS", _as_is(POINTER, "x.parquet"), "cannot be read", "x.parquet"),
    Files("pointer of Git LFS called CSV", _as_is(POINTER, "x.csv"), "column is missing", "x.csv", "t"),
    Files("encrypted Parquet", _changed(lambda data: data[:-4] + b"PARE"), "cannot be read", "x.parquet"),
    Files("line ends translated", _changed(lambda data: data.replace(b"\n", b"\r\n")), "cannot be read", "x.parquet"),
    Files("7 bits per byte", _changed(lambda data: bytes(byte & 127 for byte in data)), "cannot be read", "x.parquet"),
    Files("Parquet in gzip", _changed(gzip.compress), "cannot be read", "x.parquet"),
    Files("Parquet called CSV", _changed(lambda data: data, "x.csv"), "cannot be read", "x.csv"),
    Files("Parquet called ORC", _changed(lambda data: data, "x.orc"), "cannot be read", "x.orc"),
    Files("bytes after the footer", _changed(lambda data: data + b"\n"), "cannot be read", "x.parquet"),
    Files("footer of no length", _changed(lambda data: data[:-8] + bytes(4) + b"PAR1"), "cannot be read", "x.parquet"),
    Files("footer alone", _changed(lambda data: b"PAR1" + data[-8:]), "cannot be read", "x.parquet"),
    Files("two files in one", _changed(lambda data: data * 2), "two Parquet files joined into one", "x.parquet"),
    Files("download of zeros", _changed(lambda data: bytes(len(data))), "cannot be read", "x.parquet"),
    Files("pages of zeros", _changed(lambda data: data[:4] + bytes(800) + data[804:]), "cannot be read", "x.parquet"),
    Files("Arrow called Parquet", _arrow, "cannot be read", "x.parquet"),
    Files("ORC cut off", _orc(lambda data: data[:-20]), "cannot be read", "x.orc"),
    Files("ORC without its middle", _orc(lambda data: data[:3] + data[-400:]), "cannot be read", "x.orc"),
    Files("text called ORC", _as_is(HEAD + ROW, "x.orc"), "cannot be read", "x.orc"),
    Files("CSV in a ZIP", _as_is(_zip(), "x.csv"), "cannot be read", "x.csv"),
    Files("CSV of blank lines", _as_is(b"\n\r\n\n", "x.csv"), "cannot be read", "x.csv"),
    Files("CSV without a header", _as_is(ROW * 3, "x.csv"), "the file has 0, 1, 1.5", "x.csv", "t"),
    Files("CSV with capitals", _as_is(HEAD.upper() + ROW, "x.csv"), "column is missing", "x.csv", "t"),
    Files("CSV with spaces", _as_is(HEAD.replace(b",", b", ") + ROW, "x.csv"), "column is missing", "x.csv", "u"),
    Files("CSV with a title above", _as_is(b"Export of May\n" + HEAD + ROW, "x.csv"), "is missing", "x.csv", "t"),
    Files("CSV with one cell more", _as_is(HEAD + ROW + ROW[:-1] + b",1\n", "x.csv"), "cannot be read", "x.csv"),
    Files("CSV with another delimiter", _as_is(HEAD + ROW.replace(b",", b";"), "x.csv"), "cannot be read", "x.csv"),
    Files("CSV of columns by position", _as_is(b"0,1,2,3,4,5,6,7\n" + ROW, "x.csv"), "is missing", "x.csv", "t"),
    Files("CSV with a backslash", _as_is(HEAD + b'1,2,0,3,1.5,"5\\" x",y,z\n', "x.csv"), "by a backslash", "x.csv"),
    Files("bz2 that is none", _as_is(HEAD + ROW, "x.csv.bz2"), "cannot be read", "x.csv.bz2"),
    Files("zstd that is none", _as_is(HEAD + ROW, "x.csv.zst"), "cannot be read", "x.csv.zst"),
    Files(
        "zstd cut off",
        _as_is(pa.compress(HEAD + ROW * 999, "zstd", asbytes=True)[:-9], "x.csv.zst"),
        "cannot be",
        "x.csv.zst",
    ),
    Files("Hudi table", _beside(".hoodie/hoodie.properties"), "is a Hudi table, which is not read", ""),
    Files("Lance table", _beside("_versions/1.manifest"), "is a Lance table, which is not read", ""),
    Files("Hudi table inside", _beside("part/.hoodie/hoodie.properties"), "is a Hudi table within", "part"),
    Files("Delta table of another version", _beside("_delta_log/00000000000000000000.json", b"{}"), "Delta", ""),
    Files("Delta log that is no JSON", _beside("_delta_log/00000000000000000000.json", b"<html>"), "Delta", ""),
    Files(
        "Iceberg metadata that is none",
        _beside("metadata/v1.metadata.json", b"{}"),
        "Iceberg table that cannot be read",
        "metadata/v1.metadata.json",
    ),
]
