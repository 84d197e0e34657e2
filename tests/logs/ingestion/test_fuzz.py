"""Hypothesis against the loaders: whatever a file holds, they give a sound object or a DietError, and soon.

`DIET_RAY_FUZZ_EXAMPLES=6000 pytest tests/logs/ingestion/test_fuzz.py --timeout=0` for the long run: so many examples for each loader,
more than 10^5.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diet_ray.candidates import CandidateFile
from diet_ray.config import StreamConfig
from diet_ray.errors import BadInputError, ConfigError, CorruptArtefactError, DietError, VersionError
from diet_ray.logs.blocks import BlockManifest, LogManifest, open_log
from diet_ray.logs.ingestion.canonical import canonical
from diet_ray.logs.ingestion.checks import BadRows, Origin
from diet_ray.logs.ingestion.quarantine import FILE, QUARANTINE, sift
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from diet_ray.logs.ingestion.vocabulary import VOCABULARY
from diet_ray.logs.verify_ids import check_ids
from diet_ray.logs.verify_quarantine import check_quarantine
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.manifests import RunManifest, StageManifest
from diet_ray.memory.run_folder import read_units
from diet_ray.report.export import export_memory
from diet_ray.report.export_manifest import ExportManifest
from diet_ray.schema import Schema
from diet_ray.settings import Settings, load_yaml, parse_json
from diet_ray.storage.faults import Faults
from tests.support.corpus import GOOD, POOL_YAML, SCHEMA_YAML, STREAM_YAML, forge, good_table, log_schema

EXAMPLES = int(os.environ.get("DIET_RAY_FUZZ_EXAMPLES", "20"))
GIB = 1 << 30

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A loader that allocates what a header claims ends here, and not by taking the machine down."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * GIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# --- damage

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 2**31, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "..", "../x", "/etc/passwd", "a\0b", "nan", "1e999", "x" * 5000, "\N{SNOWMAN}", "<b>"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every node of plain data."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else []
    return [here] + [place for key, value in inside for place in places(value, (*here, key))]


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """Plain data with one to three nodes replaced, removed, doubled or renamed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(tree)))
        if not place:
            if draw(st.integers(0, 9)) == 0:
                return draw(ODD)
            continue
        *way, last = place
        parent = tree
        for step in way:
            parent = parent[step]
        how = draw(st.sampled_from(["replace", "replace", "remove", "double", "rename", "wrap"]))
        if how == "replace":
            parent[last] = draw(ODD)
        elif how == "remove":
            del parent[last]
        elif how == "wrap":
            parent[last] = [parent[last]]
        elif isinstance(parent, list):
            parent.append(parent[last])
        elif how == "rename":
            parent[draw(st.text(max_size=6))] = parent.pop(last)
        if not isinstance(tree, dict):
            return tree
    return tree


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with one to four places flipped, cut out, repeated, overwritten or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            return draw(st.binary(max_size=40))
        # As often near the ends, where headers and footers are, as anywhere.
        near, far = st.integers(0, min(300, len(data) - 1)), st.integers(0, len(data) - 1)
        at = draw(st.one_of(near, near.map(lambda place: len(data) - 1 - place), far))  # noqa: B023
        length = draw(st.integers(1, 40))
        how = draw(st.sampled_from(["flip", "flip", "cut", "repeat", "random", "number", "end"]))
        end = at + length
        if how == "flip":
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif how == "cut":
            data = data[:at] + data[end:]
        elif how == "repeat":
            data = data[:end] + data[at:]
        elif how == "random":
            data = data[:at] + draw(st.binary(min_size=1, max_size=40)) + data[end:]
        elif how == "number":
            number = draw(st.sampled_from([0, -1, 2**31 - 1, 2**40, 2**62, 2**63 - 1])).to_bytes(
                8, "little", signed=True
            )
            data = data[:at] + number + data[at + 8 :]
        else:
            data = data[:at]
    return data


def outcome(load: Callable[[], Any], *errors: type[DietError]) -> Any:
    """What a load gives, or the error that it ends in; any other error fails the test."""
    try:
        return load()
    except errors as error:
        found = error
    assert 0 < len(str(found).strip()) < 5000
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# --- YAML

