from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.errors import SchemaError
from diet_ray.logs.ingestion import numbering, value_counts
from diet_ray.logs.ingestion.canonical import canonical
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.edges import Edges, fit_edges
from diet_ray.logs.ingestion.encode import Encoder
from diet_ray.logs.ingestion.id_index import IdIndex
from diet_ray.logs.ingestion.numbering import number
from diet_ray.logs.ingestion.value_counts import COUNTS, CountFile, keyed, merge_counts
from diet_ray.logs.ingestion.vocabulary import VOCABULARY, first_slots, ids_after
from diet_ray.schema import HashedField, NumericField, Schema

FIELDS: list[dict[str, Any]] = [
    {"name": "v", "kind": "vocabulary", "min_count": 2},
    {"name": "m", "kind": "vocabulary", "max_values": 3},
    {"name": "h", "kind": "hashed", "buckets": 7, "max_values": 2},
    {"name": "n", "kind": "numeric", "buckets": 4},
]
SCHEMA = Schema.model_validate(
    {"name": "s", "time": {"column": "t", "unit": "ms"}, "user": "u", "tasks": ["y", "z"], "fields": FIELDS}
)
TEXT = st.sampled_from(["a", "b", "c", "d", "é", "10", "9"])
ROW = st.fixed_dictionaries(
    {
        "t": st.integers(0, 50),
        "u": st.integers(0, 3),
        "y": st.integers(0, 1),
        "z": st.integers(0, 1),
        "v": st.none() | TEXT,
        "m": st.none() | st.lists(TEXT, max_size=5),
        "h": st.none() | st.lists(TEXT, max_size=3),
        "n": st.none() | st.floats(-5, 5),
    }
)
KINDS = pa.schema(
    [
        *((c, pa.int64()) for c in "tuyz"),
        ("v", pa.string()),
        *((c, pa.list_(pa.string())) for c in "mh"),
        ("n", pa.float64()),
    ]
)


def canon(rows: list[dict[str, Any]]) -> pa.Table:
    return canonical(pa.Table.from_pylist(rows, KINDS), SCHEMA, Origin("f", np.arange(len(rows))))


def numbered(parts: list[list[pa.Table]], schema: Schema, n_blocks: int) -> tuple[pa.Table, IdIndex]:
    """The vocabulary of counts from several files, and its index."""
    with TemporaryDirectory() as folder:
        files, n_bytes = [], 0
        for number_of_file, counts in enumerate(parts):
            with CountFile(Path(folder, f"{number_of_file}.counts")) as file:
                file.add(counts)
            files += [str(file.path)] if file.n_bytes else []
            n_bytes += file.n_bytes
        vocabulary = number(files, n_bytes, schema, Path(folder), n_blocks=n_blocks)
        return vocabulary, IdIndex.open(Path(folder))


@given(st.lists(ROW, min_size=1, max_size=30), st.integers(1, 4))
@settings(deadline=None)
def test_ids_against_plain_python(rows: list[dict[str, Any]], n_blocks: int) -> None:
    block = np.sort(np.arange(len(rows)) % n_blocks)
    table = canon(rows)
    # Counted in two parts, as two pieces of a file would be.
    half = len(rows) // 2
    spans = [slice(0, half), slice(half, None)] if half else [slice(None)]
    parts = [keyed(table.take(np.arange(len(rows))[span]), SCHEMA, block[span], 0)[1] for span in spans]
    vocabulary, index = numbered(parts, SCHEMA, n_blocks)
    table, _ = keyed(table, SCHEMA, block, 0)
    assert vocabulary.schema == VOCABULARY

    # Plain: ids 0 padding, 1..4 unknown, 5..11 hashed, 12..15 numeric, then values as blocks bring them.
    known: dict[tuple[int, str], int] = {}
    sizes = []
    for b in range(int(block.max()) + 1):
        seen: Counter[tuple[int, str]] = Counter()
        for row in (row for row, of in zip(rows, block, strict=True) if of == b):
            seen.update({(0, row["v"])} - {(0, None)})
            seen.update({(1, value) for value in (row["m"] or [])[:3]})
        new = sorted((f, v.encode(), v) for (f, v), n in seen.items() if n >= (2, 1)[f] and (f, v) not in known)
        for f, _, value in new:
            known[f, value] = 16 + len(known)
        sizes.append(16 + len(known))

        mine = [i for i in range(len(rows)) if block[i] == b]
        edges = [-1.0, 0.0, 1.0]
        encoder = Encoder(SCHEMA, index, Edges(edges={"n": edges}))
        out, counts = encoder.encode(table.take(mine), block[mine], 1000 + np.arange(len(mine)))
        order = sorted(mine, key=lambda i: rows[i]["t"])
        assert out.row_id.tolist() == list(range(1000, 1000 + len(mine)))
        assert out.time.tolist() == [rows[i]["t"] for i in order]
        assert out.labels.tolist() == [[rows[i]["y"], rows[i]["z"]] for i in order]
        assert out.user.tolist() == [table["user"][i].as_py() for i in order]
        for i, ids in zip(order, out.ids.tolist(), strict=True):
            row = rows[i]
            assert ids[0] == known.get((0, row["v"]), 1)
            multi = [known.get((1, value), 2) for value in (row["m"] or [])[:3]] or [2]
            assert ids[1:4] == multi + [0] * (3 - len(multi))
            hashed = row["h"] or []
            assert [5 <= x < 12 for x in ids[4:6]] == [len(hashed) > 0, len(hashed) > 1]
            assert hashed or ids[4:6] == [3, 0]
            assert ids[6] == (4 if row["n"] is None else 12 + sum(row["n"] >= edge for edge in edges))
        given = [rows[i] for i in mine]
        assert {count.field: count.missing for count in counts} == {
            name: sum(row[name] is None or row[name] == [] for row in given) for name in "vmhn"
        }
        assert {count.field: count.unknown for count in counts} == {
            "v": sum(row["v"] is not None and (0, row["v"]) not in known for row in given),
            "m": sum(any((1, value) not in known for value in (row["m"] or [])[:3]) for row in given),
            "h": 0,
            "n": 0,
        }
        assert out.ids.dtype == np.int32
        assert out.ids.max() < sizes[b]
    assert ids_after(vocabulary, SCHEMA, len(sizes)).tolist() == sizes
    assert named(vocabulary) == [("vm"[f], value) for f, value in known]


