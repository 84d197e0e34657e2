"""Appending block by block gives the log that one ingest of everything gives, and never a half."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.errors import BadInputError, ConfigError, CorruptArtefactError, LockedError, SchemaError, users_error
from diet_ray.logs.blocks import BlockManifest, open_log
from diet_ray.logs.ingestion import append as append_module
from diet_ray.logs.ingestion.append import Appended, append
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.memory.verification import verify
from diet_ray.settings import parse_json, write_json
from diet_ray.storage.lock import locked
from tests.logs.ingestion.test_ingest import ZONE, make_schema, make_table
from tests.support.small_run import bytes_of

LATER = 4e9


def clock(day: str, hour: int) -> float:
    from zoneinfo import ZoneInfo

    return datetime.datetime.fromisoformat(f"{day}T{hour:02d}:00").replace(tzinfo=ZoneInfo(ZONE)).timestamp()


def until(table: pa.Table, time: float) -> pa.Table:
    return table.filter(pa.array(table["ts"].to_numpy() < time * 1000))


def save(table: pa.Table, path: Path) -> Path:
    pq.write_table(table, path)
    return path


@pytest.fixture
def table() -> pa.Table:
    return make_table(days=6)


def test_day_after_day_gives_the_bytes_of_one_ingest(table: pa.Table, tmp_path: Path) -> None:
    everything, schema = save(table, tmp_path / "all.parquet"), make_schema()
    ingest(schema, [everything], tmp_path / "whole", by="day", shard_rows=300)
    whole = open_log(tmp_path / "whole").blocks
    assert (
        len({block.n_ids for block in whole}) == len(whole) == 6
    )  # every day brings new values, or equality says little

    log = tmp_path / "log"
    ingest(schema, [everything], log, by="day", shard_rows=300, blocks=2)
    added = []
    for morning in ("2024-03-01", "2024-03-02", "2024-03-04"):  # on the third nobody came
        now = clock(morning, 9)
        done = append(
            schema, [save(until(table, now), tmp_path / "now.parquet")], log, by="day", now=now, shard_rows=300
        )
        assert done.rows_before + done.rows + done.rows_open == len(until(table, now))
        assert (done.rows_open > 0) == (morning < "2024-03-04")  # that morning's rows; the log has none of the last
        added.append(done.blocks)
    assert added == [["2024-02-29"], ["2024-03-01"], ["2024-03-02", "2024-03-03"]]
    assert bytes_of(log) == bytes_of(tmp_path / "whole")
    assert verify(log) == []
    assert sorted(path.name for path in log.iterdir()) == ["blocks", "edges.json", "log.json", "vocabulary.parquet"]

    before = bytes_of(log)
    again = append(schema, [everything], log, by="day", now=LATER)
    assert again == Appended(
        log=str(log), blocks=[], rows=0, rows_before=len(table), rows_open=0, n_ids=whole[-1].n_ids
    )
    assert bytes_of(log) == before
    assert "no new block" in str(again)


def test_weeks_go_on_and_so_do_rows(table: pa.Table, tmp_path: Path) -> None:
    everything, schema = save(table, tmp_path / "all.parquet"), make_schema()
    ingest(schema, [everything], tmp_path / "weeks", by="week")
    ingest(schema, [everything], tmp_path / "log", by="week", blocks=1)
    assert append(schema, [everything], tmp_path / "log", by="week", now=clock("2024-03-04", 3)).blocks == []
    done = append(schema, [everything], tmp_path / "log", by="week", now=LATER)
    assert [block.name for block in open_log(tmp_path / "log").blocks] == [
        block.name for block in open_log(tmp_path / "weeks").blocks
    ]

    rows = tmp_path / "rows"
    ingest(schema, [everything], rows, by=700, blocks=1)
    done = append(schema, [everything], rows, by=700, now=0.0)
    assert done.blocks[0] == "rows-00001"
    assert 0 < done.rows_open < 700  # the last block is not full
    blocks = open_log(rows).blocks
    assert all(block.rows >= 700 for block in blocks)
    assert sum(block.rows for block in blocks) + done.rows_open == len(table)


def test_only_so_many_blocks(table: pa.Table, tmp_path: Path) -> None:
    everything, schema, log = save(table, tmp_path / "all.parquet"), make_schema(), tmp_path / "log"
    ingest(schema, [everything], log, by="day", blocks=1)
    done = append(schema, [everything], log, by="day", now=LATER, blocks=2)
    assert done.blocks == ["2024-02-28", "2024-02-29"]
    assert done.rows_open == len(table) - done.rows - done.rows_before
    assert append(schema, [everything], log, by="day", now=LATER, blocks=1).blocks == ["2024-03-01"]


def test_rows_that_come_too_late_are_counted_and_left_out(table: pa.Table, tmp_path: Path) -> None:
    schema, log = make_schema(), tmp_path / "log"
    noon = until(table, clock("2024-02-28", 12))
    ingest(schema, [save(noon, tmp_path / "noon.parquet")], log, by="day")
    evening = until(table, clock("2024-02-29", 0))
    done = append(schema, [save(evening, tmp_path / "evening.parquet")], log, by="day", now=LATER)
    assert (done.blocks, done.rows_before) == ([], len(evening))  # a block does not change any more
    done = append(schema, [save(table, tmp_path / "all.parquet")], log, by="day", now=LATER)
    assert done.blocks == ["2024-02-29", "2024-03-01", "2024-03-02", "2024-03-03"]
    assert done.rows_before == len(evening)
    assert verify(log) == []


def of_an_earlier_release(log: Path) -> None:
    """Remove from the manifests what earlier releases did not write."""
    for path in log.glob("blocks/*/manifest.json"):
        write_json(path, parse_json(BlockManifest, path).model_copy(update={"id_checksums": None}))


class Stop(Exception):
    pass


@pytest.mark.parametrize("step", ["survey", "partition_and_number", "encode", "write_manifests", "LogManifest"])
def test_an_interrupted_append_leaves_the_log_and_the_next_one_succeeds(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    everything, schema, log = save(table, tmp_path / "all.parquet"), make_schema(), tmp_path / "log"
    ingest(schema, [everything], tmp_path / "whole", by="day")
    ingest(schema, [everything], log, by="day", blocks=2)
    before = open_log(log)

    def stops(*values: Any, **keys: Any) -> Any:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(append_module, step, stops)
        with pytest.raises(Stop):
            append(schema, [everything], log, by="day", now=LATER)
    assert open_log(log) == before
    assert not list(log.glob(".*"))
    append(schema, [everything], log, by="day", now=LATER)
    assert bytes_of(log) == bytes_of(tmp_path / "whole")


def test_what_a_killed_append_has_left_is_removed_by_the_next_one_and_said(table: pa.Table, tmp_path: Path) -> None:
    everything, schema, log = save(table, tmp_path / "all.parquet"), make_schema(), tmp_path / "log"
    ingest(schema, [everything], log, by="day", blocks=2)
    (log / ".append.0a1b2c3d.partial" / "work").mkdir(parents=True)
    (log / ".append.0a1b2c3d.partial" / "work" / "x.arrow").write_bytes(b"half")
    (log / ".append.notes.txt").write_text("mine")  # no name of ours
    with locked(log), pytest.raises(LockedError):
        append(schema, [everything], log, by="day", now=LATER, blocks=1)
    assert (log / ".append.0a1b2c3d.partial").exists()  # the one that holds the lock may be at work in it
    done = append(schema, [everything], log, by="day", now=LATER, blocks=1)
    assert done.removed == [".append.0a1b2c3d.partial"]
    assert str(done).startswith(f"{log}/.append.0a1b2c3d.partial: left by an append that was killed; removed\n")
    assert sorted(path.name for path in log.glob(".*")) == [".append.notes.txt"]
    assert append(schema, [everything], log, by="day", now=LATER, blocks=1).removed == []


def test_mistakes_of_the_caller_leave_the_log_as_it_was(table: pa.Table, tmp_path: Path) -> None:
    everything, schema, log = save(table, tmp_path / "all.parquet"), make_schema(), tmp_path / "log"
    with pytest.raises(CorruptArtefactError, match="there is no log; correct the path"):
        append(schema, [everything], log, by="day", now=LATER)
    assert not log.exists()
    ingest(schema, [everything], log, by="day", blocks=2)
    before = bytes_of(log)
    with pytest.raises(SchemaError, match="another schema, key 'tasks' differs"):
        append(make_schema(tasks=["ts"]), [everything], log, by="day", now=LATER)
    with pytest.raises(ConfigError, match="--by: week does not go on from block '2024-02-28'"):
        append(schema, [everything], log, by="week", now=LATER)
    rows = table.to_pylist()
    rows[-1]["buy"] = 7
    rows[-1]["ts"] = int(clock("2024-03-03", 12) * 1000)
    bad = save(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "bad.parquet")
    with pytest.raises(BadInputError, match="not 0/1"):
        append(schema, [bad], log, by="day", now=LATER)
    with locked(log), pytest.raises(LockedError, match="in use by process"):
        append(schema, [everything], log, by="day", now=LATER)
    assert bytes_of(log) == before
    vocabulary = pq.read_table(log / "vocabulary.parquet")
    pq.write_table(vocabulary.take(np.arange(len(vocabulary))[::-1]), log / "vocabulary.parquet")
    with pytest.raises(CorruptArtefactError, match=r"vocabulary\.parquet: its values are not in the order of their"):
        append(schema, [everything], log, by="day", now=LATER)
    (log / "vocabulary.parquet").unlink()
    with pytest.raises(CorruptArtefactError, match=r"vocabulary\.parquet: missing"):
        append(schema, [everything], log, by="day", now=LATER)


def labelled(values: list[Any], day: int, kind: pa.DataType | None = None) -> pa.Table:
    n = len(values)
    start = int(clock(f"2024-03-0{day}", 6) * 1000)
    return pa.table(
        {
            "ts": pa.array(range(start, start + n)),
            "user": pa.array([1] * n),
            "buy": pa.array([0] * n),
            "item": pa.array(values, kind),
            "price": pa.array([1.0] * n),
        }
    )


@pytest.mark.parametrize(("value", "now"), [("", "no value"), ("True", "'1'"), ("1.0E5", "'100000'")])
def test_a_log_whose_values_were_read_by_older_rules_is_not_appended_to(value: str, now: str, tmp_path: Path) -> None:
    fields = [{"name": "item", "kind": "vocabulary"}, {"name": "price", "kind": "numeric", "buckets": 2}]
    schema, as_before, log = make_schema(fields=fields), make_schema(fields=fields, nulls=[]), tmp_path / "log"
    days = [save(labelled([value, "x", text], day), tmp_path / f"{day}.parquet") for day, text in ((4, "y"), (5, "z"))]
    # Its vocabulary is what made of these rows before there was the key `nulls`, and before True was 1.
    ingest(schema, [save(labelled(["a", "x", "y"], 4), tmp_path / "old.parquet")], log, by="day")
    vocabulary = pq.read_table(log / "vocabulary.parquet")
    old = pa.array([value, *vocabulary["value"].to_pylist()[1:]])
    pq.write_table(vocabulary.set_column(1, "value", old), log / "vocabulary.parquet")
    of_an_earlier_release(log)
    before = bytes_of(log)
    with pytest.raises(SchemaError, match=f"has the value {value!r} of field 'item', which is read as {now} now"):
        append(schema, days, log, by="day", now=LATER)
    assert bytes_of(log) == before
    if value:
        with pytest.raises(SchemaError, match="ingest the log again"):
            append(as_before, days, log, by="day", now=LATER)
        return
    append(as_before, days, log, by="day", now=LATER)
    after = open_log(log)
    assert after.schema == schema
    first, second = (after.read_block(block).ids[:, 0].tolist() for block in after.blocks)
    assert second[:2] == first[:2]
    assert second[2] == max(first) + 1


def test_nulls_is_part_of_the_schema_that_an_append_needs(tmp_path: Path) -> None:
    fields = [{"name": "item", "kind": "vocabulary"}, {"name": "price", "kind": "numeric", "buckets": 2}]
    schema, log = make_schema(fields=fields), tmp_path / "log"
    days = [save(labelled(["", "x"], day), tmp_path / f"{day}.parquet") for day in (4, 5)]
    ingest(schema, days[:1], log, by="day")
    for other in ([], ["NULL"], ["", "NULL"]):  # this log's empty texts were read as no value: it says so in a note
        with pytest.raises(SchemaError, match="key 'nulls' differs"):
            append(make_schema(fields=fields, nulls=other), days, log, by="day", now=LATER)
    assert append(schema, days, log, by="day", now=LATER).rows == 2
    assert [note.rows for note in open_log(log).notes if note.rows] == [2]


def test_no_room_to_unpack_a_vocabulary_is_not_taken_for_damage(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, log = save(table, tmp_path / "all.parquet"), tmp_path / "log"
    ingest(make_schema(), [source], log, by="day", blocks=1)
    before = bytes_of(log)

    def full(*_: Path) -> pa.Table:
        raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(append_module, "unpacked_vocabulary", full)
        with pytest.raises(OSError, match="No space left") as caught:
            append(make_schema(), [source], log, by="day", now=4e9)
    assert "no space left on the disk; free some space" in str(users_error(caught.value))
    assert bytes_of(log) == before
    assert append(make_schema(), [source], log, by="day", now=4e9).blocks