SETTINGS: dict[str, tuple[type[Settings], Any]] = {
    "schema": (
        Schema,
        {
            **yaml.safe_load(SCHEMA_YAML),
            "fields": [
                {"name": "a", "kind": "vocabulary", "max_values": 4, "separator": ","},
                {"name": "b", "kind": "numeric", "buckets": 8, "transform": "log", "column": "x"},
                {"name": "c", "kind": "hashed", "buckets": 9, "allow_negative": True},
            ],
        },
    ),
    "stream": (StreamConfig, json.loads(StreamConfig(log=Path("logs/mine")).model_dump_json())),
    "pool": (
        CandidateFile,
        {"candidates": [{"name": "a", "arch": "dnn", "params": {"hidden": [8]}}, {"name": "b", "arch": "fm"}]},
    ),
}
TEXTS = {"schema": SCHEMA_YAML, "stream": STREAM_YAML, "pool": POOL_YAML}
WORDS = r"""name : - [ ] { } &a *a !! <<: ' " # | > ? 0x 1_ 2001-02-30 .nan = \ud800 ~ int python/name:os.system %TAG"""
PIECES = st.sampled_from([*WORDS.split(), ": ", "- ", "\n", "\t", "  ", "\0", "\ufeff"])


@pytest.mark.parametrize("name", SETTINGS)
def test_yaml_of_changed_data(name: str, place: Path) -> None:
    kind, good = SETTINGS[name]

    @fuzz
    @given(changed(good), st.sampled_from([True, False]))
    def run(tree: Any, flow: bool) -> None:
        path = place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True), encoding="utf-8")
        found = outcome(lambda: load_yaml(kind, path), ConfigError)
        if isinstance(found, ConfigError):
            assert str(found).startswith(f"{path}: ")
        else:  # what is accepted can be written and read back
            text = found.model_dump_json()
            assert kind.model_validate_json(text).model_dump_json() == text

    run()


@pytest.mark.parametrize("name", SETTINGS)
def test_yaml_of_any_bytes(name: str, place: Path) -> None:
    kind, _ = SETTINGS[name]
    words = st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=30).map("".join)

    @fuzz
    @given(st.one_of(damaged(TEXTS[name].encode()), words.map(lambda text: text.encode("utf-8", "surrogatepass"))))
    def run(data: bytes) -> None:
        path = place / f"{name}.yaml"
        path.write_bytes(data)
        found = outcome(lambda: load_yaml(kind, path), ConfigError)
        assert isinstance(found, (kind, ConfigError))

    run()


# --- manifests


def manifests(log: Path, finished: Path, place: Path) -> dict[str, tuple[type[Settings], Path]]:
    if not (place / "export").exists():
        export_memory(finished, place / "export")
    return {
        "log": (LogManifest, log / "log.json"),
        "block": (BlockManifest, log / "blocks" / "block-001" / "manifest.json"),
        "run": (RunManifest, finished / "run.json"),
        "stage": (StageManifest, finished / "stages" / "0001" / "manifest.json"),
        "export": (ExportManifest, place / "export" / "manifest.json"),
    }


@pytest.mark.parametrize("name", ["log", "block", "run", "stage", "export"])
def test_manifests(name: str, log: Path, finished: Path, place: Path) -> None:
    kind, good = manifests(log, finished, place)[name]
    tree = json.loads(good.read_text())
    texts = changed(tree).map(lambda tree: json.dumps(tree).encode())

    @fuzz
    @given(st.one_of(texts, damaged(good.read_bytes())))
    def run(data: bytes) -> None:
        path = place / f"{name}.json"
        path.write_bytes(data)
        found = outcome(lambda: parse_json(kind, path), CorruptArtefactError, VersionError)
        if isinstance(found, DietError):
            assert str(found).startswith(f"{path}: ")
        else:
            # As JSON, where a figure that is nan is equal to itself.
            assert parse_json(kind, path).model_dump_json() == found.model_dump_json()

    run()


def test_the_card_of_any_export_is_plain_yaml_and_text(finished: Path, place: Path) -> None:
    @settings(fuzz, max_examples=min(EXAMPLES, 300))  # a whole export each
    @given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=60))
    def run(licence: str) -> None:
        out = place / "card"
        shutil.rmtree(out, ignore_errors=True)
        export_memory(finished, out, ids=False, licence=licence)
        header = yaml.safe_load((out / "README.md").read_text(encoding="utf-8").split("---\n")[1])
        assert header["license_name"] == licence

    run()


# --- data


def test_source_parquet_with_damage(place: Path) -> None:
    path, schema = place / "source.parquet", log_schema()
    pq.write_table(good_table(30), path, row_group_size=10)

    @fuzz
    @given(damaged(path.read_bytes()))
    def run(data: bytes) -> None:
        copy = place / "copy.parquet"
        copy.write_bytes(data)

        def load() -> int:
            n = 0
            for piece in find_pieces([copy], schema.columns):
                for first, table in read_piece(piece, schema.columns):
                    n += len(sift(table, schema, Origin(str(copy), np.arange(first, first + len(table))))[0])
            return n

        found = outcome(load, BadInputError)
        if isinstance(found, BadInputError):
            assert found.file == str(copy)
            assert found.remedy

    run()


