"""Bad input as data: what can be wrong with the files that a user gives, and what must come of each. Nothing here is read from disk."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.candidates import CandidateFile
from diet_ray.config import StreamConfig
from diet_ray.memory.run_folder import read_units, write_units
from diet_ray.memory.units import to_arrow
from diet_ray.schema import Schema
from diet_ray.settings import YAML_BYTES, Settings
from diet_ray.storage.tensors import load_tensors, save_tensors

# --- columns and their values


def log_schema(unit: str = "ms") -> Schema:
    """A log with a field of every kind."""
    fields: list[dict[str, Any]] = [
        {"name": "a", "kind": "hashed", "buckets": 100},
        {"name": "b", "kind": "numeric", "buckets": 4},
        {"name": "c", "kind": "vocabulary"},
        {"name": "d", "kind": "vocabulary", "max_values": 2},
        {"name": "e", "kind": "vocabulary", "max_values": 2, "separator": ","},
    ]
    time = {"column": "t", "unit": unit, "timezone": "Asia/Shanghai"}
    return Schema.model_validate({"name": "s", "time": time, "user": "u", "tasks": ["y"], "fields": fields})


GOOD: dict[str, Any] = {
    "t": [1, 2, 3],
    "u": [7, 8, 9],
    "y": [0, 1, 0],
    "a": [1, 2, 3],
    "b": [1.5, None, 2.5],
    "c": ["x", None, "z"],
    "d": [["x", "y"], None, []],
    "e": ["x,y", None, ""],
}
"""Three rows of `log_schema()` without a fault."""


def text(*values: bytes) -> pa.Array:
    """Bytes that are called text, whatever they are: Parquet writers do not look."""
    return pa.array(values).view(pa.string())


@dataclass(frozen=True)
class Column:
    """A column of three values of which some are at fault, or whose type is."""

    name: str
    values: Any
    words: str
    """What the message must say."""
    bad: tuple[int, ...] = (1,)
    """Rows at fault; none where the whole column is."""
    unit: str = "ms"

    def table(self) -> pa.Table:
        times = {} if self.unit == "ms" else {"t": pa.array(["2022-04-25", "2022-04-26", "2022-04-27"])}
        return pa.table({**GOOD, **times, self.name: self.values})


FAR = pa.array([10**12, 2**62, 10**12])
NAN, INF = float("nan"), float("inf")

COLUMNS = [
    Column("t", [1, None, 3], "no time in row 1"),
    Column("t", [1, -5, 3], "outside 1970-2200 in row 1"),
    Column("t", [1, 2, 10**18], "time.unit 'ms'", bad=(2,)),
    Column("t", pa.array([1, 2**64 - 1, 3], pa.uint64()), "outside 1970-2200"),
    Column("t", [1.0, 2.0, 1e300], "outside 1970-2200 in row 2", bad=(2,)),
    Column("t", [1.0, NAN, 3.0], "NaN"),
    Column("t", [1.0, -INF, 3.0], "NaN or infinity"),
    Column("t", ["1", "soon", "3"], "'soon', where a number is needed"),
    Column("t", ["1", "9" * 40, "3"], "outside 1970-2200"),
    Column("t", ["1.5", "1e999", "3"], "outside 1970-2200"),
    Column("t", ["1", "0x10", "3"], "'0x10'"),
    Column("t", pa.array([1.7e12, 1.7e12, 3], pa.float32()), "its steps are 131072 ms", bad=()),
    Column("t", pa.array([1, 60_000, 3], pa.float16()), "too coarse for a time", bad=()),
    Column("t", ["1", "1_000", "3"], "'1_000'"),
    Column("t", text(b"1", b"\xff", b"3"), "not UTF-8 in row 1"),
    Column("t", ["2022-04-25", "yesterday", "2022-04-26"], "no ISO 8601 time in row 1", unit="timestamp"),
    Column("t", ["2022-04-25", "now", "2022-04-26"], "'now', which is no ISO 8601 time in row 1", unit="timestamp"),
    Column("t", ["2022-04-25", "2022-04-25 10:00 PM", "2022-04-26"], "no ISO 8601 time in row 1", unit="timestamp"),
    Column("t", ["2022-04-25", "2022-04-25 10:00:00 EST", "2022-04-26"], "no ISO 8601 time", unit="timestamp"),
    Column("t", ["2022-04-25", "25/04/2022", "2022-04-26"], "no ISO 8601 time in row 1", unit="timestamp"),
    Column("t", ["2022-04-25", "2022-02-30", "2022-04-26"], "no ISO 8601 time", unit="timestamp"),
    Column("t", ["2022-04-25", "2022-04-25T00:00:00+99:99", "2022-04-26"], "no ISO 8601 time", unit="timestamp"),
    Column("t", ["0001-01-01", "2022-04-25", "9999-12-31"], "outside 1970-2200", bad=(0, 2), unit="timestamp"),
    Column("t", FAR.view(pa.timestamp("ms")), "outside 1970-2200", unit="timestamp"),
    Column("t", FAR.view(pa.timestamp("us", "UTC")), "outside 1970-2200", unit="timestamp"),
    Column("t", pa.array([1, 2**31 - 1, 3], pa.int32()).view(pa.date32()), "outside 1970-2200", unit="timestamp"),
    Column("t", pa.array([1, 2, 3], pa.timestamp("ms")), "set time.unit to timestamp", bad=()),
    Column("t", [1, 2, 3], "set time.unit to s, ms", bad=(), unit="timestamp"),
    Column("t", [True, False, True], "type bool", bad=()),
    Column("t", pa.array([1, 2, 3], pa.duration("ms")), "type duration", bad=()),
    Column("u", [7, None, 9], "no user in row 1"),
    Column("u", [7.0, NAN, 9.0], "NaN"),
    Column("u", text(b"7", b"\xc3\x28", b"9"), "not UTF-8 in row 1"),
    Column("u", ["7", "8" * 5000, "9"], "more than 4096 bytes"),
    Column("u", [[7], [8], [9]], "type list", bad=()),
    Column("u", [b"7", b"\x00\x01", b"9"], "bytes that are no text in row 1"),
    Column("u", [b"7", b"\xff", b"9"], "bytes that are no text in row 1"),
    Column("u", ["7", "", "9"], "no user in row 1"),
    Column("u", [7.0, 2.0**53, 9.0], "9007199254740992.0, a float64 beyond 9007199254740992"),
    Column("u", pa.array([7, 2**24, 9], pa.float32()), "a float32 beyond 16777216"),
    Column("u", ["7", "1.2345678901234568E16", "9"], "'1.2345678901234568E16', a float64 beyond"),
    Column("u", [{"k": 7}] * 3, "a column of its own", bad=()),
    Column("y", ["0", "", "1"], "no label in row 1"),
    Column("y", [0, 1, 2], "label 2", bad=(2,)),
    Column("y", pa.array([0, 1, 0], pa.duration("s")), "type duration", bad=()),
    Column("y", [0, None, 1], "no label in row 1"),
    Column("y", [0, 2, 3], "label 2, which is not 0/1 in row 1 (from 0), and 1 more", bad=(1, 2)),
    Column("y", [0, -1, 1], "label -1"),
    Column("y", pa.array([0, 2**64 - 1, 1], pa.uint64()), f"label {2**64 - 1}"),
    Column("y", [0.0, 0.5, 1.0], "label 0.5"),
    Column("y", [0.0, NAN, 1.0], "label nan"),
    Column("y", ["0", "maybe", "1"], "label 'maybe'"),
    Column("y", ["0", "x" * 10**6, "1"], "label 'xxx"),
    Column("y", [[0], [1], [0]], "type list", bad=()),
    Column("y", [{"k": 1}] * 3, "type struct", bad=()),
    Column("a", [1, -2, 3], "negative id -2 in row 1"),
    Column("a", [1.0, -2.0, 3.0], "negative id -2"),
    Column("a", ["1", "-" + "9" * 50, "3"], "negative id -9999"),
    Column("a", [1.0, INF, 3.0], "NaN or infinity where a category"),
    Column("a", text(b"1", b"\xed\xa0\x80", b"3"), "not UTF-8 in row 1"),
    Column("a", text(b"1", b"\xff", b"3").dictionary_encode(), "not UTF-8 in row 1"),
    Column("a", [{"k": 1}] * 3, "type struct", bad=()),
    Column("a", pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())), "type map", bad=()),
    Column("b", [1.0, NAN, 3.0], "NaN or infinity in row 1"),
    Column("b", [1.0, 2.0, -INF], "NaN or infinity in row 2", bad=(2,)),
    Column("b", ["1", "cheap", "3"], "'cheap', where a number is needed"),
    Column("b", ["1", "NaN", "3"], "NaN or infinity in row 1"),
    Column("b", ["1", "1e999", "3"], "NaN or infinity in row 1"),
    Column("b", ["1", "0x10", "3"], "where a number is needed"),
    Column("b", [[1.0]] * 3, "type list", bad=()),
    Column("b", pa.array([1, 2, 3], pa.timestamp("ms")), "type timestamp", bad=()),
    Column("c", ["x", "y" * 4097, "z"], "is a quote missing"),
    Column("c", text(b"x", b"\xf0\x28\x8c\x28", b"z"), "not UTF-8 in row 1"),
    Column("c", pa.array([1, 2, 3], pa.time32("ms")), "type time32", bad=()),
    Column("d", [["1"], ["2", "-4"], None], "negative id -4 in row 1"),
    Column("d", [["1"], None, ["2", "z" * 5000]], "more than 4096 bytes", bad=(2,)),
    Column("d", [[1.0], [2.0, NAN], None], "NaN or infinity"),
    Column("d", pa.ListArray.from_arrays([0, 1, 3, 3], text(b"x", b"y", b"\xff")), "not UTF-8 in row 1"),
    Column("d", [[["x"]]] * 3, "list of single values", bad=()),
    Column("d", ["x", "y", "z"], "set separator", bad=()),
    Column("e", ["x", "x," + "y" * 5000, "z"], "more than 4096 bytes"),
    Column("e", [1, 2, 3], "text to split", bad=()),
    Column("e", ["x,y", "['new', 'sale']", "z"], "a list in brackets, in row 1"),
    Column("e", ["x,y", "[new, sale]", "{a,b}"], "a list in brackets, in row 1", bad=(1, 2)),
    Column("d", ["x", '["new", "sale"]', "z"], "the values alone with a separator between them", bad=()),
]


# --- whole files


@dataclass(frozen=True)
class Files:
    """Source files that cannot be ingested; `build` writes them into a folder and returns what to ingest."""

    name: str
    build: Callable[[Path], list[Path]]
    words: str
    at: str
    """The file that the message must name, below the folder."""
    column: str | None = None


def good_table(n: int = 40) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "t": pa.array(rng.integers(0, 10**6, n)),
            "u": pa.array(rng.integers(0, 9, n)),
            "y": pa.array(rng.integers(0, 2, n)),
            "a": pa.array(rng.integers(0, 99, n)),
            "b": pa.array(rng.random(n)),
            "c": pa.array([f"v{value}" for value in rng.integers(0, 5, n)]),
            "d": pa.array([["x"] * int(value) for value in rng.integers(0, 3, n)], pa.list_(pa.string())),
            "e": pa.array(["x,y"] * n),
        }
    )


def _parquet(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], list[Path]]:
    def build(folder: Path) -> list[Path]:
        pq.write_table(change(good_table()), folder / "x.parquet", row_group_size=10)
        return [folder]

    return build


def _bytes(change: Callable[[bytes], bytes], name: str = "x.parquet") -> Callable[[Path], list[Path]]:
    def build(folder: Path) -> list[Path]:
        pq.write_table(good_table(), folder / "x.parquet", row_group_size=10)
        data = (folder / "x.parquet").read_bytes()
        (folder / "x.parquet").unlink()
        (folder / name).write_bytes(change(data))
        return [folder / name]

    return build


def _csv(data: bytes, name: str = "x.csv") -> Callable[[Path], list[Path]]:
    return _bytes(lambda _: data, name)


def _links(make: Callable[[Path], None]) -> Callable[[Path], list[Path]]:
    def build(folder: Path) -> list[Path]:
        make(folder / "x.parquet")
        return [folder]

    return build


def _copies(folder: Path) -> list[Path]:
    for name in ("w.parquet", "x.parquet"):
        pq.write_table(good_table(), folder / name)
    return [folder]


def _garble_group(data: bytes) -> bytes:
    """Overwrite the beginning of the third row group, which begins after half of the pages."""
    middle = len(data) // 3
    return data[:middle] + bytes(200) + data[middle + 200 :]


HEAD = b"t,u,y,a,b,c,d,e\n"
ROW = b"1,2,0,3,1.5,x,y,z\n"

FILES = [
    Files("no such file", lambda folder: [folder / "x.parquet"], "no such file or folder", "x.parquet"),
    Files("name with a zero byte", lambda folder: [folder / "x\0.parquet"], "no such file or folder", "x\0.parquet"),
    Files("empty folder", lambda folder: [folder], "without any Parquet, CSV, ORC or Avro", ""),
    Files("another kind", _csv(b"{}", "x.json"), "of a kind that neither its name", "x.json"),
    Files("link to nowhere", _links(lambda path: path.symlink_to("gone")), "leads nowhere", "x.parquet"),
    Files("link to itself", _links(lambda path: path.symlink_to(path)), "leads nowhere", "x.parquet"),
    Files("pipe", _links(lambda path: os.mkfifo(path)), "no file at all", "x.parquet"),
    Files("folder called a file", _links(lambda path: path.mkdir()), "without any Parquet", ""),
    Files("two copies", _copies, "has the same bytes as", "x.parquet"),
    Files("given twice", lambda folder: _copies(folder) + [folder / "w.parquet"], "is given twice", "w.parquet"),  # noqa: RUF005
    Files("no bytes", _bytes(lambda data: b""), "cannot be read", "x.parquet"),
    Files("text called Parquet", _bytes(lambda data: HEAD + ROW), "cannot be read", "x.parquet"),
    Files("cut in the middle", _bytes(lambda data: data[: len(data) // 2]), "cannot be read", "x.parquet"),
    Files("cut by one byte", _bytes(lambda data: data[:-1]), "cannot be read", "x.parquet"),
    Files("without its beginning", _bytes(lambda data: data[100:]), "cannot be read", "x.parquet"),
    Files(
        "footer longer than the file",
        _bytes(lambda data: data[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1"),
        "cannot be read",
        "x.parquet",
    ),
    Files("footer of zeros", _bytes(lambda data: data[:-200] + bytes(192) + data[-8:]), "cannot be read", "x.parquet"),
    Files("garbled pages", _bytes(_garble_group), "row group", "x.parquet"),
    Files("pages gone, footer whole", _bytes(lambda data: data[:4] + data[-2500:]), "cannot be read", "x.parquet"),
    Files("column missing", _parquet(lambda table: table.drop_columns(["b"])), "column is missing", "x.parquet", "b"),
    Files(
        "column renamed",
        _parquet(lambda table: table.rename_columns(["T", *table.column_names[1:]])),
        "column is missing (the file has T, a, b",
        "x.parquet",
        "t",
    ),
    Files(
        "column twice", _parquet(lambda table: table.append_column("y", table["y"])), "is there twice", "x.parquet", "y"
    ),
    Files("no columns", _parquet(lambda table: table.select([])), "column is missing", "x.parquet", "t"),
    Files("no rows", _parquet(lambda table: table.slice(0, 0)), "holds no rows at all", ""),
    Files("CSV without bytes", _csv(b""), "cannot be read", "x.csv"),
    Files("CSV with the header alone", _csv(HEAD), "holds no rows at all", "x.csv"),
    Files("CSV that is ragged", _csv(HEAD + ROW + b"1,2\n"), "cannot be read", "x.csv"),
    Files("CSV that is Latin-1", _csv(HEAD + ROW.replace(b"x", b"\xe9")), "cannot be read", "x.csv"),
    Files("CSV in UTF-16", _csv((HEAD + ROW).decode().encode("utf-16")), "cannot be read", "x.csv"),
    Files("CSV without a quote's end", _csv(HEAD + ROW.replace(b"x", b'"x') * 2), "a line break", "x.csv", "c"),
    Files("CSV with a column twice", _csv(HEAD.replace(b"a", b"b") + ROW), "is there twice", "x.csv", "b"),
    Files("gzip that is none", _csv(HEAD + ROW, "x.csv.gz"), "cannot be read", "x.csv.gz"),
    Files(
        "gzip cut off", _csv(gzip.compress(HEAD + ROW * 9999, mtime=0)[:-60], "x.csv.gz"), "cannot be read", "x.csv.gz"
    ),
]


# --- YAML files


@dataclass(frozen=True)
class Yaml:
    """A YAML file that must be refused with a message that names the key."""

    kind: type[Settings]
    text: str | bytes
    words: tuple[str, ...]


SCHEMA_YAML = """name: s
time: {column: t}
user: u
tasks: [y]
fields: [{name: a, kind: vocabulary}, {name: b, kind: vocabulary}]
"""
STREAM_YAML = "log: logs/mine\n"
POOL_YAML = "candidates: [{name: a, arch: dnn}]\n"
BOMB = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + SCHEMA_YAML
)


def _schema(old: str, new: str) -> str:
    assert old in SCHEMA_YAML
    return SCHEMA_YAML.replace(old, new)


YAMLS = [
    Yaml(Schema, b"name: \xff\xfe", ("must be a YAML file in UTF-8",)),
    Yaml(Schema, "", ("must hold a mapping", "NoneType")),
    Yaml(Schema, "- a\n- b\n", ("must hold a mapping", "list")),
    Yaml(Schema, "just words", ("must hold a mapping", "str")),
    Yaml(Schema, "name: [", ("not valid YAML",)),
    Yaml(Schema, "name:\n\t- a", ("not valid YAML",)),
    Yaml(Schema, "name: a\0b", ("not valid YAML",)),
    Yaml(Schema, "[" * 5000, ("nested too deeply",)),
    Yaml(Schema, "{a: " * 3000, ("nested too deeply",)),
    Yaml(Schema, SCHEMA_YAML + "#" * YAML_BYTES, ("more than 1 MiB",)),
    Yaml(Schema, BOMB, ("aliases", "write the value out")),
    Yaml(Schema, "a: &a [*a]\n" + SCHEMA_YAML, ("aliases",)),
    Yaml(Schema, SCHEMA_YAML + "user: v\n", ("key 'user' is given twice",)),
    Yaml(Schema, _schema("{column: t}", "{column: t, unit: s, unit: ms}"), ("key 'unit' is given twice",)),
    Yaml(Schema, SCHEMA_YAML + "x: !!python/object/apply:os.getcwd []\n", ("not valid YAML", "python/object")),
    Yaml(Schema, _schema("name: s", "name: 2001-13-45"), ("not valid YAML", "month must be in")),
    Yaml(Schema, _schema("name: s", "name: 0x_"), ("not valid YAML", "quote it")),
    Yaml(Schema, _schema("name: s", "name: !!int ''"), ("not valid YAML",)),
    Yaml(Schema, _schema("name: s", "name: 0x" + "f" * 9000), ("key 'name'", "string", "a long int")),
    Yaml(Schema, _schema("name: s", 'name: "\\ud800"'), ("key 'name'",)),
    Yaml(Schema, _schema("name: s", "name: ''"), ("key 'name'", "at least 1 character")),
    Yaml(Schema, _schema("name: s", f"name: {'x' * 300}"), ("key 'name'", "at most 256 characters")),
    Yaml(Schema, SCHEMA_YAML + "".join(f"k{i}: 1\n" for i in range(500)), ("unknown key 'k9'", "and 490 more")),
    Yaml(Schema, SCHEMA_YAML + "1: 2\n", ("1",)),
    Yaml(Schema, _schema("column: t", "colum: t"), ("unknown key 'time.colum'", "did you mean 'column'")),
    Yaml(Schema, _schema("user: u\n", ""), ("missing key 'user'",)),
    Yaml(Schema, _schema("[y]", "y"), ("key 'tasks'", "list")),
    Yaml(Schema, _schema("[y]", "[[y]]"), ("key 'tasks.0'", "string")),
    Yaml(Schema, _schema("{column: t}", "t"), ("key 'time'",)),
    Yaml(Schema, _schema("{column: t}", "{column: t, timezone: ../../etc/passwd}"), ("key 'time.timezone'", "IANA")),
    Yaml(Schema, _schema("kind: vocabulary}]", "kind: hashed, buckets: -1}]"), ("key 'fields.1.buckets'",)),
    Yaml(Schema, _schema("kind: vocabulary}]", "kind: hashed, buckets: 2.5}]"), ("key 'fields.1.buckets'", "2.5")),
    Yaml(Schema, _schema("kind: vocabulary", "kind: hashed, buckets: 1073741824"), ("2^31", "take fewer")),
    Yaml(Schema, _schema("vocabulary}]", "vocabulary, max_values: 1000000}]"), ("fields.1.max_values", "256")),
    Yaml(Schema, _schema("vocabulary}]", "vocabulary, separator: ''}]"), ("fields.1.separator", "at least 1")),
    Yaml(StreamConfig, STREAM_YAML + "log: other\n", ("key 'log' is given twice",)),
    Yaml(StreamConfig, "log: 3\n", ("key 'log'",)),
    Yaml(StreamConfig, STREAM_YAML + "budget: {ratio: .nan}\n", ("key 'budget.ratio'",)),
    Yaml(StreamConfig, STREAM_YAML + "budget: {ratio: 1 %}\n", ("key 'budget.ratio'", "1 %")),
    Yaml(StreamConfig, STREAM_YAML + "budget: 0.01\n", ("key 'budget'",)),
    Yaml(StreamConfig, STREAM_YAML + "budget: {cap: 10.5}\n", ("key 'budget.cap'",)),
    Yaml(StreamConfig, STREAM_YAML + "budget: {ratio: 0.01}\nbudget: {cap: 9}\n", ("key 'budget' is given twice",)),
    Yaml(StreamConfig, STREAM_YAML + "seed: [1, 2]\n", ("key 'seed'", "[1, 2]")),
    Yaml(StreamConfig, STREAM_YAML + "refine: {rounds: many}\n", ("key 'refine.rounds'", "many")),
    Yaml(StreamConfig, STREAM_YAML + "cluster: {wrokers: 2}\n", ("'cluster.wrokers'", "did you mean 'workers'")),
    Yaml(StreamConfig, STREAM_YAML + "reference: {dim: 0}\n", ("key 'reference.dim'",)),
    Yaml(StreamConfig, STREAM_YAML + "reference: {lr: fast}\n", ("key 'reference.lr'", "fast")),
    Yaml(StreamConfig, STREAM_YAML + "student: {draw: 1.5}\n", ("key 'student.draw'",)),
    Yaml(CandidateFile, "candidates: []\n", ("key 'candidates'", "at least 1 item")),
    Yaml(CandidateFile, "candidates: dnn\n", ("key 'candidates'", "list")),
    Yaml(CandidateFile, POOL_YAML.replace("name: a", "name: ../../a"), ("key 'candidates.0.name'",)),
    Yaml(CandidateFile, POOL_YAML.replace("name: a", f"name: {'a' * 65}"), ("key 'candidates.0.name'", "64")),
    Yaml(CandidateFile, POOL_YAML.replace("dnn", "os.system"), ("candidates.0", "unknown arch 'os.system'")),
    Yaml(CandidateFile, POOL_YAML.replace("dnn", "x" * 10**5), ("candidates.0", "unknown arch 'xxx")),
    Yaml(CandidateFile, POOL_YAML.replace("dnn", "dnn, params: {hidden: wide}"), ("candidates.0", "hidden", "wide")),
    Yaml(CandidateFile, POOL_YAML.replace("dnn", "dnn, params: [1]"), ("key 'candidates.0.params'",)),
    Yaml(CandidateFile, POOL_YAML.replace("dnn", "dnn, lr_scale: .inf"), ("key 'candidates.0.lr_scale'",)),
    Yaml(CandidateFile, POOL_YAML.replace("}]", "}, {name: a, arch: fm}]"), ("'a' is given twice",)),
]


# --- what diet_ray wrote itself, and somebody changed


@dataclass(frozen=True)
class Artefact:
    """A change to a folder that diet_ray wrote; `change` is given the file `at` in it."""

    name: str
    at: str
    change: Callable[[Path], None]
    words: str


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _json(**changes: Any) -> Callable[[Path], None]:
    return lambda path: rewrite(path, **changes)


def _data(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(change(path.read_bytes())), None)[1]


def _link(path: Path) -> None:
    outside = path.parents[2] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def forge(manifest: Path, path: Path) -> None:
    """Make a manifest fit the file as it is now, as a forger would."""
    from diet_ray.storage.hashes import sha256

    about = json.loads(manifest.read_text())
    files = about.get("shards") or [*about["memory"], *about["checkpoints"]]
    for entry in files:
        if entry["path"] == path.name:
            entry.update(bytes=path.stat().st_size, sha256=sha256(path))
    manifest.write_text(json.dumps(about))


def _forged(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        change(path)
        forge(path.parent / "manifest.json", path)

    return apply


def _table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return _forged(lambda path: pq.write_table(change(pq.read_table(path)), path))


def _units(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = change(to_arrow(read_units(path)))
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    return _forged(write)


def _column(name: str, make: Callable[[Any], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, make(table[name].combine_chunks()))

    return change


def _at(column: str, value: float) -> Callable[[Path], None]:
    """Set the first number of a column of the units."""

    def write(path: Path) -> None:
        units = read_units(path)
        values = getattr(units, column).copy()
        values.reshape(-1)[0] = value
        write_units(path, units.updated(**{column: values}))

    return _forged(write)


def _tensors(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    return _forged(lambda path: save_tensors(path, change(load_tensors(path))))


MANIFEST = "blocks/block-001/manifest.json"
SHARD = "blocks/block-001/shard-00000.parquet"
BLOCK_NAMES = ["block-000", "block-001", "block-002", "block-003"]

LOGS = [
    Artefact("no log.json", "log.json", lambda path: path.unlink(), "missing"),
    Artefact("log.json of zeros", "log.json", _data(lambda data: bytes(len(data))), "not a valid LogManifest"),
    Artefact("log.json cut off", "log.json", _data(lambda data: data[:-20]), "not a valid LogManifest"),
    Artefact("log.json of another format", "log.json", _json(format=99), "format 99, this release reads 1"),
    Artefact("log.json of no format", "log.json", _json(format=["x"] * 10**4), "this release reads 1"),
    Artefact("log.json of a format beyond counting", "log.json", _json(format=2**63), "format: "),
    Artefact("log.json that is a pipe", "log.json", _pipe, "not a file"),
    Artefact("log.json too large", "log.json", lambda path: os.truncate(path, 65 << 20), "more than 64 MiB"),
    Artefact("log.json nested deeply", "log.json", _data(lambda data: b"[" * 10**5), "not a valid LogManifest"),
    Artefact("no block", "log.json", _json(blocks=[]), "blocks"),
    Artefact("block outside", "log.json", _json(blocks=["../../etc"]), "blocks.0"),
    Artefact("block by an absolute path", "log.json", _json(blocks=["/etc"]), "blocks.0"),
    Artefact("block named with a zero byte", "log.json", _json(blocks=["a\0b"]), "blocks.0"),
    Artefact("block twice", "log.json", _json(blocks=[*BLOCK_NAMES, "block-003"]), "position 4"),
    Artefact("blocks in another order", "log.json", _json(blocks=BLOCK_NAMES[::-1]), "position 0"),
    Artefact("schema that leaks", "log.json", _json(log_schema={"name": "x"}), "log_schema"),
    Artefact("shard outside", MANIFEST, _json(shards=[{"path": "../block-000/shard-00000.parquet"}]), "shards.0.path"),
    Artefact("negative rows", MANIFEST, _json(rows=-1), "rows"),
    Artefact("more rows than the shards", MANIFEST, _json(rows=10**15), "contradict"),
    Artefact("time that goes backwards", MANIFEST, _json(time_max=0), "contradict"),
    Artefact("key of another release", MANIFEST, _json(colour="red"), "colour"),
    Artefact("block that is a link", "blocks/block-001", _link, "a link"),
    Artefact("shard that is a link", SHARD, _link, "a link, though"),
    Artefact("shard that is a pipe", SHARD, _pipe, "missing, though"),
    Artefact(
        "shard of another block",
        SHARD,
        _data(lambda data: data[:-9] + b"x" * 9),
        "not the file that the manifest names: its sha256 differs",
    ),
    Artefact("forged shard that is none", SHARD, _forged(_data(lambda data: b"PAR1" * 9)), "not a readable shard"),
    Artefact("forged shard, pages gone", SHARD, _forged(_data(lambda data: data[:4] + data[-2500:])), "not a readable"),
    Artefact(
        "forged shard, fewer rows", SHARD, _table(lambda table: table.slice(1)), "149 rows, its manifest says 150"
    ),
    Artefact("forged shard, no ids", SHARD, _table(lambda table: table.drop_columns(["ids"])), "column 'ids'"),
    Artefact(
        "forged shard, times as text",
        SHARD,
        _table(_column("time", lambda column: column.cast(pa.string()))),
        "column 'time'",
    ),
    Artefact(
        "forged shard, wider ids",
        SHARD,
        _table(_column("ids", lambda c: pa.FixedSizeListArray.from_arrays(pa.array([1] * 750, pa.int32()), 5))),
        "lists of 4",
    ),
    Artefact(
        "forged shard, users missing",
        SHARD,
        _table(_column("user", lambda column: pa.nulls(len(column), pa.int64()))),
        "not a readable shard",
    ),
]
"""Changes to the log of `synthetic.write_log`: four blocks of two shards of 150 rows."""

STAGE = "stages/0001/manifest.json"
MEMORY = "stages/0002/memory-00.arrow"
CHECKPOINT = "stages/0002/checkpoint-1.safetensors"

RUNS = [
    Artefact("stage without a manifest", STAGE, lambda path: path.unlink(), "missing"),
    Artefact("stage of zeros", STAGE, _data(lambda data: bytes(len(data))), "not a valid StageManifest"),
    Artefact("stage manifest that is a pipe", STAGE, _pipe, "not a file"),
    Artefact("stage of no format", STAGE, _json(format=None), "format None, this release reads"),
    Artefact("stage without memory", STAGE, _json(memory=[]), "memory"),
    Artefact("stage without checkpoints", STAGE, _json(checkpoints=[]), "checkpoints"),
    Artefact("memory outside", STAGE, _json(memory=[{"path": "../../x", "bytes": 1, "sha256": ""}]), "memory.0.path"),
    Artefact("units beyond counting", STAGE, _json(units=2**70), "units"),
    Artefact("config that contradicts itself", STAGE, _json(config={"log": "x", "budget": {}}), "config.budget"),
    Artefact("changed in passing", STAGE, _json(rows_seen=1), "does not follow"),
    Artefact("memory that is a link", MEMORY, _link, "a link, though"),
    Artefact("memory that is a pipe", MEMORY, _pipe, "missing, though"),
    Artefact("memory cut off", MEMORY, _data(lambda data: data[:-1]), "not the file that the manifest names: it has"),
    Artefact("forged memory that is none", MEMORY, _forged(_data(lambda data: b"ARROW1")), "not a readable Arrow"),
    Artefact("forged memory cut off", MEMORY, _forged(_data(lambda data: data[: len(data) // 2])), "not a readable"),
    Artefact("forged memory, no deltas", MEMORY, _units(lambda table: table.drop_columns(["delta"])), "'delta'"),
    Artefact(
        "forged memory, logits in double",
        MEMORY,
        _units(_column("logit", lambda c: c.cast(pa.list_(pa.float64(), 1)))),
        "'logit'",
    ),
    Artefact(
        "forged memory, weights missing",
        MEMORY,
        _units(_column("weight", lambda c: pa.nulls(len(c), pa.float32()))),
        "not a memory shard",
    ),
    Artefact(
        "forged memory of another width",
        MEMORY,
        _units(lambda table: table.replace_schema_metadata({"n_fields": "2", "dim": "8"})),
        "2 fields of width 8",
    ),
    Artefact(
        "forged memory of negative width",
        MEMORY,
        _units(lambda table: table.replace_schema_metadata({"n_fields": "-1", "dim": "4"})),
        "not a memory shard",
    ),
    Artefact("forged memory, fewer units", MEMORY, _units(lambda table: table.slice(1)), "45 different units"),
    Artefact(
        "forged memory, a unit twice",
        MEMORY,
        _units(lambda table: pa.concat_tables([table.slice(1, 1), table.slice(1)])),
        "45 different units",
    ),
    Artefact("forged memory, NaN", MEMORY, _at("delta", NAN), "column 'delta'"),
    Artefact("forged memory, infinite logit", MEMORY, _at("logit", INF), "column 'logit'"),
    Artefact("forged memory, negative id", MEMORY, _at("ids", -1), "column 'ids'"),
    Artefact("forged memory, id beyond the table", MEMORY, _at("ids", 2**31 - 1), "column 'ids'"),
    Artefact("forged weights that are none", CHECKPOINT, _forged(_data(lambda data: b"x")), "not a readable safetens"),
    Artefact(
        "forged weights, header longer than the file",
        CHECKPOINT,
        _forged(_data(lambda data: (2**62).to_bytes(8, "little") + data[8:])),
        "not a readable safetensors",
    ),
    Artefact(
        "forged weights without a table",
        CHECKPOINT,
        _tensors(lambda tensors: {name: value for name, value in tensors.items() if name != "table"}),
        "tensor 'table': missing",
    ),
    Artefact(
        "forged table in half precision",
        CHECKPOINT,
        _tensors(lambda tensors: {**tensors, "table": tensors["table"].half()}),
        "tensor 'table': torch.float16",
    ),
    Artefact(
        "forged table of fewer ids",
        CHECKPOINT,
        _tensors(lambda tensors: {**tensors, "table": tensors["table"][:5].clone()}),
        "tensor 'table': torch.float32 [5, 4]",
    ),
]
"""Changes to the run of `small_run.local_run`: three stages, the last of 45 units in two shards."""
