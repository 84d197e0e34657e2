"""Files of a few kilobytes that stand for gigabytes end in an error that names them, and memory stays small."""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError, CorruptArtefactError
from diet_ray.logs.blocks import BlockManifest, open_log, row_bytes
from diet_ray.logs.ingestion.append import known_vocabulary
from diet_ray.logs.ingestion.canonical import canonical
from diet_ray.logs.ingestion.checks import BadRows, Origin
from diet_ray.logs.ingestion.quarantine import FILE, QUARANTINE
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from diet_ray.logs.ingestion.vocabulary import VOCABULARY
from diet_ray.memory.run_folder import read_units
from diet_ray.memory.verification import verify
from diet_ray.settings import parse_json
from diet_ray.storage import parquet
from diet_ray.storage.arrow_files import read_table
from diet_ray.storage.hashes import sha256
from diet_ray.storage.parquet_pages import PageError, read_chunk
from tests.support.corpus import good_table, log_schema
from tests.support.synthetic import write_log

MIB, GIB = 1 << 20, 1 << 30


class Peak:
    """The most memory that the process has had at a time since then, beyond what it had."""

    def __init__(self) -> None:
        gc.collect()
        pa.default_memory_pool().release_unused()
        Path("/proc/self/clear_refs").write_text("5")  # from here on, see proc(5)
        self.before = self.most

    @property
    def most(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

    @property
    def bytes(self) -> int:
        return self.most - self.before


@pytest.fixture
def limit() -> Iterator[None]:
    """Who asks for more than 2 GiB does not get them."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * GIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


pytestmark = pytest.mark.usefixtures("limit")


def read(path: Path, columns: list[str]) -> int:
    return sum(len(table) for piece in find_pieces([path], columns) for _, table in read_piece(piece, columns))


# --- pages


def number(value: int) -> bytes:
    """A number from 0 on as Thrift's compact protocol writes one."""
    return varint(value << 1)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def page(n_values: int, n_bytes: int) -> bytes:
    """A page of `n_values` numbers, all zero and none missing, that unpacks to `n_bytes`."""
    present = varint(n_values << 1) + b"\x01"
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(struct.pack("<I", len(present)) + present)
        left = n_bytes - 4 - len(present)
        while left:
            left -= packed.write(bytes(min(left, 16 * MIB)))
    body = sink.getvalue().to_pybytes()
    header = b"\x15" + number(0) + b"\x15" + number(n_bytes) + b"\x15" + number(len(body))
    return header + b"\x2c\x15" + b"\x15".join(map(number, (n_values, 0, 3, 3))) + b"\x00\x00" + body


def with_page(path: Path, leaf: int, n_bytes: int) -> None:
    """Put a page that unpacks to `n_bytes` in place of a column's pages, which have to be longer than it is."""
    column = pq.read_metadata(path).row_group(0).column(leaf)
    bomb = page(column.num_values, n_bytes)
    assert len(bomb) <= column.total_compressed_size
    with path.open("r+b") as file:
        file.seek(column.data_page_offset)
        file.write(bomb)


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**62), 2**62, n)


def plain(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)
    return path


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("coded", [True, False])
def test_the_claims_of_honest_pages(version: str, coded: bool) -> None:
    n, file = 3000, io.BytesIO()
    text = pa.array([f"v{number % 700}" for number in range(n)])
    lists = pa.array([[1] * (number % 3) for number in range(n)])
    encodings = {"text": "DELTA_BYTE_ARRAY", "number": "DELTA_BINARY_PACKED"}
    table = pa.table({"number": noise(n), "text": text, "list": lists, "none": pa.nulls(n, pa.int32())})
    how = {} if coded else {"use_dictionary": False, "column_encoding": encodings}
    pq.write_table(table, file, data_page_version=version, data_page_size=4000, write_page_checksum=True, **how)
    group = pq.read_metadata(file).row_group(0)
    for leaf in range(4):
        column = group.column(leaf)
        start = column.dictionary_page_offset or column.data_page_offset
        chunk = read_chunk(file, start, column.num_values)
        assert chunk.values == column.num_values
        assert 0.5 * column.total_uncompressed_size < chunk.dictionary + chunk.total + 120
        assert chunk.dictionary + chunk.total < column.total_uncompressed_size
        assert chunk.prefixed == (column.path_in_schema == "text" and not coded)
        assert chunk.largest <= chunk.total


