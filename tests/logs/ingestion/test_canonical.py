import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.canonical import canonical, pick
from diet_ray.logs.ingestion.categories import stable_hash
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.times import read_time
from diet_ray.schema import Schema, Time
from tests.support import corpus

GOOD = {name: corpus.GOOD[name] for name in "tuyabc"}


def schema(**field: Any) -> Schema:
    fields = [
        {"name": "a", "kind": "hashed", "buckets": 100},
        {"name": "b", "kind": "numeric", "buckets": 4},
        {"name": "c", "kind": "vocabulary", **field},
    ]
    raw = {"name": "s", "time": {"column": "t", "unit": "ms"}, "user": "u", "tasks": ["y"], "fields": fields}
    return Schema.model_validate(raw)


def canon(columns: dict[str, Any], of: Schema | None = None) -> pa.Table:
    table = pa.table(columns)
    return canonical(table, of or schema(), Origin("in.csv", np.arange(100, 100 + len(table))))


def categories(values: pa.Array, **field: Any) -> list[list[str | None]]:
    """The slots of field `c` over `values`."""
    n = len(values)
    columns = {"t": range(n), "u": range(n), "y": [0] * n, "a": range(n), "b": [0.0] * n, "c": values}
    of = schema(**field)
    table = canon({k: v if isinstance(v, pa.Array) else list(v) for k, v in columns.items()}, of)
    return [table[f"slot.{2 + k}"].to_pylist() for k in range(of.fields[2].max_values)]


def test_form_of_a_good_table() -> None:
    table = canon(GOOD)
    assert table.column_names == ["time", "user", "label.0", "slot.0", "slot.1", "slot.2"]
    texts = pa.dictionary(pa.int32(), pa.string())
    assert table.schema.types == [pa.int64(), pa.int64(), pa.uint8(), pa.int32(), pa.float64(), texts]
    assert table["slot.1"].to_pylist() == [1.5, None, 2.5]
    assert table["slot.2"].to_pylist() == ["x", None, "z"]
    low, high = schema().first_static_id[:2]
    assert all(low <= i < high for i in table["slot.0"].to_pylist())
    assert all(user >= 0 for user in table["user"].to_pylist())


def test_negative_codes_are_allowed_where_the_schema_says_so() -> None:
    assert categories(pa.array([-1, 5]), allow_negative=True) == [["-1", "5"]]


@pytest.mark.parametrize(
    "labels", [[0, 1, 0], [0.0, 1.0, 0.0], [False, True, False], ["0", "1", "0"], ["false", "True", "0.0"]]
)
def test_labels_of_all_kinds(labels: list[Any]) -> None:
    assert canon({**GOOD, "y": labels})["label.0"].to_pylist() == [0, 1, 0]


FIVES = [
    pa.array([5, None], pa.int8()),
    pa.array([5, None], pa.uint64()),
    pa.array([5.0, None]),
    pa.array(["5", None]),
    pa.array(["5.0", None]),
    pa.array(["5", None], pa.large_string()),
    pa.array(["5", None]).dictionary_encode(),
]


@pytest.mark.parametrize("five", FIVES, ids=lambda a: str(a.type))
def test_one_value_in_all_types_has_one_text_one_hash_one_user(five: pa.Array) -> None:
    assert categories(five) == [["5", None]]
    a, user = ({**GOOD, k: pa.concat_arrays([five.slice(0, 1)] * 3)} for k in ("a", "u"))
    assert canon(a)["slot.0"] == canon({**GOOD, "a": [5, 5, 5]})["slot.0"]
    assert canon(user)["user"] == canon({**GOOD, "u": [5, 5, 5]})["user"]


def test_texts_that_only_look_alike_stay_apart() -> None:
    assert categories(pa.array(["05", "5", "5.5", "-0.5", " 5", "1e3", "5.50"])) == [
        ["05", "5", "5.5", "-0.5", " 5", "1e3", "5.50"]
    ]
    assert categories(pa.array([True, False])) == [["1", "0"]]
    assert categories(pa.array([0.25, 2.0**52])) == [["0.25", str(2**52)]]


def test_picking_from_types_of_which_arrow_cannot_pick_itself() -> None:
    views, structs = (
        pa.array(["x", None, "z"], pa.string_view()),
        pa.array([{"k": "x"}] * 3, pa.struct({"k": pa.string_view()})),
    )
    lists = pa.array([["x"], None, []], pa.list_(pa.string_view()))
    table, origin = pick(pa.table({"v": views, "l": lists}), np.array([2, 0]), Origin("f", np.array([5, 6, 7])))
    assert table.to_pydict() == {"v": ["z", "x"], "l": [[], ["x"]]}
    assert origin.rows.tolist() == [7, 5]
    with pytest.raises(BadInputError, match="'s': cannot be used"):
        pick(pa.table({"s": structs}), np.array([0]), origin)


def test_a_column_without_any_value() -> None:
    assert categories(pa.nulls(2), max_values=2) == [[None, None], [None, None]]
    table = canon({**GOOD, "a": pa.nulls(3), "b": pa.nulls(3)})
    assert table["slot.0"].null_count == table["slot.1"].null_count == 3
    assert table.schema.field("slot.0").type == pa.int32()


