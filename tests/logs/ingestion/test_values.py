"""Values as other systems write them: missing ones, ids that are floats or booleans, prices as decimals, bytes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.canonical import canonical
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.schema import Schema


def make_schema(*fields: dict[str, Any], **keys: Any) -> Schema:
    own = [{"name": "c", "kind": "vocabulary"}, {"name": "p", "kind": "numeric", "buckets": 4}]
    raw = {"name": "s", "time": {"column": "t", "unit": "s"}, "user": "u", "tasks": ["y"], "fields": [*own, *fields]}
    return Schema.model_validate({**raw, **keys})


def table(n: int, **columns: Any) -> pa.Table:
    plain = {"t": list(range(n)), "u": [1] * n, "y": [0] * n, "c": ["x"] * n, "p": [0.5] * n}
    return pa.table({**plain, **columns})


def canon(schema: Schema, columns: pa.Table) -> tuple[pa.Table, list[str]]:
    """The canonical form, and the notes."""
    origin = Origin("f", np.arange(len(columns)), nulls=tuple(schema.nulls))
    return canonical(columns, schema, origin), [str(note) for note in origin.notes]


def ids(schema: Schema, source: Path, out: Path) -> list[str | None]:
    """The values of field `c` of all rows of a log made from a source, by way of their ids; None for `unknown`."""
    ingest(schema, [source], out, by=10**6)
    log = open_log(out)
    values = {row["id"]: row["value"] for row in pq.read_table(out / "vocabulary.parquet").to_pylist()}
    return [values.get(id_) for block in log.blocks for id_ in log.read_block(block).ids[:, 0].tolist()]


def as_parquet(folder: Path, columns: pa.Table) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns, folder / "x.parquet")
    return folder


def as_csv(folder: Path, cells: list[str]) -> Path:
    folder.mkdir(parents=True)
    lines = [f"{row},1,0,{cell},0.5" for row, cell in enumerate(cells)]
    (folder / "x.csv").write_text("\n".join(["t,u,y,c,p", *lines, ""]))
    return folder


def as_partitions(folder: Path, names: list[str]) -> Path:
    for row, name in enumerate(names):
        as_parquet(folder / f"{row}" / f"c={name}", table(1, t=[row]).drop_columns(["c"]))
    return folder


# --- missing values

NULL = "__HIVE_DEFAULT_PARTITION__"


@pytest.mark.parametrize(("nulls", "word"), [([""], "NULL"), (["", "NULL"], None), ([], "NULL")])
def test_one_rule_for_missing_values_in_all_sources(nulls: list[str], word: str | None, tmp_path: Path) -> None:
    schema = make_schema(nulls=nulls)
    empty = None if nulls else ""
    parquet = as_parquet(tmp_path / "p", table(4, c=["x", "", None, "NULL"]))
    assert ids(schema, parquet, tmp_path / "1") == ["x", empty, None, word]
    # CSV and folders have no other way to write a null.
    assert ids(schema, as_csv(tmp_path / "c", ["x", "", '""', "NULL"]), tmp_path / "2") == ["x", None, None, word]
    assert ids(schema, as_partitions(tmp_path / "h", ["x", "", NULL, "NULL"]), tmp_path / "3") == [
        "x",
        None,
        None,
        word,
    ]
    logs = [open_log(tmp_path / n) for n in "123"]  # notes without rows are about the buckets of so few prices
    notes = [[(note.column, note.what, note.rows) for note in log.notes if note.rows] for log in logs]
    listed = "['', 'NULL']" if nulls else "['NULL']"
    told = [("c", f"'NULL' read as a value; if it means no value, set nulls: {listed} in the schema", 1)] * bool(word)
    read = [("c", "'' read as no value (schema key nulls)", 1)] * (nulls == [""])
    assert notes == [[*read, *told], told, told]


def test_null_texts_of_all_roles() -> None:
    schema = make_schema(nulls=["", "-"])
    assert canon(schema, table(3, p=["", "1.5", "-"]))[0]["slot.1"].to_pylist() == [None, 1.5, None]
    for column, problem in (("t", "no time"), ("u", "no user"), ("y", "no label")):
        for text in ("", "-"):
            with pytest.raises(BadInputError, match=f"column '{column}': {problem} in row 1"):
                canon(schema, table(3, **{column: ["1", text, "1"]}))
    with pytest.raises(BadInputError, match=r"text 'NULL', where a number is needed.*nulls"):
        canon(schema, table(3, p=["1", "NULL", "2"]))


def test_anonymous_rows_are_not_one_user(tmp_path: Path) -> None:
    rows = table(2, u=["a", ""])
    for source in (as_parquet(tmp_path / "p", rows), as_parquet(tmp_path / "h" / "u=", rows.drop_columns(["u"]))):
        with pytest.raises(BadInputError, match="column 'u': no user"):
            ingest(make_schema(), [source], tmp_path / "log", by="day")


def test_null_words_are_told_of_and_not_changed() -> None:
    words = ["NULL", "null", r"\N", "None", "nan", "NaN", "N/A", "<NA>", "NA", "none"]
    rows, notes = canon(make_schema(), table(12, c=[*words, "null", "x"], u=[*words, "null", "x"]))
    assert rows["slot.0"].to_pylist() == [*words, "null", "x"]
    assert len(set(rows["user"].to_pylist())) == 11
    for column in "cu":
        told = {note.split("'")[1]: note for note in notes if note.startswith(f"{column}: ")}
        assert list(told) == ["NULL", "null", "None", "nan", "NaN", "N/A", "<NA>", r"\N"]
        assert (
            f"{column}: 'null' read as a value; if it means no value, set nulls: ['', 'null'] in the schema, 2 rows"
            in told["null"]
        )
        assert r"set nulls: ['', '\N'] in the schema, 1 rows" in told[r"\N"]
    assert canon(make_schema(nulls=["", *words]), table(2, c=["NULL", "x"]))[1] == []


# --- one value, one id


@pytest.mark.parametrize(
    ("cells", "columns"),
    [
        (["1", "0", "1"], [pa.array([True, False, True]), pa.array([1, 0, 1]), pa.array([1.0, 0.0, 1.0])]),
        (["true", "False", "TRUE"], [pa.array([True, False, True])]),
        (["5", "5.0", "5.00"], [pa.array([5, 5, 5], pa.uint64()), pa.array([Decimal("5.00")] * 3)]),
        (["1.2345678E7", "1.5e-05", "1E+3"], [pa.array([12345678.0, 1.5e-5, 1000.0])]),
        (["1e5", "12e5", "5.50"], [pa.array(["1e5", "12e5", "5.50"])]),
        (
            [str(2**64 - 1), str(2**63), "7"],
            [pa.array([2**64 - 1, 2**63, 7], pa.uint64()), pa.array([Decimal(2**64 - 1), Decimal(2**63), Decimal(7)])],
        ),
    ],
)
def test_one_value_is_one_id_in_all_sources(cells: list[str], columns: list[pa.Array], tmp_path: Path) -> None:
    expected = canon(make_schema(), table(3, c=columns[0]))[0]["slot.0"].to_pylist()
    for number, column in enumerate(columns):
        assert (
            ids(make_schema(), as_parquet(tmp_path / f"p{number}", table(3, c=column)), tmp_path / f"{number}")
            == expected
        )
    assert ids(make_schema(), as_csv(tmp_path / "c", cells), tmp_path / "csv") == expected
    assert ids(make_schema(), as_partitions(tmp_path / "h", cells), tmp_path / "hive") == expected


def test_what_is_made_of_numbers_and_booleans_in_text_is_told() -> None:
    _, notes = canon(make_schema(), table(3, c=["1.0E5", "True", "x"]))
    assert notes == [
        "c: numbers with an exponent read by their value, 1.0E5 as 100000, 1 rows (first in f)",
        "c: true and false read as 1 and 0, 1 rows (first in f)",
    ]
    # Among numbers only: in a column of codes, 12e5 is one of them.
    assert "1e5 and the like read as text" in canon(make_schema(), table(3, c=["1e5", "7", "2.5"]))[1][0]
    assert canon(make_schema(), table(3, c=["1e5", "7", "ab"]))[1] == []
    assert "end in .0" in canon(make_schema(), table(1, c=["9007199254740992.0"]))[1][0]
    assert canon(make_schema(), table(1, c=["900719925474099.0"]))[1] == []


def test_floats_in_text_beyond_exactness() -> None:
    with pytest.raises(
        BadInputError, match=r"'c': '1e\+16', a float64 beyond 9007199254740992.*as integers or as text"
    ):
        canon(make_schema(), table(2, c=["7", "1e+16"]))


# --- prices


def test_a_price_is_one_number_as_decimal_as_float_and_as_text() -> None:
    cents = np.arange(1, 100_000)
    decimals = pa.array([Decimal(int(cent)).scaleb(-2) for cent in cents], pa.decimal128(10, 2))
    floats, texts = pa.array(cents / 100), decimals.cast(pa.string())
    assert decimals.cast(pa.float64()) != floats  # what makes it a test
    for column in (decimals, texts, decimals.cast(pa.decimal256(40, 2))):
        rows, notes = canon(make_schema(), table(len(cents), p=column))
        assert rows["slot.1"].combine_chunks() == floats
        assert notes == []


def test_bytes_are_read_as_text_and_told() -> None:
    rows, notes = canon(make_schema(), table(3, c=pa.array([b"x", None, b"5.0"]), p=pa.array([b"1", b"2.5", None])))
    assert [rows[f"slot.{slot}"].to_pylist() for slot in (0, 1)] == [["x", None, "5"], [1.0, 2.5, None]]
    assert notes == [f"{column}: bytes read as text in UTF-8, 2 rows (first in f)" for column in "cp"]


def test_rows_are_noted_once(tmp_path: Path) -> None:
    # The times are read twice: to find the blocks, and with the rows that stay.
    source = as_parquet(tmp_path / "p", table(4, t=pa.array([b"1", b"2", b"3", b"4"]), c=["a", "", "b", ""]))
    notes = ingest(make_schema(), [source], tmp_path / "log", by="day").notes
    assert [(note.column, note.rows) for note in notes if note.rows] == [("t", 4), ("c", 2)]


def test_missing_values_in_quarantine(tmp_path: Path) -> None:
    source = as_parquet(tmp_path / "p", table(4, u=["a", "-", "b", ""]))
    ingest(make_schema(nulls=["-"]), [source], tmp_path / "log", by="day", max_quarantined_rows=1)
    left_out = pq.read_table(tmp_path / "log" / "quarantine.parquet").to_pylist()
    assert [(row["row"], row["column"], row["reason"]) for row in left_out] == [(1, "u", "no user")]
