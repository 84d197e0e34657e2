"""What an ingest does for a log of many fields, or of many tiny blocks: work that grows with them, and not with their square."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.config import StreamConfig
from diet_ray.distill.local import distil_locally
from diet_ray.errors import BadInputError, ConfigError, SchemaError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion import encode_pass
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.encode_pass import ShardPlan, ShardPlans, encode_shards
from diet_ray.logs.ingestion.id_index import IdIndex
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.memory.verification import verify
from diet_ray.schema import Schema
from tests.support.small_run import STREAM, bytes_of

KINDS: list[dict[str, Any]] = [
    {"kind": "hashed", "buckets": 20},
    {"kind": "numeric", "buckets": 2},
    {"kind": "vocabulary"},
    {"kind": "sequence", "of": "f2", "length": 2, "pool": "none"},
]


def wide(folder: Path, n_fields: int, kinds: list[dict[str, Any]] = KINDS) -> tuple[Schema, Path]:
    """A file of a hundred rows with so many fields, and its schema."""
    rng, n = np.random.default_rng(0), 100
    columns: dict[str, Any] = {"t": np.arange(n), "u": np.arange(n), "y": np.arange(n) % 2}
    fields = []
    for number in range(n_fields):
        kind = kinds[number % len(kinds)]
        values: Any = rng.integers(0, 9, n)
        columns[f"f{number}"] = [[value, 1] for value in values.tolist()] if kind["kind"] == "sequence" else values
        fields.append({"name": f"f{number}", **kind})
    path = folder / f"{n_fields}.parquet"
    pq.write_table(pa.table(columns), path)
    time = {"column": "t", "unit": "s"}
    return Schema.model_validate({"name": "s", "time": time, "user": "u", "tasks": ["y"], "fields": fields}), path


def calls(folder: Path, n_fields: int) -> Counter[str]:
    """How often an ingest of so many fields calls each function, Python's and C's."""
    schema, path = wide(folder, n_fields)
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            counted[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            counted[argument.__qualname__] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        Schema.model_validate(schema.model_dump(mode="json"))
        ingest(schema, [path], folder / f"log-{n_fields}", by="day")
    finally:
        sys.setprofile(before)
    return counted


def test_the_work_of_an_ingest_is_linear_in_fields(tmp_path: Path) -> None:
    calls(tmp_path, 4)  # what is imported or cached at the first time
    few, more, many = (calls(tmp_path, n) for n in (16, 32, 64))
    for name in many:
        first, second = more[name] - few[name], many[name] - more[name]
        assert second <= 2 * first + 10, (
            f"{name}: {few[name]}, {more[name]} and {many[name]} calls for 16, 32 and 64 fields"
        )


def test_temporary_files_are_opened_as_often_for_many_numeric_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening one takes a time proportional to all of its columns."""
    opened: Counter[int] = Counter()
    real = pa.ipc.open_file
    for n in (2, 40):
        schema, path = wide(tmp_path, n, [{"kind": "numeric", "buckets": 2}])
        monkeypatch.setattr(pa.ipc, "open_file", lambda *a, n=n, **k: opened.update([n]) or real(*a, **k))
        ingest(schema, [path], tmp_path / f"log-{n}", by="day")
    assert opened[2] == opened[40] > 0


def test_numeric_fields_are_fitted_a_few_at_a_time_or_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, path = wide(tmp_path, 10, [{"kind": "numeric", "buckets": 3}])
    ingest(schema, [path], tmp_path / "at-once", by="day")
    monkeypatch.setattr("diet_ray.logs.ingestion.fit.AT_ONCE", 8 * 100 * 3)
    ingest(schema, [path], tmp_path / "in-threes", by="day")
    assert bytes_of(tmp_path / "at-once") == bytes_of(tmp_path / "in-threes")


# --- one row per block

