import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError, ConfigError
from diet_ray.logs.readers import READERS, published
from diet_ray.logs.readers.clock import DAY_MS, hour_and_weekday, spread
from diet_ray.logs.readers.lookup import Lookup
from diet_ray.logs.readers.published import count_lines, locate, read_rows, read_table, write_rows
from diet_ray.logs.readers.spill import Spill

TYPES = {"a": pa.int64(), "b": pa.string()}


def test_columns_are_found_by_a_header_whatever_its_order(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('b ,c,a\n"x, y",?,1\nNULL,?,\n')
    assert read_table(path, TYPES, missing=["NULL"]).to_pydict() == {"a": [1, None], "b": ["x, y", None]}
    assert read_table(path, TYPES)["b"].to_pylist() == ["x, y", "NULL"]


@pytest.mark.parametrize(
    ("text", "layout", "a", "b"),
    [
        (b'1\t"x\n2\t\n', {"delimiter": "\t"}, [1, 2], ['"x', None]),
        (b"1::x:y\n2::z\n", {"delimiter": "::"}, [1, 2], ["x:y", "z"]),
        (b"1|caf\xe9\n", {"delimiter": "|", "encoding": "latin-1"}, [1], ["café"]),
        (b"1::caf\xe9\n", {"delimiter": "::", "encoding": "latin-1"}, [1], ["café"]),
        (b"1,x\r\n2,y\r\n", {}, [1, 2], ["x", "y"]),
    ],
)
def test_layouts_without_a_header(
    tmp_path: Path, text: bytes, layout: dict[str, str], a: list[int], b: list[str]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(text)
    assert read_table(path, TYPES, names=["a", "b"], **layout).to_pydict() == {"a": a, "b": b}


def test_batches_of_a_packed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_BLOCK_BYTES", 1000)
    text = "a,b\n" + "".join(f"{row},{row % 7}\n" for row in range(2000))
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text.encode()))
    batches = list(read_rows(tmp_path / "x.csv.gz", TYPES))
    assert len(batches) > 5
    assert pa.concat_tables(batches)["a"].to_pylist() == list(range(2000))
    assert count_lines(tmp_path / "x.csv.gz") == 2001
    (tmp_path / "y").write_text(text.rstrip("\n"))
    assert count_lines(tmp_path / "y") == 2001


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(
    ("line", "what"),
    [("1,2,3", r"Expected 2 columns, got 3"), ("1", "Expected 2 columns, got 1"), ("one,2", "invalid value 'one'")],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bool, line: str, what: str
) -> None:
    monkeypatch.setattr(published, "_BLOCK_BYTES", 200)
    lines = ["a,b"] * header + [f"{row},x" for row in range(500)]
    lines[444] = line
    (tmp_path / "x.csv").write_text("\n".join(lines))
    with pytest.raises(BadInputError, match=rf"x\.csv: cannot be read.* line 445: .*{what}"):
        list(read_rows(tmp_path / "x.csv", TYPES, names=None if header else ["a", "b"]))
    lines[444] = ",x"
    (tmp_path / "x.csv").write_text("\n".join(lines))
    with pytest.raises(BadInputError, match=r"x\.csv, column 'a': line 445 has no value"):
        list(read_rows(tmp_path / "x.csv", TYPES, names=None if header else ["a", "b"], required=["a"]))


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,c\n1,2\n")
    with pytest.raises(BadInputError, match=r"x\.csv, column 'b': column is missing .*the file has a, c"):
        read_table(tmp_path / "x.csv", TYPES)
    with pytest.raises(BadInputError, match=r"gone\.csv: cannot be read"):
        read_table(tmp_path / "gone.csv", TYPES)
    with pytest.raises(BadInputError, match=r"gone: cannot be read"):
        count_lines(tmp_path / "gone")
    packed = gzip.compress(b"a,b\n" + b"1,x\n" * 9999)
    (tmp_path / "half.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadInputError, match=r"half\.csv\.gz: cannot be read"):
        read_table(tmp_path / "half.csv.gz", TYPES)
    (tmp_path / "y.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(BadInputError, match=r"y\.csv: cannot be read.*UTF"):
        read_table(tmp_path / "y.csv", TYPES)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"empty\.csv, column 'a'"):
        read_table(tmp_path / "empty.csv", TYPES)


def test_locate(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("")
    assert locate(tmp_path, ["a", "b"], "log") == tmp_path / "b"
    assert locate(tmp_path / "b", ["a"], "log") == tmp_path / "b"
    with pytest.raises(BadInputError, match="holds no a or c"):
        locate(tmp_path, ["a", "c"], "log")
    with pytest.raises(ConfigError, match="log: give the folder of the published files with --from"):
        locate(None, ["a"], "log")


@pytest.mark.parametrize("name", [name for name in READERS if name != "complete-journey"])
def test_every_log_says_what_it_needs(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--from"):
        READERS[name].prepare(None, tmp_path)
    with pytest.raises(BadInputError, match=r"holds no|no day_N"):
        READERS[name].prepare(tmp_path, tmp_path / "out")
    schema = READERS[name].schema
    outcomes = {
        "click",
        "clk",
        "nonclk",
        "rating",
        "liked",
        "behaviour",
        "action_type",
        "is_click",
        "long_view",
        "play_time_ms",
    }
    assert not outcomes & {field.source for field in schema.fields}
    assert schema.time.column not in schema.field_names
    assert schema.n_fields > 4


def test_write_rows(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2]})
    path = write_rows(tmp_path / "deep" / "x.parquet", iter([table, table]))
    assert pq.read_table(path)["a"].to_pylist() == [1, 2, 1, 2]
    with pytest.raises(BadInputError, match="no row is left"):
        write_rows(tmp_path / "y.parquet", iter([]))


def test_spill_gives_back_the_rows_of_a_key_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    key, value = rng.integers(-3, 4, 500), np.arange(500)
    with Spill(tmp_path / "deep" / "spill") as spill:
        for at in range(0, 500, 70):
            spill.add(pa.table({"v": value[at : at + 70], "k": key[at : at + 70]}), key[at : at + 70])
        assert spill.keys == sorted(set(key.tolist()))
        for kind in reversed(spill.keys):
            assert spill.read(kind)["v"].to_pylist() == value[key == kind].tolist()
    assert not list((tmp_path / "deep").iterdir())
    with Spill(tmp_path / "spill") as spill:
        assert spill.keys == []


def test_lookup(tmp_path: Path) -> None:
    table = pa.table({"k": [30, 10, 20], "x": ["c", None, "b"], "n": [3, 1, 2]})
    found = Lookup(table, "k", tmp_path)(np.array([20, 5, 30, 10, 99]))
    assert {name: values.to_pylist() for name, values in found.items()} == {
        "x": ["b", None, "c", None, None],
        "n": [2, None, 3, 1, None],
    }
    empty = Lookup(table.slice(0, 0), "k", tmp_path)(np.array([20]))
    assert empty["x"].to_pylist() == [None]
    with pytest.raises(BadInputError, match="column 'k': 10 is there twice"):
        Lookup(pa.table({"k": [10, 5, 10]}), "k", tmp_path)
    with pytest.raises(BadInputError, match="column 'k': a key is missing"):
        Lookup(pa.table({"k": [10, None]}), "k", tmp_path)


def test_clock() -> None:
    stamps = np.array(
        [0, 1_511_539_200_000 - 1, 1_511_539_200_000]
    )  # the last is midnight before 25 Nov 2017 in Shanghai
    local = hour_and_weekday(stamps, "Asia/Shanghai")
    assert local["hour"].tolist() == [8, 23, 0]
    assert local["weekday"].tolist() == [3, 4, 5]
    moments = spread(np.arange(1000), per_second=10, seconds=60)
    assert (moments[0], moments[1], moments[10], moments[-1]) == (0, 100, 1000, 59_999)
    assert (np.diff(moments) >= 0).all()
    assert spread(np.array([259_200_000]), per_second=3000, seconds=DAY_MS // 1000).tolist() == [DAY_MS - 1]
