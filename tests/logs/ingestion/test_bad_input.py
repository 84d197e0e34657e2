"""The corpus of bad input: every case ends in the right error, which names the place and says what to do, or in quarantine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError, ConfigError, CorruptArtefactError, DietError, VersionError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.canonical import canonical
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.quarantine import sift
from diet_ray.logs.ingestion.sources import find_pieces, read_piece
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.manifests import RunManifest
from diet_ray.memory.run_folder import open_run
from diet_ray.settings import load_yaml, parse_json
from tests.support.corpus import (
    COLUMNS,
    FILES,
    GOOD,
    LOGS,
    RUNS,
    YAMLS,
    Artefact,
    Column,
    Files,
    Yaml,
    good_table,
    log_schema,
)
from tests.support.odd_artefacts import ODD_BEGINNINGS, ODD_LOGS, ODD_RUNS, ODD_YAMLS
from tests.support.odd_sources import ODD_COLUMNS, ODD_FILES

ALL_COLUMNS, ALL_FILES = COLUMNS + ODD_COLUMNS, FILES + ODD_FILES
ALL_YAMLS, ALL_LOGS, ALL_RUNS = YAMLS + ODD_YAMLS, LOGS + ODD_LOGS, RUNS + ODD_RUNS

REMEDY = r"restore|ingest the log again|make it again|put the block itself"


def test_the_corpus_is_large_and_without_doubles() -> None:
    groups: list[Sequence[Any]] = [ALL_COLUMNS, ALL_FILES, ALL_YAMLS, ALL_LOGS, ALL_RUNS, ODD_BEGINNINGS]
    assert sum(map(len, groups)) >= 300
    for group in groups[3:] + groups[1:2]:
        assert len({case.name for case in group}) == len(group)
    assert len({(case.kind, case.text) for case in ALL_YAMLS}) == len(ALL_YAMLS)
    assert len({(case.name, case.unit, str(case.values)) for case in ALL_COLUMNS}) == len(ALL_COLUMNS)


@pytest.mark.parametrize("case", ALL_COLUMNS, ids=lambda case: f"{case.name}-{case.words[:30]}")
def test_columns(case: Column, tmp_path: Path) -> None:
    path, schema = tmp_path / "x.parquet", log_schema(case.unit)
    pq.write_table(case.table(), path)
    [piece] = find_pieces([path], schema.columns)
    [(_, table)] = read_piece(piece, schema.columns)
    origin = Origin(str(path), np.arange(3))
    with pytest.raises(BadInputError) as caught:
        canonical(table, schema, origin)
    assert (caught.value.file, caught.value.column) == (str(path), case.name)
    assert case.words in str(caught.value)
    assert caught.value.remedy
    assert len(str(caught.value)) < 600
    if not case.bad:
        with pytest.raises(BadInputError, match=re.escape(str(caught.value))):
            sift(table, schema, origin)
        return
    times, refused = sift(table, schema, origin)
    assert refused["row"].to_pylist() == list(case.bad)
    assert set(refused["column"].to_pylist()) == {case.name}
    assert len(times) == 3 - len(case.bad)
    assert all(reason.split(" in row")[0] for reason in refused["reason"].to_pylist())
    assert str(caught.value).split(": ", 1)[1].startswith(refused["reason"].to_pylist()[0])


@pytest.mark.parametrize("allowed", [0, 10**6])
@pytest.mark.parametrize("case", ALL_FILES, ids=lambda case: case.name)
def test_files(case: Files, allowed: int, tmp_path: Path) -> None:
    # No allowance for rows excuses a file.
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(BadInputError) as caught:
        ingest(log_schema(), case.build(folder), tmp_path / "log", by="day", max_quarantined_rows=allowed)
    assert caught.value.file == str(folder / case.at)
    assert caught.value.column == case.column
    assert case.words in str(caught.value)
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("case", ALL_YAMLS, ids=lambda case: f"{case.kind.__name__}-{case.words[0][:40]}")
def test_yaml(case: Yaml, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    with pytest.raises(ConfigError) as caught:
        load_yaml(case.kind, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert all(word in message for word in case.words), message
    assert len(message) < 2500


def everything(log: Path) -> int:
    opened = open_log(log)
    return sum(len(opened.read_block(block)) for block in opened.blocks)


@pytest.mark.parametrize("case", ALL_LOGS, ids=lambda case: case.name)
def test_logs(case: Artefact, log: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(log, tmp_path / "log"))
    assert everything(copy) == 1200
    refused(case, copy, everything)


@pytest.mark.parametrize("case", ALL_RUNS, ids=lambda case: case.name)
def test_runs(case: Artefact, finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    assert len(load_memory(copy)) == 45
    refused(case, copy, load_memory)


@pytest.mark.parametrize("case", ODD_BEGINNINGS, ids=lambda case: case.name)
def test_runs_that_are_not_continued(case: Artefact, finished: Path, log: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    own = parse_json(RunManifest, copy / "run.json").config
    assert len(open_run(copy, own, resume=True)) == 3
    case.change(copy / case.at)
    with pytest.raises(DietError) as caught:
        open_run(copy, own, resume=True)
    message = str(caught.value)
    assert case.words in message
    assert str(copy) in message
    assert re.search(rf"{REMEDY}|start a new run|resume with the run's own config", message), message
    assert len(message) < 1000


def refused(case: Artefact, folder: Path, load: Callable[[Path], Any]) -> None:
    case.change(folder / case.at)
    with pytest.raises((CorruptArtefactError, VersionError)) as caught:
        load(folder)
    message = str(caught.value)
    assert case.words in message
    assert re.search(REMEDY, message), message
    assert len(message) < 1000
    # The file at fault; where two files contradict each other, the one of them that is named first is enough.
    assert str(folder) in message


def test_a_missing_or_unreadable_config(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name in ("none.yaml", "folder.yaml", "loop.yaml", "zero\0.yaml"):
        with pytest.raises(ConfigError, match=re.escape(name)):
            load_yaml(type(log_schema()), tmp_path / name)


# --- what looks odd and is none the worse for it


def test_odd_but_sound_input_makes_a_log(tmp_path: Path) -> None:
    """Types that differ between files, columns that nobody asked for, rows twice, time that goes backwards, files without rows."""
    table = good_table(60)
    backwards = table.sort_by([("t", "descending")])
    odd = {
        "t": table["t"].cast(pa.string()),
        "u": table["u"].cast(pa.float64()),
        "y": pa.array([["false", "TRUE"][label] for label in table["y"].to_pylist()]),
        "a": table["a"].cast(pa.int8()),
        "b": table["b"].cast(pa.string()),
        "c": table["c"].combine_chunks().dictionary_encode(),
        "d": table["d"].cast(pa.large_list(pa.large_string())),
        "e": table["e"].cast(pa.large_string()),
    }
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(backwards, folder / "a.parquet", row_group_size=7)
    pq.write_table(pa.table({"extra": range(60), **odd}), folder / "b.parquet")
    pq.write_table(table.slice(0, 0), folder / "c.parquet")
    pq.write_table(table.slice(0, 0), folder / "d.parquet")
    ingest(log_schema(), [folder], tmp_path / "log", by="day")
    [block] = open_log(tmp_path / "log").blocks
    rows = open_log(tmp_path / "log").read_block(block)
    assert len(rows) == 120
    assert (np.diff(rows.time) >= 0).all()
    # Each row is there twice, and what it means does not depend on how a file wrote it.
    pairs = [rows.time.tolist(), rows.user.tolist(), *rows.ids.T.tolist(), *rows.labels.T.tolist()]
    counts = np.unique(np.array(pairs).T, axis=0, return_counts=True)[1]
    assert (counts % 2 == 0).all()


def test_lists_of_a_million_values_are_cut_to_those_kept(tmp_path: Path) -> None:
    long = {"d": [["x"] * 10**6, ["y"], None], "e": ["x," * 10**6, "y", None]}
    table = canonical(pa.table({**GOOD, **long}), log_schema(), Origin("f", np.arange(3)))
    assert [table[f"slot.{slot}"].to_pylist() for slot in (3, 4, 5, 6)] == [
        ["x", "y", None],
        ["x", None, None],
        ["x", "y", None],
        ["x", None, None],
    ]


def test_a_list_column_without_any_value() -> None:
    table = pa.table({**GOOD, "d": pa.array([[], None, []], pa.list_(pa.null()))})
    assert canonical(table, log_schema(), Origin("f", np.arange(3)))["slot.3"].null_count == 3
