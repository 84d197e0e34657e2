"""Notes of an ingest: what was read otherwise than it stands in the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diet_ray.logs.blocks import LogManifest, open_log
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.layout import log_manifest_file
from diet_ray.logs.notes import Note, merge, told
from tests.support.synthetic import write_log


def test_a_note_is_told_once_with_all_its_rows() -> None:
    origin = Origin("a.csv", np.arange(10, 14))
    origin.note("price", np.array([True, False, True, True]), "read as text")
    origin.at(np.array([0, 2])).note("price", np.array([True, False]), "read as text")
    origin.at(np.array([1])).note("price", np.array([False]), "never told")
    other = Note(column="price", what="read as text", rows=5, file="b.csv")
    (merged,) = merge([*origin.notes, other])
    assert merged == Note(column="price", what="read as text", rows=9, file="a.csv")
    assert told([merged, Note(what="3 files passed over: a.txt, b.txt, c.txt")]) == [
        "read otherwise than it stands in the files, or passed over:",
        "  price: read as text, 9 rows (first in a.csv)",
        "  3 files passed over: a.txt, b.txt, c.txt",
    ]
    assert told([]) == []


def test_the_file_of_a_log_without_notes_is_what_it_was(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    manifest = LogManifest.model_validate_json(log_manifest_file(tmp_path / "log").read_bytes())
    assert "notes" not in manifest.model_dump_json()
    noted = manifest.model_copy(update={"notes": [Note(what="something")]})
    log_manifest_file(tmp_path / "log").write_text(noted.model_dump_json())
    assert open_log(tmp_path / "log").notes == [Note(what="something")]
