"""Every Arrow type in every role: the right value, or one error that names the column. The twin of the table in docs/your-log.md."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.canonical import canonical, pick
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from diet_ray.schema import Schema

D = Decimal
UUIDS = [uuid.UUID(int=0x6F1CD4A1_0000_4000_8000_00000000000A), uuid.UUID(int=2**128 - 1)]


@dataclass(frozen=True)
class Kind:
    """A type with two values, and what is made of them. Words instead of values are those of the refusal."""

    name: str
    make: Callable[[list[Any]], pa.Array]
    values: list[Any]
    texts: list[str] | str
    """As category, user, and item of a list."""
    numbers: list[float] | str
    bits: list[Any] | None = None
    """0 and 1 in the type, if it can be a label."""


def of(kind: pa.DataType) -> Callable[[list[Any]], pa.Array]:
    return lambda values: pa.array(values, kind)


def extension(kind: pa.DataType) -> Callable[[list[Any]], pa.Array]:
    return lambda values: pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


def dictionary(index: pa.DataType, value: pa.DataType) -> Callable[[list[Any]], pa.Array]:
    def make(values: list[Any]) -> pa.Array:
        distinct = list(dict.fromkeys(value for value in values if value is not None))
        codes = [None if value is None else distinct.index(value) for value in values]
        return pa.DictionaryArray.from_arrays(pa.array(codes, index), pa.array(distinct, value))

    return make


def runs(values: list[Any]) -> pa.Array:
    return pc.run_end_encode(pa.array(values, pa.string()))


NUMBER, TEXT, TYPE = "a number is needed", "is needed", "has type"
DAY, MOMENT = datetime.date(2024, 3, 4), datetime.datetime(2024, 3, 4, 5, 6, 7)
INDICES = (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64())
INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())

KINDS = [
    Kind("bool", of(pa.bool_()), [True, False], ["1", "0"], [1.0, 0.0], [False, True]),
    *(Kind(str(kind), of(kind), [5, 7], ["5", "7"], [5.0, 7.0], [0, 1]) for kind in INTEGERS),
    Kind("uint64 beyond int64", of(pa.uint64()), [2**64 - 1, 2**63], [str(2**64 - 1), str(2**63)], [2.0**64, 2.0**63]),
    Kind("int64 beyond floats", of(pa.int64()), [2**53 + 1, 2**53], [str(2**53 + 1), str(2**53)], [2.0**53, 2.0**53]),
    *(
        Kind(str(kind), of(kind), [5.0, 2.5], ["5", "2.5"], [5.0, 2.5], [0.0, 1.0])
        for kind in (pa.float16(), pa.float32(), pa.float64())
    ),
    Kind("float16 beyond ids", of(pa.float16()), [2048.0, 1.0], "float16 beyond 2048", [2048.0, 1.0]),
    Kind("float32 beyond ids", of(pa.float32()), [2.0**24, 1.0], "float32 beyond 16777216", [2.0**24, 1.0]),
    Kind("float64 beyond ids", of(pa.float64()), [2.0**53, 1.0], "float64 beyond 9007199254740992", [2.0**53, 1.0]),
    Kind("nan", of(pa.float64()), [float("nan"), 1.0], "NaN or infinity", "NaN or infinity"),
    *(
        Kind(str(kind), of(kind), [D("5.00"), D("9.90")], ["5", "9.9"], [5.0, 9.9], [D("0.00"), D("1.00")])
        for kind in (pa.decimal32(5, 2), pa.decimal64(12, 2), pa.decimal128(20, 2), pa.decimal256(60, 2))
    ),
    Kind(
        "decimal of scale 0",
        of(pa.decimal128(38, 0)),
        [D(10**30 + 1), D(5)],
        [str(10**30 + 1), "5"],
        [1e30, 5.0],
        [D(0), D(1)],
    ),
    Kind(
        "decimal beyond floats",
        of(pa.decimal128(30, 12)),
        [D("100000000000000000.1"), D("1e-7")],
        ["100000000000000000.1", "1e-07"],
        [1e17, 1e-7],
    ),
    *(
        Kind(str(kind), of(kind), ["5", "x"], ["5", "x"], "text 'x', where a number", ["0", "1"])
        for kind in (pa.string(), pa.large_string(), pa.string_view())
    ),
    Kind("numbers in text", of(pa.string()), ["5.0", " 2.50e0"], ["5", " 2.50e0"], [5.0, 2.5], ["0.0", "TRUE"]),
    Kind("booleans in text", of(pa.string()), ["true", "False"], ["1", "0"], [1.0, 0.0], ["False", "true"]),
    *(
        Kind(str(kind), of(kind), [b"5", b"x"], ["5", "x"], "text 'x', where a number", [b"0", b"1"])
        for kind in (pa.binary(), pa.large_binary(), pa.binary_view())
    ),
    Kind("fixed bytes", of(pa.binary(2)), [b"US", b"A\0"], ["US", "A"], "text 'US', where a number", [b"0\0", b"1\0"]),
    Kind("bytes of no text", of(pa.binary()), [b"\xff\x01", b"x"], "bytes that are no text", "bytes that are no text"),
    Kind(
        "fixed bytes of a number",
        of(pa.binary(4)),
        [b"\5\0\0\0", b"\0\0\0\0"],
        "bytes that are no text",
        "bytes that are no",
    ),
    Kind("uuid", extension(pa.uuid()), [u.bytes for u in UUIDS], [str(u) for u in UUIDS], "where a number"),
    Kind("json", extension(pa.json_()), ["5", "2.5"], ["5", "2.5"], [5.0, 2.5], ["0", "1"]),
    Kind("bool8", extension(pa.bool8()), [1, 0], ["1", "0"], [1.0, 0.0], [0, 1]),
    *(
        Kind(
            f"dictionary of {index}",
            dictionary(index, pa.string()),
            ["5", "x"],
            ["5", "x"],
            "text 'x', where",
            ["0", "1"],
        )
        for index in INDICES
    ),
    Kind(
        "dictionary of views", dictionary(pa.int8(), pa.string_view()), ["5", "7"], ["5", "7"], [5.0, 7.0], ["0", "1"]
    ),
    Kind(
        "dictionary of decimals",
        dictionary(pa.int8(), pa.decimal128(9, 1)),
        [D("5"), D("0.1")],
        ["5", "0.1"],
        [5.0, 0.1],
        [D(0), D(1)],
    ),
    Kind("dictionary of integers", dictionary(pa.uint16(), pa.int64()), [5, 7], ["5", "7"], [5.0, 7.0], [0, 1]),
    Kind("runs", runs, ["5", "7"], ["5", "7"], [5.0, 7.0], ["0", "1"]),
    Kind("date32", of(pa.date32()), [DAY, datetime.date(1999, 12, 31)], ["2024-03-04", "1999-12-31"], NUMBER),
    Kind("date64", of(pa.date64()), [DAY, datetime.date(1999, 12, 31)], ["2024-03-04", "1999-12-31"], NUMBER),
    Kind("timestamp", of(pa.timestamp("s")), [MOMENT, MOMENT], ["2024-03-04 05:06:07"] * 2, NUMBER),
    Kind("timestamp with a zone", of(pa.timestamp("s", "UTC")), [MOMENT, MOMENT], ["2024-03-04 05:06:07Z"] * 2, NUMBER),
    Kind("time32", of(pa.time32("s")), [datetime.time(1), datetime.time(2)], TEXT, NUMBER),
    Kind("time64", of(pa.time64("us")), [datetime.time(1), datetime.time(2)], TEXT, NUMBER),
    Kind("duration", of(pa.duration("s")), [1, 2], TEXT, NUMBER),
    Kind("interval", of(pa.month_day_nano_interval()), [pa.MonthDayNano([1, 2, 3])] * 2, TEXT, NUMBER),
    Kind("struct", of(pa.struct({"k": pa.int64()})), [{"k": 1}, {"k": 2}], TYPE, NUMBER),
    Kind(
        "nested struct",
        of(pa.struct({"k": pa.struct({"l": pa.int64()})})),
        [{"k": {"l": 1}}, {"k": None}],
        TYPE,
        NUMBER,
    ),
    Kind("map", of(pa.map_(pa.string(), pa.int64())), [[("k", 1)], []], TYPE, NUMBER),
]

LISTS = {
    "list": lambda items: pa.ListArray.from_arrays(pa.array([0, 3, 3, 3]), items, mask=pa.array([False, True, False])),
    "large list": lambda items: pa.LargeListArray.from_arrays(
        pa.array([0, 3, 3, 3]), items, mask=pa.array([False, True, False])
    ),
    "list view": lambda items: pa.ListViewArray.from_arrays(
        pa.array([0, 0, 0], pa.int32()), pa.array([3, 0, 0], pa.int32()), items, mask=pa.array([False, True, False])
    ),
    "large list view": lambda items: pa.LargeListViewArray.from_arrays(
        pa.array([0, 0, 3]), pa.array([3, 0, 0]), items, mask=pa.array([False, True, False])
    ),
}


def make_schema() -> Schema:
    fields = [
        {"name": "a", "kind": "vocabulary"},
        {"name": "b", "kind": "numeric", "buckets": 4},
        {"name": "c", "kind": "vocabulary", "max_values": 3},
        {"name": "s", "kind": "sequence", "of": "a", "length": 3},
    ]
    raw = {"name": "s", "time": {"column": "t", "unit": "ms"}, "user": "u", "tasks": ["y"], "fields": fields}
    return Schema.model_validate(raw)


def table(**columns: pa.Array) -> pa.Table:
    plain = {
        "t": [0] * 3,
        "u": [1] * 3,
        "y": [0] * 3,
        "a": ["x"] * 3,
        "b": [0.5] * 3,
        "c": [["x"]] * 3,
        "s": [["x"]] * 3,
    }
    return pa.table({**plain, **columns})


def read(columns: pa.Table) -> pa.Table:
    return canonical(columns, make_schema(), Origin("f", np.arange(3)))


def refusal(columns: pa.Table) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        read(columns)
    assert caught.value.remedy
    return caught.value


def check(array: pa.Array, column: str, wanted: Any, slots: slice) -> None:
    """Check what is made of a column, as it is and after rows were picked from it: its canonical columns, or words of its refusal."""
    if isinstance(wanted, str):
        error = refusal(table(**{column: array}))
        assert error.column == column
        assert wanted in str(error)
        return
    columns = table(**{column: array})
    picked, _ = pick(columns, np.arange(3), Origin("f", np.arange(3)))
    for form in (columns, picked):
        assert [values.to_pylist() for values in read(form).columns[slots]] == wanted


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_values(kind: Kind) -> None:
    first, second = kind.values
    array = kind.make([first, None, second])
    category = kind.texts if isinstance(kind.texts, str) else [[kind.texts[0], None, kind.texts[1]]]
    check(array, "a", category, slice(3, 4))
    numbers = kind.numbers if isinstance(kind.numbers, str) else [[kind.numbers[0], None, kind.numbers[1]]]
    check(array, "b", numbers, slice(4, 5))
    users = kind.make([first, first, second])
    as_text = None if isinstance(kind.texts, str) else pa.array([kind.texts[0], kind.texts[0], kind.texts[1]])
    check(users, "u", kind.texts if as_text is None else [read(table(u=as_text))["user"].to_pylist()], slice(1, 2))
    if as_text is not None:
        assert "no user in row 1" in str(refusal(table(u=array)))
    if kind.bits is None:
        error = refusal(table(y=users))
        assert error.column == "y"
        return
    check(kind.make([kind.bits[1], kind.bits[0], kind.bits[1]]), "y", [[1, 0, 1]], slice(2, 3))
    assert "no label in row 1" in str(refusal(table(y=array)))


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_items_of_lists(kind: Kind, form: str) -> None:
    first, second = kind.values
    lists = LISTS[form](kind.make([first, None, second]))
    if isinstance(kind.texts, str):
        for column in "cs":
            assert refusal(table(**{column: lists})).column == column
        return
    one, two = kind.texts
    check(lists, "c", [[one, None, None], [two, None, None], [None] * 3], slice(5, 8))
    check(lists, "s", [[two, None, None], [one, None, None], [None] * 3], slice(8, 11))
    for column in "uyb":
        assert refusal(table(**{column: lists})).column == column


def test_lists_of_fixed_size_and_views_after_a_null() -> None:
    fixed = pa.array([["x", "y"], None, ["z", None]], pa.list_(pa.string_view(), 2))
    views = pa.array([["w"], ["x", "y"], None, ["z"]], pa.list_view(pa.string())).slice(1)
    runs_inside = pa.ListArray.from_arrays([0, 2, 2, 3], runs(["x", "y", "z"]))
    for lists in (fixed, views, runs_inside):
        check(lists, "c", [["x", None, "z"], ["y", None, None], [None] * 3], slice(5, 8))
        check(lists, "s", [["y", None, "z"], ["x", None, None], [None] * 3], slice(8, 11))
    ids = pa.FixedSizeListArray.from_arrays(extension(pa.uuid())([u.bytes for u in UUIDS] * 3), 2)
    check(ids, "c", [[str(UUIDS[0])] * 3, [str(UUIDS[1])] * 3, [None] * 3], slice(5, 8))


NOT_WRITTEN = ("runs", "interval", "dictionary of views")
"""Types that Arrow cannot write as Parquet."""


@pytest.mark.parametrize("kind", [k for k in KINDS if k.name not in NOT_WRITTEN], ids=lambda kind: kind.name)
@pytest.mark.parametrize("store_schema", [True, False])
def test_what_parquet_gives_back(kind: Kind, store_schema: bool, tmp_path: Path) -> None:
    first, second = kind.values
    columns = table(a=kind.make([first, None, second]))
    pq.write_table(columns, tmp_path / "x.parquet", store_schema=store_schema)
    schema = make_schema()
    [piece] = find_pieces([tmp_path / "x.parquet"], schema.columns)
    [(_, back)] = read_piece(piece, schema.columns)
    if isinstance(kind.texts, str):
        # Without Arrow's schema, Parquet has no durations, but their integers.
        if kind.name != "duration" or store_schema:
            assert refusal(back).column == "a"
        return
    texts = read(back)["slot.0"].to_pylist()
    if pa.types.is_timestamp(back["a"].type):  # Parquet has no seconds
        texts = [text if text is None else text.replace(".000", "") for text in texts]
    assert texts == [kind.texts[0], None, kind.texts[1]]


ALL_NULL = [
    pa.null(),
    pa.bool_(),
    pa.int32(),
    pa.float64(),
    pa.string(),
    pa.binary(),
    pa.list_(pa.int8()),
    pa.duration("s"),
]


@pytest.mark.parametrize("kind", [*ALL_NULL, pa.struct({"k": pa.int8()}), pa.decimal128(9, 2)], ids=str)
def test_a_column_without_any_value_may_have_any_type(kind: pa.DataType) -> None:
    for column, slots, n in (
        ("a", slice(3, 4), 1),
        ("b", slice(4, 5), 1),
        ("c", slice(5, 8), 3),
        ("s", slice(8, 11), 3),
    ):
        check(pa.nulls(3, kind), column, [[None] * 3] * n, slots)
    assert "no user" in str(refusal(table(u=pa.nulls(3, kind))))
    assert "no label" in str(refusal(table(y=pa.nulls(3, kind))))
