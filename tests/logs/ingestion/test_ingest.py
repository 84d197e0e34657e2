import datetime
import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from diet_ray.engine.data import fan_out
from diet_ray.errors import BadInputError, ConfigError, SchemaError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion import sources
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.schema import Schema
from diet_ray.settings import load_yaml, parse_json
from tests.support.small_run import bytes_of

FIELDS: list[dict[str, Any]] = [
    {"name": "user", "kind": "vocabulary"},
    {"name": "item", "kind": "hashed", "buckets": 64},
    {"name": "price", "kind": "numeric", "buckets": 5},
    {"name": "tags", "kind": "vocabulary", "max_values": 3, "separator": "|"},
]
ZONE = "Asia/Shanghai"


def make_schema(**changes: Any) -> Schema:
    raw = {
        "name": "shop",
        "time": {"column": "ts", "unit": "ms", "timezone": ZONE},
        "user": "user",
        "tasks": ["buy"],
        "fields": FIELDS,
    }
    return Schema.model_validate({**raw, **changes})


def make_table(n: int = 3000, days: int = 4, seed: int = 0) -> pa.Table:
    """Unsorted rows over `days` local days, with nulls, ties in time, and a growing vocabulary."""
    rng = np.random.default_rng(seed)
    start = int(datetime.datetime(2024, 2, 27, tzinfo=ZoneInfo(ZONE)).timestamp() * 1000)
    ts = start + rng.integers(0, days * 86_400 // 50, n) * 50_000
    user = (rng.integers(0, 30, n) + (ts - start) // 8_640_000).astype(np.int64)
    tags = ["|".join(str(x) for x in rng.integers(0, 9, rng.integers(0, 5))) for _ in range(n)]
    return pa.table(
        {
            "ts": ts,
            "user": user,
            "item": pa.array(rng.integers(0, 200, n), mask=rng.random(n) < 0.1),
            "price": pa.array(np.round(rng.gamma(2, 5, n), 2), mask=rng.random(n) < 0.1),
            "tags": pa.array(tags, mask=rng.random(n) < 0.1),
            "buy": rng.integers(0, 2, n),
            "order": np.arange(n),
        }
    )


def write(table: pa.Table, folder: Path) -> list[Path]:
    """The table as two Parquet files of several row groups, source order kept."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(table) // 2
    paths = [folder / "0.parquet", folder / "1.parquet"]
    for path, part in zip(paths, (table.slice(0, half), table.slice(half)), strict=True):
        pq.write_table(part, path, row_group_size=400)
    return paths


def by_user_item(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted(zip(*(table[c].to_pylist() for c in ("ts", "user", "buy")), strict=True))


def test_every_row_lands_once_in_its_local_day(tmp_path: Path) -> None:
    table, schema = make_table(), make_schema()
    manifest = ingest(schema, write(table, tmp_path / "in"), tmp_path / "log", by="day", shard_rows=300)
    log = open_log(tmp_path / "log")
    assert manifest.blocks == ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"] == [b.name for b in log.blocks]
    assert log.schema == schema

    vocabulary = pq.read_table(tmp_path / "log" / "vocabulary.parquet").to_pylist()
    id_of = {(row["field"], row["value"]): row["id"] for row in vocabulary}
    edges = parse_json(Edges, tmp_path / "log" / "edges.json").edges["price"]
    order = np.argsort(table["ts"].to_numpy(), kind="stable")  # rows of equal time keep their source order
    expected = table.take(order).to_pylist()
    day = [datetime.datetime.fromtimestamp(row["ts"] / 1000, ZoneInfo(ZONE)).date().isoformat() for row in expected]
    position = 0
    for index, block in enumerate(log.blocks):
        rows = log.read_block(block)
        assert len(rows) == block.rows == day.count(block.name)
        assert rows.row_id.tolist() == [(index << 32) + i for i in range(len(rows))]
        assert block.positives == [int(rows.labels.sum())]
        assert (block.time_min, block.time_max) == (rows.time[0], rows.time[-1])
        assert len(block.shards) == -(-block.rows // 300)
        assert max(shard.rows for shard in block.shards) < 320
        assert rows.ids.max() < block.n_ids
        for i in range(len(rows)):
            row = expected[position + i]
            tags = [t for t in (row["tags"] or "").split("|") if t][:3]
            price = 3 if row["price"] is None else 5 + 64 + sum(row["price"] >= edge for edge in edges)
            assert rows.time[i] == row["ts"]
            assert rows.labels[i, 0] == row["buy"]
            assert rows.ids[i, 0] == id_of["user", str(row["user"])]
            assert rows.ids[i, 2] == price
            assert rows.ids[i, 3:].tolist() == ([id_of["tags", t] for t in tags] or [4]) + [0] * (3 - max(len(tags), 1))
        position += len(rows)
    assert position == len(table)
    first = table.filter(pa.array(table["ts"].to_numpy() <= log.blocks[0].time_max))["price"].drop_null().to_numpy()
    np.testing.assert_allclose(edges, np.unique(np.quantile(first, [0.2, 0.4, 0.6, 0.8])))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [
        "blocks",
        "edges.json",
        "log.json",
        "vocabulary.parquet",
    ]


@pytest.mark.ray
def test_ray_gives_the_bytes_of_a_plain_loop(tmp_path: Path, ray_cluster: int) -> None:
    paths, schema = write(make_table(), tmp_path / "in"), make_schema()
    seen: list[tuple[str, int, int, int]] = []
    ingest(
        schema,
        paths,
        tmp_path / "ray",
        by="day",
        shard_rows=300,
        on_progress=lambda *step: seen.append(step),
        each=fan_out,
    )
    ingest(schema, paths, tmp_path / "plain", by="day", shard_rows=300)
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "plain")
    assert {stage: (done, total, rows) for stage, done, total, rows in seen} == {
        "survey": (8, 8, 3000),
        "partition": (8, 8, 3000),
        "encode": (12, 12, 3000),
    }


@pytest.mark.ray
def test_bad_input_in_a_ray_task_is_our_error_and_leaves_nothing(tmp_path: Path, ray_cluster: int) -> None:
    table = make_table()
    bad = table.set_column(5, "buy", pa.array([*[0] * 2999, 7]))
    paths = write(bad, tmp_path / "in")
    with pytest.raises(BadInputError) as caught:
        ingest(make_schema(), paths, tmp_path / "log", by="day", each=fan_out)
    assert (caught.value.file, caught.value.column) == (str(paths[1]), "buy")
    assert "label 7, which is not 0/1 in row 1499" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_csv_and_parquet_give_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CSV_BYTES", 4096)
    table = make_table(500)
    paths = write(table, tmp_path / "in")
    csv = [tmp_path / "0.csv", tmp_path / "1.csv"]
    for source, target in zip(paths, csv, strict=True):
        pa_csv.write_csv(pq.read_table(source), target)
    for name, files in (("p", paths), ("c", csv)):
        ingest(make_schema(), files, tmp_path / name, by="day", shard_rows=100)
    assert bytes_of(tmp_path / "p") == bytes_of(tmp_path / "c")


@pytest.mark.parametrize("column", ["user", "item", "price", "buy", "ts"])
def test_partitions_and_delta_tables_give_the_same_log(tmp_path: Path, column: str) -> None:
    table, schema = make_table(500), make_schema()
    table = table.set_column(0, "ts", pc.add(table["ts"], table["order"]))
    if column == "ts":  # as the day of all its rows
        schema = make_schema(time={"column": "ts", "unit": "timestamp", "timezone": ZONE})
        table = (
            table.set_column(0, "ts", pc.strftime(table["ts"].cast(pa.timestamp("ms", ZONE)), "%Y-%m-%d"))
            .group_by("ts", use_threads=False)
            .aggregate([(name, "first") for name in ("user", "item", "price", "tags", "buy", "order")])
        )
        table = table.rename_columns([name.removesuffix("_first") for name in table.column_names])
    paths = write(table, tmp_path / "in")
    pq.write_to_dataset(table, tmp_path / "hive", partition_cols=[column])
    write_deltalake(tmp_path / "delta", table, partition_by=[column])
    for name, files in (("p", paths), ("h", [tmp_path / "hive"]), ("d", [tmp_path / "delta"])):
        ingest(schema, files, tmp_path / name, by="day", shard_rows=100)
    assert bytes_of(tmp_path / "p") == bytes_of(tmp_path / "h") == bytes_of(tmp_path / "d")


def test_the_first_blocks_of_a_log_do_not_depend_on_later_ones(tmp_path: Path) -> None:
    table, schema = make_table(), make_schema()
    ingest(schema, write(table, tmp_path / "in"), tmp_path / "all", by="day")
    ingest(schema, [tmp_path / "in"], tmp_path / "two", by="day", blocks=2)
    early = pa.array(table["ts"].to_numpy() <= open_log(tmp_path / "two").blocks[-1].time_max)
    ingest(schema, write(table.filter(early), tmp_path / "early"), tmp_path / "cut", by="day")
    whole = open_log(tmp_path / "all").blocks
    assert whole[:2] == open_log(tmp_path / "two").blocks == open_log(tmp_path / "cut").blocks
    sizes = [block.n_ids for block in whole]
    assert sizes == sorted(set(sizes))  # here every day brings new users


def test_blocks_by_week_and_by_rows(tmp_path: Path) -> None:
    paths = write(make_table(days=9), tmp_path / "in")
    assert ingest(make_schema(), paths, tmp_path / "w", by="week").blocks == ["2024-W09", "2024-W10"]
    ingest(make_schema(), paths, tmp_path / "r", by=1000, shard_rows=400)
    blocks = open_log(tmp_path / "r").blocks
    assert [block.name for block in blocks] == ["rows-00000", "rows-00001", "rows-00002"]
    assert all(block.rows >= 1000 for block in blocks[:-1])
    assert sum(block.rows for block in blocks) == 3000


def test_empty_files_and_gaps_are_fine_but_no_rows_at_all_is_not(tmp_path: Path) -> None:
    table = make_table(200)
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(BadInputError, match=r"empty\.parquet: holds no rows at all"):
        ingest(make_schema(), [tmp_path / "empty.parquet"], tmp_path / "log", by="day")
    day = pa.array(
        np.isin(
            [datetime.datetime.fromtimestamp(t / 1000, ZoneInfo(ZONE)).day for t in table["ts"].to_pylist()], [27, 1]
        )
    )
    paths = [tmp_path / "empty.parquet", *write(table.filter(day), tmp_path / "in")]
    assert ingest(make_schema(), paths, tmp_path / "log", by="day").blocks == ["2024-02-27", "2024-03-01"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("ts", None, "no time"),
        ("user", -3, "negative id -3"),
        ("price", float("nan"), "NaN"),
        ("buy", 2, "not 0/1"),
        ("buy", None, "no label"),
    ],
)
def test_one_bad_value_among_many_is_found(tmp_path: Path, column: str, value: Any, words: str) -> None:
    rows = make_table(900).to_pylist()
    rows[777][column] = value
    paths = write(pa.Table.from_pylist(rows), tmp_path / "in")
    with pytest.raises(BadInputError, match=words) as caught:
        ingest(make_schema(), paths, tmp_path / "log", by="day")
    assert (caught.value.file, caught.value.column) == (str(paths[1]), column)
    assert f"in row {777 - 450} " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_mistakes_of_the_caller(tmp_path: Path) -> None:
    paths, schema = write(make_table(100), tmp_path / "in"), make_schema()
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="exists already"):
        ingest(schema, paths, tmp_path / "there", by="day")
    with pytest.raises(ConfigError, match="cannot be made"):
        ingest(schema, paths, tmp_path / "file" / "log", by="day")
    with pytest.raises(ConfigError, match="no source"):
        ingest(schema, [], tmp_path / "log", by="day")
    for bad in ({"by": 0}, {"by": "month"}, {"by": "day", "blocks": 0}, {"by": "day", "shard_rows": 0}):
        with pytest.raises(ConfigError, match=next(k for k in ("blocks", "shard_rows", "by") if k in bad)):
            ingest(schema, paths, tmp_path / "log", **bad)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="'gone': column is missing"):
        ingest(make_schema(tasks=["gone"]), paths, tmp_path / "log", by="day")
    no_price = pq.read_table(paths[0]).set_column(3, "price", pa.nulls(50, pa.float64()))
    pq.write_table(no_price, tmp_path / "n.parquet")
    with pytest.raises(SchemaError, match="'price' has no value in the first block"):
        ingest(schema, [tmp_path / "n.parquet"], tmp_path / "log", by="day")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in", "n.parquet", "there"]


def test_a_log_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def meanwhile(stage: str, done: int, total: int, rows: int) -> None:
        (tmp_path / "log").mkdir(exist_ok=True)
        (tmp_path / "log" / "mine").touch()

    with pytest.raises(ConfigError, match="appeared"):
        ingest(
            make_schema(), write(make_table(100), tmp_path / "in"), tmp_path / "log", by="day", on_progress=meanwhile
        )
    assert sorted(path.name for path in tmp_path.rglob("*") if "in" not in path.parts) >= ["log", "mine"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_schema_in_the_log_reads_back_as_yaml(tmp_path: Path) -> None:
    ingest(make_schema(), write(make_table(100), tmp_path / "in"), tmp_path / "log", by="day")
    raw = json.loads((tmp_path / "log" / "log.json").read_text())["log_schema"]
    (tmp_path / "s.yaml").write_text(json.dumps(raw))
    assert load_yaml(Schema, tmp_path / "s.yaml") == make_schema()