def test_source_csv_with_damage(place: Path) -> None:
    csv = b"t,u,y,a,b,c,e\n" + b'%d,7,1,3,2.5,x,"p,q"\n' * 20 % tuple(range(20))
    columns = ["t", "u", "y", "a", "b", "c", "e"]

    @fuzz
    @given(damaged(csv))
    def run(data: bytes) -> None:
        path = place / "copy.csv"
        path.write_bytes(data)
        rows = outcome(
            lambda: sum(len(t) for piece in find_pieces([path], columns) for _, t in read_piece(piece, columns)),
            BadInputError,
        )
        # One line is at most one row: none is made up.
        assert isinstance(rows, BadInputError) or rows <= data.count(b"\n") + data.count(b"\r") + 1

    run()


KINDS = [pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary()]
KINDS += [pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.date32(), pa.time64("us"), pa.duration("ms"), pa.null()]
KINDS += [
    pa.decimal128(9, 2),
    pa.list_(pa.int64()),
    pa.list_(pa.string()),
    pa.list_(pa.list_(pa.int8())),
    pa.string_view(),
]
KINDS += [
    pa.decimal32(7, 1),
    pa.decimal256(40, 3),
    pa.binary(4),
    pa.large_binary(),
    pa.binary_view(),
    pa.date64(),
    pa.float32(),
]
KINDS += [
    pa.list_view(pa.string()),
    pa.large_list_view(pa.int64()),
    pa.large_list(pa.float64()),
    pa.dictionary(pa.uint8(), pa.int16()),
]
KINDS += [pa.list_(pa.float32(), 2), pa.struct([("k", pa.int8())]), pa.dictionary(pa.int32(), pa.string())]


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    """Three values of any type, of any bits, with or without nulls."""
    kind = draw(st.sampled_from(KINDS))
    if pa.types.is_string(kind) and draw(st.booleans()):
        return pa.array(draw(st.lists(st.binary(max_size=6), min_size=3, max_size=3))).view(pa.string())
    if pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
        width = kind.bit_width // 8
        bits = draw(st.binary(min_size=3 * width, max_size=3 * width))
        valid = draw(st.sampled_from([None, pa.py_buffer(b"\x05")]))
        return pa.Array.from_buffers(kind, 3, [valid, pa.py_buffer(bits)])
    number, text = (
        st.integers(-3, 3),
        st.one_of(st.text(max_size=5), st.sampled_from(["1", "-1", "1e999", "2022-01-01"])),
    )
    items: Any = st.none()
    if pa.types.is_fixed_size_list(kind):
        items = st.lists(number, min_size=2, max_size=2)
    elif kind in (pa.list_(pa.string()), pa.list_view(pa.string())):
        items = st.lists(st.one_of(text, st.none()), max_size=4)
    elif kind in (pa.list_(pa.int64()), pa.large_list_view(pa.int64()), pa.large_list(pa.float64())):
        items = st.lists(st.one_of(number, st.none()), max_size=4)
    elif kind == pa.list_(pa.list_(pa.int8())):
        items = st.lists(st.lists(number, max_size=2), max_size=2)
    elif pa.types.is_struct(kind):
        items = st.fixed_dictionaries({"k": number})
    elif pa.types.is_boolean(kind):
        items = st.booleans()
    elif pa.types.is_dictionary(kind) and pa.types.is_integer(kind.value_type):
        items = number
    elif kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        items = st.binary(max_size=4)
    elif pa.types.is_fixed_size_binary(kind):
        items = st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    elif pa.types.is_decimal(kind):
        items = st.decimals(-9, 9, places=kind.scale)
    elif not pa.types.is_null(kind):
        items = text
    return pa.array(draw(st.lists(st.one_of(items, st.none()), min_size=3, max_size=3)), kind)