def test_a_longer_log_keeps_the_ids_of_a_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"t": i, "u": 1, "y": 0, "z": 0, "v": str(rng.integers(30)), "m": [str(rng.integers(30))], "h": [], "n": 0.0}
        for i in range(200)
    ]
    block = np.arange(200) // 40
    _, counts = keyed(canon(rows), SCHEMA, block, 0)
    assert {table.schema for table in counts} == {COUNTS}
    whole, _ = numbered([counts], SCHEMA, 5)
    short, _ = numbered([keyed(canon(rows[:120]), SCHEMA, block[:120], 0)[1]], SCHEMA, 3)
    assert whole.slice(0, len(short)).equals(short)
    assert len(whole) > len(short)
    shuffled = [table.take(rng.permutation(len(table))) for table in counts]
    assert numbered([[merge_counts(shuffled)]], SCHEMA, 5)[0].equals(whole)
    # Divided into ranges of keys, runs and chunks as small as can be, and with other keys, it is the same.
    monkeypatch.setattr(numbering, "RANGE_BYTES", 500)
    monkeypatch.setattr(numbering, "CHUNK_BYTES", 100)
    monkeypatch.setattr(value_counts, "BUFFER_BYTES", 300)
    for salt in (0, 1):
        parts = [keyed(canon(rows[at : at + 20]), SCHEMA, block[at : at + 20], salt)[1] for at in range(0, 200, 20)]
        divided, index = numbered(parts, SCHEMA, 5)
        assert divided.equals(whole)
        assert [
            int(index.of(value_counts.keys_of(pa.array([text]), name, salt))[0]) for name, text in named(whole)
        ] == whole["id"].to_pylist()
        assert index.of(value_counts.keys_of(pa.array(["none"]), "v", salt)).tolist() == [-1]


def named(vocabulary: pa.Table) -> list[tuple[str, str]]:
    return list(zip(vocabulary["field"].to_pylist(), vocabulary["value"].to_pylist(), strict=True))