LISTS = st.lists(
    st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from(["x", "y", "z", "7"])), max_size=5)), min_size=1
)


@given(LISTS, st.sampled_from([1, 2, 3]), st.sampled_from(["list", "large_list", "separator"]))
def test_multi_valued_against_plain_python(lists: list[list[str | None] | None], keep: int, how: str) -> None:
    # Nulls and empty texts in a list are no values.
    plain = [[v for v in values or [] if v is not None][:keep] for values in lists]
    expected = [[row[k] if k < len(row) else None for row in plain] for k in range(keep)]
    if how == "separator":
        text = [None if v is None else " | ".join(x or "" for x in v) for v in lists]
        assert categories(pa.array(text, pa.string()), max_values=keep, separator="|") == expected
    else:
        kind = pa.list_(pa.string()) if how == "list" else pa.large_list(pa.string())
        # Sliced, as batches of a file are: offsets then do not start at 0.
        array = pa.array([["w"], *lists, ["w"]], kind).slice(1, len(lists))
        assert categories(array, max_values=keep) == expected


def test_lists_of_fixed_size_and_errors_in_lists() -> None:
    fixed = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))
    assert categories(fixed, max_values=2) == [["1", None, "3"], ["2", None, None]]
    with pytest.raises(BadInputError, match=r"negative id -4 in row 101"):
        categories(pa.array([[1], [2, -4]]), max_values=2)
    with pytest.raises(BadInputError, match="list of single values"):
        categories(pa.array([[[1]], [[2]]]), max_values=2)
    with pytest.raises(BadInputError, match="separator"):
        categories(pa.array(["a,b", "c"]), max_values=2)
    with pytest.raises(BadInputError, match="text to split"):
        categories(pa.array([1, 2]), max_values=2, separator=",")


def sequence(values: pa.Array, of: dict[str, Any] | None = None, **field: Any) -> list[list[str | None]]:
    """The slots of a sequence `s` of the field `c` over `values`."""
    n = len(values)
    raw = schema().model_dump(mode="json")
    raw["fields"][2] |= of or {}
    raw["fields"].append({"name": "s", "kind": "sequence", "of": "c", "length": 3, **field})
    columns = {"t": range(n), "u": range(n), "y": [0] * n, "a": range(n), "b": [0.0] * n, "c": ["x"] * n}
    table = canon({**{k: list(v) for k, v in columns.items()}, "s": values}, Schema.model_validate(raw))
    return [table[name].to_pylist() for name in table.column_names[6:]]


@given(
    LISTS,
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["list", "large_list", "separator"]),
    st.sampled_from(["first", "last"]),
    st.sampled_from(["none", "mean"]),
)
def test_sequences_against_plain_python(
    lists: list[list[str | None] | None], length: int, how: str, newest: str, pool: str
) -> None:
    expected = [[None] * len(lists) for _ in range(length)]
    for row, values in enumerate(lists):
        # Nulls take no places: they are dropped before the list is cut.
        from_newest = [v for v in (reversed(values or []) if newest == "last" else values or []) if v is not None]
        for k, value in enumerate(from_newest[:length]):
            expected[k][row] = value
    keys = {"length": length, "newest": newest, "pool": pool}
    if how == "separator":
        text = [None if v is None else " | ".join(x or "" for x in v) for v in lists]
        assert sequence(pa.array(text, pa.string()), separator="|", **keys) == expected
    else:
        kind = pa.list_(pa.string()) if how == "list" else pa.large_list(pa.string())
        assert sequence(pa.array([["w"], *lists, ["w"]], kind).slice(1, len(lists)), **keys) == expected


def test_sequences_of_all_types_and_lengths() -> None:
    assert sequence(pa.array([[1, 2], None], pa.list_(pa.int64(), 2))) == [["2", None], ["1", None], [None, None]]
    assert sequence(pa.nulls(2)) == [[None, None]] * 3
    assert sequence(pa.array([[], []], pa.list_(pa.null()))) == [[None, None]] * 3
    # What is cut off is not even looked at: the text of two million values would take seconds.
    long = pa.array(np.arange(-1_000_000, 1_000_000))
    lists = pa.ListArray.from_arrays(pa.array([0, 2_000_000, 2_000_000]), long)
    assert sequence(lists) == [["999999", None], ["999998", None], ["999997", None]]
    assert sequence(pa.array([",".join(["y"] * 1_000_000) + ",5.0"]), separator=",", length=2) == [["5"], ["y"]]


def test_sequences_take_ids_from_their_field() -> None:
    hashed = {"kind": "hashed", "buckets": 50}
    table = sequence(pa.array([["x"], ["y"]]), hashed, length=1)
    first = schema(**hashed).first_static_id[2] + 1  # the sequence's own unknown comes first
    assert table == [[int(first + stable_hash(np.array([v], object), "c")[0] % 50) for v in "xy"]]
    assert sequence(pa.array([[-4]]), {"allow_negative": True}) == [["-4"], [None], [None]]


