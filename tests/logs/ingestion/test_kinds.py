"""The kinds of file, by name and by first bytes; what a folder holds besides is told."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from diet_ray.errors import BadInputError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.append import append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.kinds import kind_by_magic, kind_by_name
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from diet_ray.logs.notes import Note
from tests.logs.ingestion.test_ingest import make_schema, make_table


def rows(folder: Path) -> tuple[list[int], list[str]]:
    """The values of column `a`, in source order, and the notes."""
    notes: list[Note] = []
    pieces = find_pieces([folder], ["a"], notes)
    return [int(v) for p in pieces for _, t in read_piece(p, ["a"]) for v in t["a"].to_pylist()], list(map(str, notes))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("d.PARQUET", "parquet"),
        ("part-0.snappy.parquet", "parquet"),
        ("d.parq", "parquet"),
        ("d.pq", "parquet"),
        ("d2.CSV", "csv"),
        ("d.csv.gz", "csv"),
        ("d.csv.BZ2", "csv"),
        ("d.tsv.zst", "csv"),
        ("d.orc", "orc"),
        ("d.avro", "avro"),
        ("d.parquet.old", None),
        ("d.csv.zip", None),
        ("d.gz", None),
        ("csv", None),
    ],
)
def test_kinds_by_name(name: str, kind: str | None) -> None:
    assert kind_by_name(name) == kind


def test_part_files_without_ending_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "part-00000")
    orc.write_table(pa.table({"a": [2]}), tmp_path / "000000_0")
    (tmp_path / "text").write_text("a\n3\n")
    (tmp_path / "packed").write_bytes(gzip.compress(b"a\n3\n"))
    assert kind_by_magic(tmp_path / "text") is None
    assert rows(tmp_path) == ([2, 1], ["2 files passed over: packed, text"])
    assert rows(tmp_path / "part-00000") == ([1], [])
    with pytest.raises(BadInputError, match=r"text: of a kind that neither its name .*\(name it one of \.parquet"):
        find_pieces([tmp_path / "text"], ["a"])


def test_names_in_capitals_and_packed_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "d1.CSV").write_bytes(b"a\n1\n")
    with pa.CompressedOutputStream(str(tmp_path / "d2.csv.bz2"), "bz2") as out:
        out.write(b"a\n2\n")
    with pa.CompressedOutputStream(str(tmp_path / "d3.tsv.ZST"), "zstd") as out:
        out.write(b"b\ta\nx\t3\n")
    (tmp_path / "d4.csv").write_bytes(gzip.compress(b"a\n4\n") + gzip.compress(b"5\n"))  # packed, whatever its name
    pq.write_table(pa.table({"a": [6]}), tmp_path / "d5.Parquet")
    assert rows(tmp_path) == ([1, 2, 3, 4, 5, 6], [])


def test_what_is_passed_over_is_listed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    shutil.copy(tmp_path / "a.parquet", tmp_path / "a.parquet.old")
    shutil.copy(tmp_path / "a.parquet", tmp_path / "_half.parquet")  # a marker by its name, and yet it may hold rows
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.md").write_text("x")
    (tmp_path / "sub" / "broken").symlink_to("nowhere")
    for marker in ("_SUCCESS", ".a.parquet.crc", "_metadata", ".hidden"):
        (tmp_path / marker).write_text("x")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link.parquet").symlink_to(elsewhere)
    assert rows(tmp_path) == ([1], ["5 files passed over: _half.parquet, a.parquet.old, link.parquet and 2 more"])


def test_a_folder_named_as_a_file_is_a_folder(tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / "x.parquet" / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"a": [day]}), tmp_path / "x.parquet" / f"day={day}" / "0.parquet")
    (tmp_path / "x.parquet" / "_SUCCESS").touch()
    assert rows(tmp_path) == ([1, 2], [])
    assert rows(tmp_path / "x.parquet") == ([1, 2], [])
    assert [piece.given for piece in find_pieces([tmp_path], ["a", "day"])] == [{"day": "1"}, {"day": "2"}]


def test_ingest_and_append_keep_and_tell_it(tmp_path: Path) -> None:
    folder, schema, table = tmp_path / "in", make_schema(), make_table(1200)
    folder.mkdir()
    first = pa.array(table["ts"].to_numpy() < sorted(table["ts"].to_pylist())[600])
    pq.write_table(table.filter(first), folder / "0.parquet")
    (folder / "notes.md").write_text("x")
    told = Note(what="1 file passed over: notes.md")
    assert ingest(schema, [folder], tmp_path / "log", by="day").notes == [told]
    assert open_log(tmp_path / "log").notes == [told]
    assert json.loads((tmp_path / "log" / "log.json").read_text())["notes"][0]["what"] == told.what
    pq.write_table(table.filter(first).slice(0, 7), folder / "1.parquet")
    none_new = append(schema, [folder], tmp_path / "log", by="day", now=4e9)
    assert none_new.blocks == []
    assert none_new.notes == [told]
    pq.write_table(table, folder / "1.parquet")
    (folder / "b.txt").write_text("x")
    more = Note(what="2 files passed over: b.txt, notes.md")
    added = append(schema, [folder], tmp_path / "log", by="day", now=4e9)
    assert added.blocks
    assert added.notes == [more]
    assert str(added).endswith(f"  {more}")
    assert open_log(tmp_path / "log").notes == [told, more]