def test_a_page_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = plain(tmp_path / "x.parquet", a=noise(20_000), b=noise(20_000))
    with_page(path, 1, 2**31 - 1)
    assert path.stat().st_size < 400_000
    peak = Peak()
    assert read(path, ["a"]) == 20_000  # the other one is not looked at
    with pytest.raises(
        BadInputError, match=r"row group 0 cannot be read: its pages unpack to 2147483647 bytes"
    ) as caught:
        read(path, ["b"])
    assert (caught.value.file, "smaller pages" in caught.value.remedy) == (str(path), True)
    assert peak.bytes < 64 * MIB


def test_a_page_of_the_bomb_is_one_that_arrow_unpacks(tmp_path: Path) -> None:
    path = plain(tmp_path / "x.parquet", a=noise(3000))
    with_page(path, 0, 96 * MIB)  # more than the bound below: the kernel's count is off by a MiB or so
    assert path.stat().st_size < 64_000
    peak = Peak()
    assert read(path, ["a"]) == 3000
    assert peak.bytes > 64 * MIB  # so much for 60 kB


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff" * 40, b"\x15\x00\x15\x01\x15\x01\x00", b"\x1c" * 40, b"\x18\xff\xff\xff\x7f"]
)
def test_what_is_no_page_is_named(garbage: bytes, tmp_path: Path) -> None:
    path = plain(tmp_path / "x.parquet", a=noise(100))
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + len(garbage)] = garbage or bytes(200)
    path.write_bytes(data)
    with pytest.raises(BadInputError) as caught:
        read(path, ["a"])
    assert caught.value.file == str(path)


def test_a_dictionary_of_more_values_than_bytes() -> None:
    def dictionary(n_values: int) -> io.BytesIO:
        sizes = b"\x15" + number(2) + b"\x15" + number(8) + b"\x15" + number(8)
        return io.BytesIO(
            sizes + b"\x4c\x15" + number(n_values) + b"\x15" + number(0) + b"\x00\x00" + bytes(8) + page(5, 60)
        )

    assert read_chunk(dictionary(2), 0, 5).dictionary == 8
    with pytest.raises(PageError, match="dictionary at byte 0 claims more values than it has bytes"):
        read_chunk(dictionary(2**31 - 1), 0, 5)


# --- Parquet from elsewhere


def test_a_long_value_that_a_dictionary_repeats(tmp_path: Path) -> None:
    """6 GB of text in a few kB: they are read part by part, as honest text is, and the rows are refused for what they are."""
    table = good_table(300)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["x" * (20 * MIB)]))
    path = tmp_path / "x.parquet"
    at = table.schema.get_field_index("c")
    pq.write_table(table.set_column(at, "c", text), path, compression="zstd", dictionary_pagesize_limit=GIB)
    assert path.stat().st_size < 30_000
    peak = Peak()
    [piece] = find_pieces([path], log_schema().columns)
    first, part = next(read_piece(piece, log_schema().columns))
    with pytest.raises(BadRows, match="text of more than 4096 bytes") as caught:
        canonical(part, log_schema(), Origin(str(path), np.arange(first, first + len(part))))
    assert (caught.value.file, caught.value.column) == (str(path), "c")
    assert peak.bytes < GIB


def test_a_row_whose_list_has_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 4000]))
    pq.write_table(pa.table({"a": pa.ListArray.from_arrays([0, 100_000], codes), "b": [1]}), path)
    assert path.stat().st_size < 20_000
    peak = Peak()
    with pytest.raises(BadInputError, match=r"the text of a single row takes 400000000 bytes, at most 268435456"):
        read(path, ["a"])
    monkeypatch.setattr(parquet, "LIST_VALUES", 99_999)
    with pytest.raises(BadInputError, match=r"column 'a.list.element' has 100000 values in lists, at most 99999"):
        read(path, ["a", "b"])
    assert peak.bytes < 64 * MIB