TINY: dict[str, Any] = {
    "name": "s",
    "time": {"column": "t", "unit": "s"},
    "user": "u",
    "tasks": ["y"],
    "fields": [{"name": "v", "kind": "vocabulary"}, {"name": "h", "kind": "hashed", "buckets": 9}],
}
VALUES = ["x", "y", "x", "z", "y", "w", "x", "z"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    n = len(VALUES)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"t": range(n), "u": range(n), "y": [0, 1] * (n // 2), "v": VALUES, "h": range(n)}), path)
    return path


def test_one_row_per_block_is_a_log(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = Schema.model_validate(TINY)
    loads: list[object] = []
    real = IdIndex.open
    monkeypatch.setattr(IdIndex, "open", lambda folder: loads.append(folder) or real(folder))
    ingest(schema, [source], tmp_path / "log", by=1)
    assert len(loads) == 1  # the index of ids, once for all blocks
    log = open_log(tmp_path / "log")
    # 1 and 2 are the unknown of v and h, 3 to 11 the buckets of h; each block knows its own value and those before it.
    assert [int(log.read_block(block).ids[0, 0]) for block in log.blocks] == [12, 13, 12, 14, 13, 15, 12, 14]
    assert [block.n_ids for block in log.blocks] == [13, 14, 14, 15, 15, 16, 16, 16]
    assert [log.read_block(block).row_id.tolist() for block in log.blocks] == [[at << 32] for at in range(8)]
    assert verify(tmp_path / "log") == []


@pytest.mark.parametrize("at_once", [1, 3])
def test_how_many_shards_are_written_at_once_changes_nothing(
    at_once: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = Schema.model_validate(TINY)
    for by in (1, 2, 8):
        ingest(schema, [source], tmp_path / f"log-{by}", by=by, shard_rows=2)
    monkeypatch.setattr(encode_pass, "AT_ONCE", at_once)
    for by in (1, 2, 8):
        ingest(schema, [source], tmp_path / f"again-{by}", by=by, shard_rows=2)
        assert bytes_of(tmp_path / f"log-{by}") == bytes_of(tmp_path / f"again-{by}")


def test_one_row_per_block_is_distilled_or_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    ingest(Schema.model_validate(TINY), [source], tmp_path / "log", by=1, blocks=4)
    changes = {"log": str(tmp_path / "log"), "refine": {"rounds": 0}}
    reference = {**STREAM["reference"], "holdout": 0}
    stages = distil_locally(
        tmp_path / "run", StreamConfig.model_validate({**STREAM, **changes, "reference": reference})
    )
    assert [(stage.rows_seen, stage.units) for stage in stages] == [(1, 1), (2, 1), (3, 1)]
    held = {**STREAM["reference"], "holdout": 0.999}
    with pytest.raises(
        ConfigError, match=r"holdout': 0.999 leaves no row of block 'rows-00000' \(1 rows\) to train on"
    ):
        distil_locally(tmp_path / "none", StreamConfig.model_validate({**STREAM, **changes, "reference": held}))


def test_a_numeric_field_needs_more_than_one_row(tmp_path: Path) -> None:
    source, n = tmp_path / "x.parquet", 50
    pq.write_table(pa.table({name: [at % 2 for at in range(n)] for name in "uyvh"} | {"t": range(n)}), source)
    fields = [*TINY["fields"], {"name": "n", "kind": "numeric", "buckets": 2, "column": "u"}]
    with pytest.raises(SchemaError, match="numeric field 'n' has 1 values in the first block"):
        ingest(Schema.model_validate({**TINY, "fields": fields}), [source], tmp_path / "log", by=1)


def test_sources_that_change_between_two_passes_are_told(source: Path, tmp_path: Path) -> None:
    batch = pa.record_batch({"time": pa.array([1, 2, 3])})
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    step = ShardPlan(
        folder=str(tmp_path / "day"),
        name="s",
        block=0,
        first_row_id=0,
        rows=4,
        batches=[(str(tmp_path / "x.arrow"), 0)],
    )
    with pytest.raises(BadInputError, match=r"changed while they were read: 4 rows for day/s, then 3 \(let nobody"):
        encode_shards(
            ShardPlans(shards=[step]).model_dump_json(), Schema.model_validate(TINY), Edges(edges={}), str(tmp_path)
        )
