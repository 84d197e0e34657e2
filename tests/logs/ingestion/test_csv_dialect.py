"""CSV as different systems write it: the right values, or a refusal that names the file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion import csv_dialect, sources
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from tests.logs.ingestion.test_ingest import make_schema, make_table
from tests.support.small_run import bytes_of


def read(path: Path, columns: list[str]) -> list[tuple[Any, ...]]:
    return [
        tuple(row.values())
        for piece in find_pieces([path], columns)
        for _, t in read_piece(piece, columns)
        for row in t.to_pylist()
    ]


def put(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_the_header_tells_the_delimiter(delimiter: str, name: str, tmp_path: Path) -> None:
    # The other delimiters are ordinary text, which a European export has in its numbers.
    other = next(each for each in ",;" if each != delimiter)
    lines = [["a", "b", "c"], ["1", f'"x{other}y"', "2"], ["3", f'"z{delimiter}"', "4"]]
    path = put(tmp_path / name, "\n".join(map(delimiter.join, lines)))
    assert read(path, ["c", "b"]) == [("2", f"x{other}y"), ("4", f"z{delimiter}")]


def test_the_comma_counts_where_several_fit_and_the_tab_in_a_tsv(tmp_path: Path) -> None:
    assert read(put(tmp_path / "x.csv", "a,b;c,d\n1,2;3,4\n"), ["a", "d"]) == [("1", "4")]
    assert read(put(tmp_path / "y.csv", "a\n1;2\n"), ["a"]) == [("1;2",)]
    assert read(put(tmp_path / "x.tsv", "a\n1,2\n"), ["a"]) == [("1,2",)]


def test_a_missing_column_names_what_was_seen(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"'z': column is missing \(the file has a, b;"):
        find_pieces([put(tmp_path / "x.csv", "a;b\n1;2\n")], ["a", "z"])


def test_a_log_is_the_same_with_any_delimiter(tmp_path: Path) -> None:
    table, schema = make_table(700), make_schema()
    logs = []
    for delimiter in ",;\t":
        path, log = tmp_path / "x.csv", tmp_path / f"log{len(logs)}"
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=delimiter))
        ingest(schema, [path], log, by="day")
        logs.append(bytes_of(log))
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\r\n\r\n"], ids=["plain", "BOM", "blank lines"])
def test_windows_and_blank_lines(start: bytes, tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", start + b"a;b\r\n1;x\r\n\r\n2;y\r\n\r\n")
    assert read(path, ["b", "a"]) == [("x", "1"), ("y", "2")]


# --- Spark's escapes


def by_spark(value: str) -> str:
    """A value as Spark writes it by default: quoted where it has to be, with quotes and backslashes escaped by a backslash."""
    if not value:
        return '""'
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if set(value) & set(',"') else value


def by_rfc(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if set(value) & set(',"') else value


SPARK = ['say "hi"', '"', '5", flat', 'a","b', '",', '"x",,"', 'ends"', '"" and \\']


@pytest.mark.parametrize("value", SPARK)
def test_quotes_escaped_by_a_backslash_are_refused(value: str, tmp_path: Path) -> None:
    lines = ["a,b,c", "1,x,2", ",".join(["3", by_spark(value), "4"])]
    path = put(tmp_path / "x.csv", "\n".join(lines) + "\n")
    with pytest.raises(BadInputError, match=r"x\.csv: quotes escaped by a backslash, .*write it with quotes doubled"):
        read(path, ["a", "c"])


def test_no_line_of_sparks_with_a_quote_is_valid_with_quotes_doubled() -> None:
    values = ["".join(text) for n in range(4) for text in itertools.product('a",\\', repeat=n)]
    sound = csv_dialect._sound(",")
    for value, beside in itertools.product(values, ["", '"', ",", '",', ',"', "\\", '\\"']):
        rows = [[value], [value, beside], [beside, value], ["", value, beside]]
        for row in rows:
            line = ",".join(map(by_spark, row)).encode()
            assert ('"' in "".join(row)) != bool(sound.fullmatch(line)), line
            assert sound.fullmatch(",".join(map(by_rfc, row)).encode())


def test_backslashes_in_sound_files_are_values(tmp_path: Path) -> None:
    values = ["C:\\", 'C:\\,"x"\\', 'say \\"hi\\"', "\\", 'a\\"']
    text = "a,b\n" + "".join(f"{i},{by_rfc(value)}\n" for i, value in enumerate(values))
    assert [value for _, value in read(put(tmp_path / "x.csv", text), ["a", "b"])] == values


def test_a_line_that_two_blocks_share_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CSV_BYTES", 64)
    good = "".join(f"{i},y\n" for i in range(300))
    for shift in range(0, 64, 7):
        path = put(tmp_path / "x.csv", f"a,b\n{'x' * shift},y\n{good}7," + '"5\\" pipe"\n8,y\n')
        parts = read_piece(sources.Piece(path=str(path), kind="csv"), ["a", "b"])
        with pytest.raises(BadInputError, match="escaped by a backslash"):
            list(parts)


@pytest.mark.parametrize("quoted", ['"x', '"x\ny\nz'], ids=["last line", "lines before"])
def test_a_quote_that_is_not_closed_swallows_no_rows(quoted: str, tmp_path: Path) -> None:
    # In a column that is not read, it would go unseen.
    path = put(tmp_path / "x.csv", f"a,b\n1,y\n2,{quoted}\n")
    with pytest.raises(BadInputError, match=r"x\.csv: a quote that is not closed, or a line break .* below row 0"):
        read(path, ["a"])
    (tmp_path / "y.csv").write_text('a,b\n1,"y\nz"\n2,y\n')
    assert read(tmp_path / "y.csv", ["a"]) == [("1",), ("2",)]


def test_a_wrong_line_is_numbered_as_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CSV_BYTES", 16)
    with pytest.raises(BadInputError, match=r"Row #102: Expected 2 columns, got 3"):
        read(put(tmp_path / "x.csv", "a,b\n" + "1,2\n" * 100 + "1,2,3\n"), ["a"])
