"""Quarantine: what is left out is named, what is left in is the log of the good rows alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import BadInputError, ConfigError, CorruptArtefactError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.quarantine import FILE, QUARANTINE, count, sift
from diet_ray.memory.verification import verify
from diet_ray.schema import Schema
from tests.support.small_run import bytes_of

DAY = 86_400_000
SCHEMA = Schema.model_validate(
    {
        "name": "shop",
        "time": {"column": "ts", "unit": "ms"},
        "user": "user",
        "tasks": ["buy"],
        "fields": [
            {"name": "item", "kind": "vocabulary"},
            {"name": "price", "kind": "numeric", "buckets": 3},
            {"name": "tags", "kind": "vocabulary", "max_values": 2},
        ],
    }
)
BAD: list[tuple[str, Any, str]] = [
    ("ts", None, "no time"),
    ("ts", -1, "time outside 1970-2200"),
    ("user", None, "no user"),
    ("buy", 2, "label 2, which is not 0/1"),
    ("buy", 3, "label 3, which is not 0/1"),
    ("item", -7, "negative id -7"),
    ("price", float("inf"), "NaN or infinity"),
    ("tags", [1, -2, -3], "negative id -2"),
]
"""Column, value, reason."""


def rows(n: int = 400, days: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "ts": int(rng.integers(0, days)) * DAY + int(rng.integers(0, DAY)),
            "user": int(rng.integers(0, 20)),
            "buy": int(rng.integers(0, 2)),
            "item": int(rng.integers(0, 30)),
            "price": float(rng.integers(0, 9)),
            "tags": [int(tag) for tag in rng.integers(0, 5, rng.integers(0, 4))],
        }
        for _ in range(n)
    ]


def write(data: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Two files of several row groups each."""
    folder.mkdir()
    whole, tags = ("ts", "user", "buy", "item"), pa.list_(pa.int64())
    kinds = pa.schema([*((name, pa.int64()) for name in whole), ("price", pa.float64()), ("tags", tags)])
    half = len(data) // 2
    for name, part in (("0.parquet", data[:half]), ("1.parquet", data[half:])):
        pq.write_table(pa.Table.from_pylist(part, kinds), folder / name, row_group_size=70)
    return [folder / "0.parquet", folder / "1.parquet"]


def spoil(data: list[dict[str, Any]], seed: int = 0) -> dict[int, tuple[str, str]]:
    """Break each rule twice, in rows of its own; position -> column and reason."""
    places = np.random.default_rng(seed).choice(len(data), 2 * len(BAD), replace=False).tolist()
    spoilt = {}
    for place, (column, value, reason) in zip(places, BAD * 2, strict=True):
        data[place][column] = value
        spoilt[place] = (column, reason)
    return spoilt