def test_bad_sequences() -> None:
    with pytest.raises(BadInputError, match=r"negative id -4 in row 101"):
        sequence(pa.array([[1], [-4, 2]]))
    with pytest.raises(
        BadInputError, match="'s': has type string, a list or a separator is needed \\(set separator\\)"
    ):
        sequence(pa.array(["a,b"]), length=1)
    with pytest.raises(BadInputError, match="list of single values"):
        sequence(pa.array([[[1]]]))
    with pytest.raises(BadInputError, match="text to split"):
        sequence(pa.array([1]), separator=",")


def test_values_beneath_a_null_list_are_none() -> None:
    kind = pa.list_(pa.string())
    beneath = pa.Array.from_buffers(
        kind,
        2,
        [pa.py_buffer(b"\x02"), pa.array([0, 2, 3], pa.int32()).buffers()[1]],
        children=[pa.array(["u", "v", "w"])],
    )
    assert beneath.to_pylist() == [None, ["w"]]
    assert categories(beneath, max_values=2) == [[None, "w"], [None, None]]
    assert sequence(beneath, length=2) == [[None, "w"], [None, None]]


def times(values: Any, **time: Any) -> list[int]:
    table = pa.table({"t": values})
    stamp = read_time(table, Time(column="t", **time), Origin("f", np.arange(len(table))))
    assert stamp.dtype == np.int64
    return stamp.tolist()


@pytest.mark.parametrize(
    ("unit", "value"),
    [("s", 1_650_812_741), ("ms", 1_650_812_741_436), ("us", 1_650_812_741_436_999), ("ns", 1_650_812_741_436_999_999)],
)
def test_integer_epochs(unit: str, value: int) -> None:
    expected = [1_650_812_741_436 if unit != "s" else 1_650_812_741_000]
    assert times([value], unit=unit) == expected
    assert times([str(value)], unit=unit) == expected
    if unit != "ns":  # more digits than a float holds
        assert times([float(value)], unit=unit) == expected
    with pytest.raises(BadInputError, match="outside 1970-2200"):
        times([value * 1000 if unit != "ns" else -1], unit=unit)


def test_timestamps_are_read_in_the_zone_unless_they_carry_one() -> None:
    wall = datetime.datetime(2022, 4, 25, 13, 45, 1, 250_000)
    utc = int(wall.replace(tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    shanghai = utc - 8 * 3_600_000
    assert times([wall], timezone="Asia/Shanghai") == [shanghai]
    assert times(pa.array([wall], pa.timestamp("ns", "UTC")), timezone="Asia/Shanghai") == [utc]
    texts = ["2022-04-25 13:45:01.250", "2022-04-25T13:45:01.25Z", "2022-04-25T13:45:01.250+08:00", "2022-04-25"]
    assert times(texts, timezone="Asia/Shanghai") == [
        shanghai,
        utc,
        shanghai,
        shanghai - (13 * 3600 + 45 * 60 + 1) * 1000 - 250,
    ]
    assert times([datetime.date(2022, 4, 25)]) == times(["2022-04-25"])


def test_the_hour_that_clocks_repeat_or_skip() -> None:
    first, skipped = times(["2022-10-30 02:30", "2022-03-27 02:30"], timezone="Europe/Paris")
    assert first == int(datetime.datetime(2022, 10, 30, 0, 30, tzinfo=datetime.UTC).timestamp() * 1000)
    assert skipped == int(datetime.datetime(2022, 3, 27, 1, 0, tzinfo=datetime.UTC).timestamp() * 1000)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_not_scaled_over_the_edge(unit: str) -> None:
    # 2**62 seconds come back as 0 where they are multiplied by 1000; 2**62 nanoseconds are in the year 2116.
    for far in (2**63 - 1, -(2**62), *([] if unit == "ns" else [2**62])):
        values = pa.array([0, far]).view(pa.timestamp(unit))
        with pytest.raises(BadInputError, match="outside 1970-2200 in row 1"):
            times(values)
        with pytest.raises(BadInputError, match="outside 1970-2200 in row 1"):
            times(values.view(pa.timestamp(unit, "UTC")))


def test_bad_timestamps() -> None:
    with pytest.raises(BadInputError, match=r"no ISO 8601 time in row 1"):
        times(["2022-04-25", "yesterday"])
    with pytest.raises(BadInputError, match=r"no ISO 8601 time in row 0"):
        times(["2022-13-25T00:00Z", "2022-04-25"])
    with pytest.raises(BadInputError, match=r"set time\.unit to s, ms"):
        times([1, 2])


def test_hash_is_pinned() -> None:
    """Stored logs depend on it: if this fails, the log's format version must go up."""
    texts = np.array(["5", "x"], object)
    assert stable_hash(texts, "a").tolist() == [6017589726240150980, 14031313222174240202]
    assert stable_hash(texts, "b").tolist() != stable_hash(texts, "a").tolist()
    assert stable_hash(np.array([], object), "a").dtype == np.uint64
