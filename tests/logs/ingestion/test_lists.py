"""Lists as other systems write them: histories with separators, nulls or padding at their ends, lists in brackets as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.ingest import ingest
from tests.logs.ingestion.test_values import canon, make_schema, table

LISTS = pa.list_(pa.string())


def kept(items: list[Any], form: str, **keys: Any) -> list[str | None]:
    """The slots of a list of one row, as a list or as text with a separator."""
    field = {"name": "h", **keys}
    if form == "text":
        field["separator"] = "|"
        column = pa.array(["|".join("" if item is None else str(item) for item in items)])
    else:
        column = pa.array(
            [items], pa.list_(pa.string() if any(isinstance(item, str) for item in items) else pa.int64())
        )
    schema = make_schema(field)
    rows = canon(schema, table(1, h=column))[0]
    return [value for name in rows.column_names[5:] for value in rows[name].to_pylist()]


SEQUENCE = {"kind": "sequence", "of": "c", "length": 2}


@pytest.mark.parametrize("form", ["list", "text"])
@pytest.mark.parametrize(
    ("items", "newest_last", "newest_first"),
    [
        (["a", "b", "c", ""], ["c", "b"], ["a", "b"]),
        (["", "a", "b", "c"], ["c", "b"], ["a", "b"]),
        (["a", "", "", "b", "", "", "c"], ["c", "b"], ["a", "b"]),
        (["a", "b"] + [""] * 300, ["b", "a"], ["a", "b"]),
        ([""] * 300 + ["a"], ["a", None], ["a", None]),
        ([None, "a", None, None, "b", None], ["b", "a"], ["a", "b"]),
        (["", ""], [None, None], [None, None]),
    ],
)
def test_what_is_no_item_takes_no_place(
    items: list[Any], newest_last: list[str | None], newest_first: list[str | None], form: str
) -> None:
    assert kept(items, form, **SEQUENCE) == newest_last
    assert kept(items, form, **SEQUENCE, newest="first") == newest_first
    assert kept(items, form, kind="vocabulary", max_values=2) == newest_first


@pytest.mark.parametrize("form", ["list", "text"])
def test_padding_is_no_item(form: str) -> None:
    assert kept([3, 4, 5, 0, 0, 0, 0], form, **SEQUENCE) == ["0", "0"]
    for padding in (0, "0", 0.0):
        assert kept([3, 4, 5, 0, 0, 0, 0], form, **SEQUENCE, padding=padding) == ["5", "4"]
    assert kept([0, 0, 3, 4, 0, 5], form, **SEQUENCE, padding=0, newest="first") == ["3", "4"]
    assert kept([0] * 200 + [7], form, **SEQUENCE, padding=0, newest="first") == ["7", None]
    assert kept([-1, 3, -1, 4], form, kind="vocabulary", max_values=2, padding=-1) == ["3", "4"]
    assert kept(["PAD", "a", "PAD"], form, **SEQUENCE, padding="PAD") == ["a", None]
    assert kept(["0.0", "a", "0.5", "0"], form, **SEQUENCE, padding=0) == ["0.5", "a"]


def test_padding_in_floats_and_nulls_in_lists() -> None:
    schema = make_schema({"name": "h", **SEQUENCE, "padding": "0"}, nulls=["", "NULL"])
    for column in (pa.array([[5.0, 7.0, 0.0, None]]), pa.array([["5", "7", "NULL", "0.0", ""]])):
        rows, notes = canon(schema, table(1, h=column))
        assert [rows[f"slot.{slot}"].to_pylist() for slot in (2, 3)] == [["7"], ["5"]]
        assert notes == []
    _, notes = canon(make_schema({"name": "h", **SEQUENCE}), table(2, h=pa.array([["5", "", ""], ["7", "NULL"]])))
    assert notes[0] == "h: '' read as no value (schema key nulls), 1 rows (first in f)"
    assert notes[1].startswith("h: 'NULL' read as a value")


def test_rows_that_need_a_second_look_keep_their_place() -> None:
    lists = [["a"] + [""] * 50, None, ["b", "c"], [""] * 9, ["d", ""] * 20, ["e"]]
    schema = make_schema({"name": "h", **SEQUENCE}, nulls=[""])
    rows, _ = canon(schema, table(6, h=pa.array(lists, LISTS)))
    assert rows["slot.2"].to_pylist() == ["a", None, "c", None, "d", "e"]
    assert rows["slot.3"].to_pylist() == [None, None, "b", None, "d", None]


BRACKETS = [
    "['new', 'sale']",
    "[new, sale]",
    "['new']",
    "[new]",
    "{new,sale}",
    '["new","sale"]',
    "('new', 'sale')",
    "[[1], [2]]",
    "[]",
    "{}",
]


@pytest.mark.parametrize("text", BRACKETS)
def test_lists_in_brackets_are_not_split(text: str, tmp_path: Path) -> None:
    for field in ({"kind": "vocabulary", "max_values": 2}, {"kind": "sequence", "of": "c", "length": 2}):
        schema = make_schema({"name": "h", "separator": ",", **field})
        with pytest.raises(BadInputError, match=r"'h': text .*, a list in brackets, in row 1.*such as new,sale"):
            canon(schema, table(2, h=["new,sale", text]))
    with pytest.raises(BadInputError, match="the values alone with a separator"):
        canon(make_schema({"name": "h", "kind": "vocabulary", "max_values": 2}), table(2, h=["new", text]))
    quoted = '"' + text.replace('"', '""') + '"'
    (tmp_path / "x.csv").write_text(f"t,u,y,c,p,h\n1,1,0,x,0.5,{quoted}\n")
    schema = make_schema({"name": "h", "kind": "vocabulary", "max_values": 2, "separator": ","})
    with pytest.raises(BadInputError, match=r"x\.csv, column 'h': text .*, a list in brackets"):
        ingest(schema, [tmp_path / "x.csv"], tmp_path / "log", by="day")


def test_brackets_that_are_part_of_values() -> None:
    schema = make_schema({"name": "h", "kind": "vocabulary", "max_values": 2, "separator": "|"})
    rows, notes = canon(schema, table(3, h=["[a]|[b]", "(no genres listed)", "x [1]"]))
    assert [rows[f"slot.{slot}"].to_pylist() for slot in (2, 3)] == [
        ["[a]", "(no genres listed)", "x [1]"],
        ["[b]", None, None],
    ]
    assert notes == []


def test_lists_in_fields_of_one_value_are_told() -> None:
    texts = ["['new', 'sale']", "{a,b}", "[Untitled]", "(x)", "x"]
    rows, (note,) = canon(make_schema(), table(5, c=texts))
    assert rows["slot.0"].to_pylist() == texts
    assert note.startswith(
        "c: texts in brackets look like lists and are one value each; for several values, write a list, 2 rows"
    )
    rows, (note,) = canon(make_schema(), table(3, c=pa.array([["a", "b"], ["c"], None], LISTS)))
    assert rows["slot.0"].to_pylist() == ["a", "c", None]
    assert note.startswith("c: of several values in a list, the first one is read; for more, set max_values, 1 rows")