def test_the_log_is_that_of_the_good_rows_and_each_other_row_is_named_once(tmp_path: Path) -> None:
    data = rows()
    times = [row["ts"] for row in data]
    spoilt = spoil(data)
    paths = write(data, tmp_path / "in")
    good = [row for place, row in enumerate(data) if place not in spoilt]
    ingest(SCHEMA, paths, tmp_path / "log", by="day", shard_rows=40, max_quarantined_rows=len(spoilt))
    ingest(SCHEMA, write(good, tmp_path / "good"), tmp_path / "expected", by="day", shard_rows=40)

    named = pq.read_table(tmp_path / "log" / FILE)
    assert named.schema.equals(QUARANTINE)
    names = [block.name for block in open_log(tmp_path / "log").blocks]
    expected = []
    for place in sorted(spoilt):
        column, reason = spoilt[place]
        file, row = (paths[0], place) if place < 200 else (paths[1], place - 200)
        time = None if column == "ts" else times[place]
        day = None if time is None else names[time // DAY]
        expected.append({"file": str(file), "row": row, "column": column, "reason": reason, "time": time, "block": day})
    assert named.to_pylist() == expected
    assert count(tmp_path / "log") == len(spoilt)

    found, wanted = bytes_of(tmp_path / "log"), bytes_of(tmp_path / "expected")
    assert found.pop(FILE)
    for name in names:
        manifest = json.loads((tmp_path / "log/blocks" / name / "manifest.json").read_text())
        assert manifest["quarantined"] == sum(row["block"] == name for row in expected)
    assert {k: v for k, v in found.items() if "manifest" not in k} == {
        k: v for k, v in wanted.items() if "manifest" not in k
    }
    assert verify(tmp_path / "log") == []


def test_one_row_too_many_is_an_error_that_names_it_and_leaves_nothing(tmp_path: Path) -> None:
    data = rows()
    spoilt = spoil(data)
    paths = write(data, tmp_path / "in")
    for allowed in (1, 7, len(spoilt) - 1):
        place = sorted(spoilt)[allowed]
        with pytest.raises(BadInputError) as caught:
            ingest(SCHEMA, paths, tmp_path / "log", by="day", max_quarantined_rows=allowed)
        column, reason = spoilt[place]
        file, row = (paths[0], place) if place < 200 else (paths[1], place - 200)
        assert (caught.value.file, caught.value.column) == (str(file), column)
        assert f"{reason} in row {row} (from 0)" in str(caught.value)
        assert f"{allowed} rows before it are left out" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_allowance_that_is_not_needed_changes_nothing(tmp_path: Path) -> None:
    paths = write(rows(), tmp_path / "in")
    for name, allowed in (("a", 0), ("b", 9)):
        ingest(SCHEMA, paths, tmp_path / name, by="day", max_quarantined_rows=allowed)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert count(tmp_path / "a") == 0


def test_rows_of_no_block_are_named_all_the_same(tmp_path: Path) -> None:
    data = [*rows(100, days=1), *({**row, "ts": row["ts"] + 2 * DAY} for row in rows(100, days=1))]
    data[150]["buy"] = 5  # on a day that is not kept
    data.append({**data[0], "ts": DAY + 5, "buy": 6})  # on a day without any other row
    paths = write(data, tmp_path / "in")
    ingest(SCHEMA, paths, tmp_path / "one", by="day", blocks=1, max_quarantined_rows=2)
    assert pq.read_table(tmp_path / "one" / FILE)["block"].to_pylist() == [None, None]
    ingest(SCHEMA, paths, tmp_path / "all", by="day", max_quarantined_rows=2)
    assert pq.read_table(tmp_path / "all" / FILE)["block"].to_pylist() == ["1970-01-03", "1970-01-01"]
    assert [block.quarantined for block in open_log(tmp_path / "all").blocks] == [1, 1]


def test_no_good_row_at_all(tmp_path: Path) -> None:
    data = [{**row, "buy": 4} for row in rows(20)]
    with pytest.raises(BadInputError, match="holds no rows at all, besides 20 that break a rule"):
        ingest(SCHEMA, write(data, tmp_path / "in"), tmp_path / "log", by="day", max_quarantined_rows=50)


def test_what_is_wrong_with_a_whole_file_is_no_rows_fault(tmp_path: Path) -> None:
    table = pq.read_table(write(rows(20), tmp_path / "in")[0])
    pq.write_table(table.set_column(1, "user", pa.array([[1]] * len(table))), tmp_path / "in" / "0.parquet")
    with pytest.raises(BadInputError, match=r"column 'user': has type list"):
        ingest(SCHEMA, [tmp_path / "in"], tmp_path / "log", by="day", max_quarantined_rows=10**6)


def test_a_row_with_several_faults_is_named_by_the_first_column(tmp_path: Path) -> None:
    data = rows(6)
    data[3].update(user=None, buy=9, price=float("nan"))
    table = pq.read_table(write(data, tmp_path / "in")[1])
    time, refused = sift(table, SCHEMA, Origin("f", np.arange(3, 6)))
    assert (len(time), refused["row"].to_pylist(), refused["column"].to_pylist()) == (2, [3], ["user"])


def test_the_allowance_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_quarantined_rows must be at least 0, not -1"):
        ingest(SCHEMA, [tmp_path], tmp_path / "log", by="day", max_quarantined_rows=-1)
    (tmp_path / FILE).write_bytes(b"no parquet")
    with pytest.raises(CorruptArtefactError, match=FILE):
        count(tmp_path)


def test_the_command_counts_what_it_left_out(tmp_path: Path) -> None:
    data = rows()
    spoilt = spoil(data)
    write(data, tmp_path / "in")
    (tmp_path / "s.yaml").write_text(SCHEMA.model_dump_json())
    asked = ["ingest", str(tmp_path / "s.yaml"), "--from", str(tmp_path / "in"), "--by", "day"]
    done = CliRunner().invoke(
        app, ["--local", "--json", *asked, "--out", str(tmp_path / "log"), "--max-quarantined-rows", "99"]
    )
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["quarantined"] == len(spoilt)
    assert made["rows"] == len(data) - len(spoilt)
    assert 0 < sum(block["quarantined"] for block in made["blocks"]) < len(spoilt)
    both = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "log"), "--append", "--max-quarantined-rows", "1"])
    assert both.exit_code == 2
    assert "--max-quarantined-rows: not with --append" in both.stderr