def test_sequences_have_the_ids_of_their_field() -> None:
    """Plain: 1 to 6 are the unknown of a[0], a[1], v, b, h and g, 7 to 9 the buckets of h; then v's values as blocks bring them."""
    sequence = {"kind": "sequence", "length": 2, "column": "past"}
    fields = [
        {"name": "a", **sequence, "of": "v", "pool": "none"},
        {"name": "v", "kind": "vocabulary", "min_count": 2},
        {"name": "b", **sequence, "of": "v"},
        {"name": "h", "kind": "hashed", "buckets": 3, "column": "v"},
        {"name": "g", **sequence, "of": "h"},
    ]
    schema = Schema.model_validate({**SCHEMA.model_dump(mode="json"), "tasks": ["y"], "fields": fields})
    rows = {
        "t": [4, 3, 2, 1, 0],
        "u": [0] * 5,
        "y": [0] * 5,
        "v": ["x", "x", "rare", "y", "y"],
        "past": [["x"], None, ["z", "rare"], ["old", "y", "x"], []],
    }
    types = pa.schema([*((c, pa.int64()) for c in "tuy"), ("v", pa.string()), ("past", pa.list_(pa.string()))])
    table = canonical(pa.table(rows, types), schema, Origin("f", np.arange(5)))
    block = np.array([0, 0, 0, 1, 1])
    table, counted = keyed(table, schema, block, 0)
    vocabulary, index = numbered([counted], schema, 2)
    # What only histories hold gets no id, nor does what is rare.
    assert vocabulary.to_pylist() == [
        {"field": "v", "value": "x", "id": 10, "block": 0},
        {"field": "v", "value": "y", "id": 11, "block": 1},
    ]
    encoder, row_id = Encoder(schema, index, Edges(edges={})), np.arange(5)
    both = encoder.encode(table, np.full(5, 1), row_id)[0].ids
    hashed = {value: both[row, 5] for row, value in enumerate(["y", "y", "rare", "x", "x"])}
    assert both[:, :5].tolist() == [
        [0, 0, 11, 0, 0],
        [10, 11, 11, 10, 11],
        [1, 2, 3, 4, 4],
        [0, 0, 10, 0, 0],
        [10, 0, 10, 10, 0],
    ]
    assert [row[:1] for row in both[:, 6:].tolist()] == [[0], [hashed["x"]], [hashed["rare"]], [0], [hashed["x"]]]
    assert both[1, 7] == hashed["y"]
    first = encoder.encode(table, np.zeros(5, np.int64), row_id)[0].ids
    assert first[1, :2].tolist() == [10, 2]  # y enters with the block after
    # Rows of several blocks at once, as tiny blocks are encoded: each knows what its own block knows.
    mixed = encoder.encode(table, np.array([1, 0, 1, 0, 0]), row_id)[0].ids
    assert mixed.tolist() == np.where(np.array([0, 0, 1, 0, 1])[:, None] == 1, both, first).tolist()


def test_first_slots() -> None:
    assert first_slots(SCHEMA).tolist() == [0, 1, 4, 6]


def test_too_many_ids() -> None:
    huge = SCHEMA.model_copy(
        update={"fields": [*SCHEMA.fields, *(HashedField(name=f"x{i}", buckets=2**30) for i in "ab")]}
    )
    with pytest.raises(SchemaError, match="more than 2\\^31"):
        numbered([], huge, 1)


def test_schema_without_vocabulary() -> None:
    plain = SCHEMA.model_copy(update={"fields": SCHEMA.fields[2:]})
    table = canonical(
        pa.Table.from_pylist([{"t": 1, "u": 1, "y": 0, "z": 1, "v": None, "m": None, "h": ["a"], "n": 1.0}], KINDS),
        plain,
        Origin("f", np.arange(1)),
    )
    table, counts = keyed(table, plain, np.zeros(1, np.int64), 0)
    assert counts == []
    vocabulary, index = numbered([counts], plain, 6)
    assert len(vocabulary) == 0
    assert ids_after(vocabulary, plain, 6).tolist() == [14] * 6 == [plain.first_static_id[-1]] * 6
    encoder = Encoder(plain, index, Edges(edges={"n": []}))
    assert encoder.encode(table, np.zeros(1, np.int64), np.zeros(1, np.int64))[0].ids[0, 2] == 10


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(2, 20))
@settings(deadline=None)
def test_quantile_edges_balance_distinct_values(values: list[float], buckets: int) -> None:
    edges = fit_edges(np.array(values), NumericField(name="n", buckets=buckets))
    assert edges == sorted(set(edges))
    assert len(edges) <= buckets - 1
    assert min(values) <= edges[0]
    assert edges[-1] <= max(values)
    distinct = np.arange(0.0, 997)
    filled = np.bincount(
        np.searchsorted(fit_edges(distinct, NumericField(name="n", buckets=buckets)), distinct, "right")
    )
    assert len(filled) == buckets
    assert filled.max() - filled.min() <= 1


def test_log_edges() -> None:
    field = NumericField(name="n", buckets=3, transform="log")
    edges = fit_edges(np.array([0.0, 999.0]), field)
    np.testing.assert_allclose(edges, [9.0, 99.0])
    assert fit_edges(np.array([-3.0, -2.0]), field) == [0.0]


def test_a_numeric_field_without_values_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"'n' has no value in the first block"):
        fit_edges(np.zeros(0), NumericField(name="n", buckets=3))