def test_rows_that_take_no_bits(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    part = pa.table({"a": np.zeros(8_000_000, np.int8)})
    with pq.ParquetWriter(path, part.schema, compression="zstd", max_rows_per_page=len(part)) as writer:
        for _ in range(3):
            writer.write_table(part, row_group_size=len(part))
    assert path.stat().st_size < 20_000
    peak = Peak()
    with pytest.raises(BadInputError, match=r"claims 24000000 rows in \d+ bytes"):
        read(path, ["a"])
    assert peak.bytes < 64 * MIB


def test_long_honest_text_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"{number:04d}" * (number % 40) for number in range(900)]
    lists = [[word, None, word[:3]] if number % 3 else None for number, word in enumerate(words)]
    columns = {
        "text": words,
        "large": pa.array(words, pa.large_string()),
        "coded": pa.array(words).dictionary_encode(),
        "bytes": [word.encode() for word in words],
        "list": lists,
        "pair": pa.array([[word, "x"] for word in words], pa.list_(pa.string(), 2)),
        "number": list(range(900)),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=400, data_page_size=2000)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 10_000)
    pieces = find_pieces([tmp_path / "x.parquet"], list(columns))
    parts = [table for piece in pieces for _, table in read_piece(piece, list(columns))]
    assert len(parts) > 30
    assert max(part.nbytes for part in parts) < 40_000
    whole = pa.concat_tables(parts).to_pydict()
    assert whole == pa.table(columns).to_pydict()


# --- CSV


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a,b\n1," + b"x" * (40 * MIB), "a line of more than"),
        (b"a" + b",c" * 1_000_000 + b"\n", "its header has more than 16384 columns"),
    ],
    ids=["a line without an end", "a million columns"],
)
def test_packed_csv(text: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(text, 9))
    assert path.stat().st_size < 50_000
    peak = Peak()
    with pytest.raises(BadInputError, match=words) as caught:
        read(path, ["a"])
    assert caught.value.file == str(path)
    assert peak.bytes < 128 * MIB


# --- logs


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", blocks=2, n=20_000)


def forged(log: Path, n_rows: int | None = None) -> tuple[Path, str]:
    """Let the manifest of the first block fit its first shard; returns that and what errors call it."""
    manifest = log / "blocks" / "block-000" / "manifest.json"
    block = json.loads(manifest.read_text())
    shard = block["shards"][0]
    path = manifest.parent / shard["path"]
    shard["rows"] = n_rows or shard["rows"]
    shard["bytes"], shard["sha256"] = path.stat().st_size, sha256(path)
    block["rows"] = sum(one["rows"] for one in block["shards"])
    manifest.write_text(json.dumps(block))
    return path, str(path.relative_to(log))


def read_log(log: Path) -> None:
    opened = open_log(log)
    for block in opened.blocks:
        opened.read_block(block)


def refused(log: Path, path: Path, where: str, words: str) -> None:
    with pytest.raises(CorruptArtefactError, match=words) as caught:
        read_log(log)
    assert str(caught.value).startswith(f"{path}: ")
    assert "ingest the log again" in str(caught.value)
    assert [fault for fault in verify(log) if fault.where == where and words in fault.what]


def test_a_shard_of_rows_that_take_no_bits(log: Path) -> None:
    path, _ = forged(log)
    n, old = 2_000_000, pq.read_table(path)
    part = old.take(pa.array(np.zeros(n, np.int32)))
    with pq.ParquetWriter(path, part.schema, compression="zstd", max_rows_per_page=n) as writer:
        for _ in range(6):
            writer.write_table(part, row_group_size=n)
    assert 12_000_000 * row_bytes(open_log(log).schema) > 450 * MIB
    assert path.stat().st_size < 200_000
    peak = Peak()
    refused(log, *forged(log, 12_000_000), "claims 12000000 rows in")
    assert peak.bytes < 64 * MIB


def test_a_shard_whose_page_unpacks_to_gigabytes(log: Path) -> None:
    path, _ = forged(log)
    table = pq.read_table(path)
    table = table.set_column(2, "user", pa.array(noise(len(table))))
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    with_page(path, 2, 2**31 - 1)
    peak = Peak()
    refused(log, *forged(log), "its pages unpack to more than")
    assert peak.bytes < 64 * MIB


def test_a_vocabulary_that_unpacks_to_gigabytes(log: Path) -> None:
    n = 4000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array(["x" * MIB]))
    columns = {"field": ["user"] * n, "value": text, "id": range(58, 58 + n), "block": [0] * n}
    table = pa.table(columns)
    types = pa.schema([*(VOCABULARY.field(name) for name in VOCABULARY.names)])
    stored = pa.schema([("field", pa.string()), ("value", text.type), ("id", pa.int32()), ("block", pa.int32())])
    path = log / "vocabulary.parquet"
    with pq.ParquetWriter(path, stored, compression="zstd", store_schema=False) as writer:
        writer.write_table(table.cast(stored))
    assert pq.read_schema(path).equals(types)
    assert path.stat().st_size < 100_000
    peak = Peak()
    with pytest.raises(
        CorruptArtefactError, match=r"vocabulary\.parquet: cannot be read \(unpacks to more than 1000 times"
    ):
        known_vocabulary(log, open_log(log), log)
    content = json.loads((log / "log.json").read_text())
    content["log_schema"]["fields"][0] = {"name": "user", "kind": "vocabulary"}
    (log / "log.json").write_text(json.dumps(content))
    assert [
        fault for fault in verify(log) if fault.where == "vocabulary.parquet" and "unpacks to more than" in fault.what
    ]
    assert peak.bytes < GIB