@fuzz
@given(st.sampled_from(list(GOOD)), arrays(), st.sampled_from(["s", "ms", "us", "ns", "timestamp"]))
def test_columns_of_any_type(name: str, values: pa.Array, unit: str) -> None:
    schema, origin = log_schema(unit), Origin("f", np.array([4, 5, 6]))
    times = {"t": pa.array(["2022-04-25"] * 3)} if unit == "timestamp" else {}
    table = pa.table({**GOOD, **times, name: values})
    found = outcome(lambda: canonical(table, schema, origin), BadInputError)
    if not isinstance(found, DietError):
        found.validate(full=True)
        stamp, refused = sift(table, schema, origin)
        assert (len(stamp), len(refused)) == (3, 0)
        return
    assert found.column == name
    assert found.remedy
    rest = outcome(lambda: sift(table, schema, origin), BadInputError)
    if not isinstance(found, BadRows):
        assert str(rest) == str(found)
    elif not isinstance(rest, BadInputError):
        stamp, refused = rest
        assert len(stamp) + len(refused) == 3
        assert set(found.rows.tolist()) <= set(refused["row"].to_pylist()) <= {4, 5, 6}


def test_log_with_damage(log: Path, place: Path) -> None:
    folder = Path(shutil.copytree(log, place / "log"))
    block = folder / "blocks" / "block-002"
    kept = {path: path.read_bytes() for path in (block / "manifest.json", block / "shard-00001.parquet")}

    @fuzz
    @given(damaged(kept[block / "shard-00001.parquet"]))
    def run(data: bytes) -> None:
        for path, content in kept.items():
            path.write_bytes(content)
        (block / "shard-00001.parquet").write_bytes(data or b"x")
        forge(block / "manifest.json", block / "shard-00001.parquet")
        opened = open_log(folder)
        rows = outcome(lambda: opened.read_block(opened.blocks[2]), CorruptArtefactError)
        assert isinstance(rows, CorruptArtefactError) or len(rows) == opened.blocks[2].rows

    run()


@pytest.mark.parametrize("name", [FILE, "vocabulary.parquet"])
def test_verify_with_damage_that_no_checksum_shows(name: str, log: Path, place: Path) -> None:
    """Both are named by no manifest, so that what is in them is all that there is to tell."""
    folder = Path(shutil.copytree(log, place / f"verified-{name}"))
    content = json.loads((folder / "log.json").read_text())
    content["log_schema"]["fields"][0] = {"name": "user", "kind": "vocabulary"}
    (folder / "log.json").write_text(json.dumps(content))
    ids, path = range(100, 160), folder / name
    rows = {"file": "a", "row": 3, "column": "user", "reason": "no user", "time": None, "block": None}
    values = [{"field": "user", "value": f"v{k}", "id": k, "block": 0} for k in ids]
    quarantine = name == FILE
    table = pa.Table.from_pylist([rows] if quarantine else values, QUARANTINE if quarantine else VOCABULARY)
    pq.write_table(table, path, compression="zstd")
    manifests = [parse_json(BlockManifest, one) for one in sorted((folder / "blocks").glob("*/manifest.json"))]
    schema = parse_json(LogManifest, folder / "log.json").log_schema

    @fuzz
    @given(damaged(path.read_bytes()))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        faults = Faults(folder, "mend it")
        if quarantine:
            check_quarantine(folder, schema, manifests, faults)
        else:
            check_ids(folder, schema, [None], faults)
        assert all(fault.where.startswith(name) and 0 < len(fault.what) < 5000 for fault in faults.faults)

    run()


def test_memory_shard_with_damage(finished: Path, place: Path) -> None:
    good = (finished / "stages" / "0002" / "memory-00.arrow").read_bytes()

    @fuzz
    @given(damaged(good))
    def run(data: bytes) -> None:
        path = place / "memory-00.arrow"
        path.write_bytes(data)
        units = outcome(lambda: read_units(path), CorruptArtefactError)
        assert isinstance(units, CorruptArtefactError) or units.delta.shape[0] == len(units)

    run()


@pytest.mark.parametrize("name", ["memory-01.arrow", "checkpoint-1.safetensors", "manifest.json"])
def test_load_memory_with_damage(name: str, finished: Path, place: Path) -> None:
    folder = Path(shutil.copytree(finished / "stages" / "0002", place / f"stage-{name}"))
    kept = {path: path.read_bytes() for path in (folder / "manifest.json", folder / name)}
    tree = changed(json.loads(kept[folder / "manifest.json"])).map(lambda tree: json.dumps(tree).encode())

    @fuzz
    @given(tree if name == "manifest.json" else damaged(kept[folder / name]))
    def run(data: bytes) -> None:
        for path, content in kept.items():
            path.write_bytes(content)
        (folder / name).write_bytes(data)
        if name != "manifest.json":
            forge(folder / "manifest.json", folder / name)
        memory = outcome(lambda: load_memory(folder), CorruptArtefactError, VersionError)
        assert isinstance(memory, DietError) or memory.x.shape[0] == len(memory)

    run()
