import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion import sources
from diet_ray.logs.ingestion.sources import Piece, find_pieces, read_piece
from diet_ray.storage import parquet as within

TABLE = pa.table({"a": list(range(10)), "b": [f"x{i}" for i in range(10)], "unused": [0.5] * 10})


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "p.parquet", row_group_size=4)
    return tmp_path / "p.parquet"


def everything(paths: list[Path], columns: list[str]) -> list[tuple[int, int]]:
    """(first row, rows) of every batch."""
    return [(first, len(t)) for piece in find_pieces(paths, columns) for first, t in read_piece(piece, columns)]


def test_parquet_pieces_are_row_groups(parquet: Path) -> None:
    assert find_pieces([parquet], ["a"]) == [
        Piece(path=str(parquet), kind="parquet", row_group=group, first_row=first)
        for group, first in enumerate([0, 4, 8])
    ]
    assert everything([parquet], ["b", "a"]) == [(0, 4), (4, 4), (8, 2)]
    first = next(read_piece(find_pieces([parquet], ["b", "a"])[1], ["b", "a"]))[1]
    assert first.to_pydict() == {"b": ["x4", "x5", "x6", "x7"], "a": [4, 5, 6, 7]}


def test_batches_are_bounded(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within, "BATCH_ROWS", 3)
    assert everything([parquet], ["a"]) == [(0, 3), (3, 1), (4, 3), (7, 1), (8, 2)]


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz"])
def test_csv_comes_as_text_with_empty_as_null(tmp_path: Path, name: str) -> None:
    text = 'a,b,c\n007,NA,1\n,"",2\n'
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    [piece] = find_pieces([tmp_path / name], ["b", "a"])
    [(first, table)] = read_piece(piece, ["b", "a"])
    assert first == 0
    assert table.to_pydict() == {"b": ["NA", None], "a": ["007", None]}


def test_batches_of_long_rows_are_shorter(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within, "BATCH_BYTES", 16)  # two integers
    assert everything([parquet], ["a"])[:2] == [(0, 2), (2, 2)]
    monkeypatch.setattr(within, "BATCH_BYTES", 1)
    assert everything([parquet], ["a"]) == [(row, 1) for row in range(10)]


def test_csv_is_streamed_and_types_may_change_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CSV_BYTES", 64)
    (tmp_path / "c.csv").write_text("a\n" + "".join(f"{i}\n" for i in range(100)) + "late\n")
    batches = [
        (first, t["a"].to_pylist()) for first, t in read_piece(Piece(path=str(tmp_path / "c.csv"), kind="csv"), ["a"])
    ]
    assert len(batches) > 3
    assert [value for _, values in batches for value in values] == [*map(str, range(100)), "late"]
    assert [first for first, _ in batches][1] == len(batches[0][1])


def test_folders_in_order_without_markers(tmp_path: Path) -> None:
    for rows, name in enumerate(("b.parquet", "a.parquet", "sub/c.parquet", "_x.parquet", ".y.parquet"), start=1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(TABLE.slice(0, rows), tmp_path / name)
    (tmp_path / "README.txt").write_text("x")
    found = [Path(piece.path).relative_to(tmp_path).as_posix() for piece in find_pieces([tmp_path], ["a"])]
    assert found == ["a.parquet", "b.parquet", "sub/c.parquet"]
    with pytest.raises(BadInputError, match="given twice"):
        find_pieces([tmp_path, tmp_path / "a.parquet"], ["a"])


def test_files_without_rows(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "p.parquet")
    (tmp_path / "c.csv").write_text("a,b\n")
    assert everything([tmp_path], ["a"]) == []


def test_mistakes_are_named(tmp_path: Path, parquet: Path) -> None:
    (tmp_path / "c.csv").write_text("a,b,b\n1,2,3\n")
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for path, words in [
        (tmp_path / "none.parquet", "no such file"),
        (tmp_path / "x.json", "of a kind that neither its name nor its first bytes tell"),
        (tmp_path / "empty", "without any Parquet, CSV, ORC or Avro"),
        (tmp_path / "c.csv", "'b': column is there twice"),
    ]:
        with pytest.raises(BadInputError, match=words) as caught:
            find_pieces([path], ["a", "b"])
        assert caught.value.file == str(path)
    for path in (parquet, tmp_path / "c.csv"):
        with pytest.raises(BadInputError, match=r"'z': column is missing .*the file has a, b"):
            find_pieces([path], ["a", "z"])


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_truncated_parquet(parquet: Path, keep: int) -> None:
    parquet.write_bytes(parquet.read_bytes()[:keep])
    with pytest.raises(BadInputError, match=r"p\.parquet: cannot be read.*truncated or damaged"):
        find_pieces([parquet], ["a"])


def test_damage_inside_a_parquet_file(parquet: Path) -> None:
    data = bytearray(parquet.read_bytes())
    data[4:60] = bytes(56)
    parquet.write_bytes(data)
    with pytest.raises(BadInputError, match=r"p\.parquet: row group 0 cannot be read"):
        everything([parquet], ["a"])


def test_equal_files_that_are_damaged_are_named_as_such(tmp_path: Path) -> None:
    for name in ("0.csv", "1.csv"):
        (tmp_path / name).write_text("a,b\n" + "1,2\n" * 400_000 + "1,2,3\n")  # behind what is read for the header
    with pytest.raises(BadInputError, match=r"1\.csv: cannot be read"):
        find_pieces([tmp_path], ["a"])


@pytest.mark.parametrize(
    "data", [b"", b"a,b\n1,2\n1,2,3\n", b"a,b\n1,\xff\xfe\n"], ids=["empty", "ragged", "not UTF-8"]
)
def test_damaged_csv(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.csv").write_bytes(data)
    with pytest.raises(BadInputError, match=r"c\.csv: cannot be read"):
        everything([tmp_path / "c.csv"], ["a", "b"])