def test_a_quarantine_that_unpacks_to_gigabytes(log: Path) -> None:
    n = 1500
    reason = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array(["x" * MIB]))
    columns = {"file": ["a"] * n, "row": range(n), "column": ["label_0"] * n, "time": [None] * n, "block": [None] * n}
    kinds = {name: QUARANTINE.field(name).type for name in QUARANTINE.names} | {"reason": reason.type}
    stored = pa.schema(list(kinds.items()))
    with pq.ParquetWriter(log / FILE, stored, compression="zstd", store_schema=False) as writer:
        writer.write_table(pa.table({**columns, "reason": reason}).select(stored.names).cast(stored))
    assert (log / FILE).stat().st_size < 100_000
    peak = Peak()
    assert verify(log) == []  # it is odd, not wrong, and it is read in parts
    assert peak.bytes < GIB
    assert parse_json(BlockManifest, log / "blocks" / "block-000" / "manifest.json").quarantined == 0


# --- memories


def arrow(path: Path, table: pa.Table, times: int = 1) -> Path:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        for _ in range(times):
            writer.write_table(table)
    return path


def units(n: int, width: int) -> pa.Table:
    """Units with deltas of `width` zeros."""
    lists = {
        "ids": (pa.int32(), 3),
        "delta": (pa.float32(), width),
        "logit": (pa.float32(), 1),
        "label": (pa.uint8(), 1),
    }
    columns = {"unit_id": pa.array(range(n), pa.int64())}
    for name, (kind, size) in lists.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * size), kind), size)
    for name in ("weight", "influence"):
        columns[name] = pa.array(np.ones(n), pa.float32())
    columns["block"] = pa.array([0] * n, pa.int32())
    return pa.table(columns).replace_schema_metadata({"n_fields": "1", "dim": str(width)})


def test_units_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    path = arrow(tmp_path / "m.arrow", units(16, 1_000_000), times=20)
    assert path.stat().st_size < 500_000
    peak = Peak()
    with pytest.raises(
        CorruptArtefactError, match=r"m\.arrow: not a readable Arrow file \(its \d+ bytes unpack to 128\d+"
    ):
        read_units(path)
    assert peak.bytes < 64 * MIB


def test_a_buffer_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    path = arrow(tmp_path / "m.arrow", units(500, 4))
    length = struct.pack("<q", 500 * 8)  # of the unit ids, which do not pack to nothing
    data = path.read_bytes()
    assert data.count(length) == 1
    peak = Peak()
    for claim, words in ((1 << 40, "unpack to 10995"), (-2, "below 0"), (3999, "readable")):
        path.write_bytes(data.replace(length, struct.pack("<q", claim)))
        with pytest.raises(CorruptArtefactError, match=words):
            read_units(path)
    assert peak.bytes < 64 * MIB


def test_honest_units_are_read_as_they_were(tmp_path: Path) -> None:
    for compression in ("zstd", "lz4", None):
        options = pa.ipc.IpcWriteOptions(compression=compression)
        path = tmp_path / "m.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, units(9, 3).schema, options=options) as writer:
            writer.write_table(units(300, 3), max_chunksize=70)
        assert read_table(path).equals(units(300, 3))
        assert len(read_units(path)) == 300


def test_a_footer_that_names_other_batches(tmp_path: Path) -> None:
    one, other = arrow(tmp_path / "1.arrow", units(9, 3)), arrow(tmp_path / "2.arrow", units(9, 3), times=2)
    data, long = one.read_bytes(), other.read_bytes()
    (footer,) = struct.unpack("<i", long[-10:-6])
    (own,) = struct.unpack("<i", data[-10:-6])
    one.write_bytes(data[: -10 - own] + long[-10 - footer :])
    with pytest.raises(CorruptArtefactError, match=r"1\.arrow: not a readable Arrow file"):
        read_units(one)
