"""Bucket edges: quantiles, heavy values apart from the others, and first blocks that are too short to fit on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diet_ray.errors import SchemaError
from diet_ray.judge.metrics import auc
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.edges import Edges, fit_edges
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.layout import edges_file
from diet_ray.schema import NumericField, Schema
from diet_ray.settings import parse_json

DAY = 86_400_000
BEGIN = 1_709_510_400_000
"""2024-03-04 UTC, in ms."""


def fitted(values: Any, buckets: int) -> list[float]:
    return fit_edges(np.asarray(values, np.float64), NumericField(name="n", buckets=buckets))


def buckets_of(values: Any, edges: list[float]) -> np.ndarray:
    return np.searchsorted(edges, np.asarray(values, np.float64), side="right")


def plain_quantiles(values: np.ndarray, buckets: int) -> list[float]:
    """The edges that logs had before heavy values were looked at."""
    return [float(edge) for edge in np.unique(np.quantile(values, np.linspace(0.0, 1.0, buckets + 1)[1:-1]))]


def test_a_field_without_heavy_values_has_the_edges_that_it_always_had() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=5000), np.round(rng.gamma(2, 5, 5000), 2), rng.integers(0, 400, 5000).astype(float)):
        for buckets in (2, 5, 16, 31):
            assert fitted(values, buckets) == plain_quantiles(values, buckets)
    assert fitted(np.round(np.random.default_rng(1).gamma(2, 5, 999), 1), 6) == [
        3.7, 5.9, 8.3, 11.2, 15.566666666666663,
    ]  # fmt: skip


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=60), st.integers(2, 20))
@example([0, 0, 0, 1, -1, -1, 2, 2, -2], 4)  # the values of two rows fill a bucket too, and leave none for the last run
@settings(deadline=None)
def test_heavy_values_stand_alone(numbers: list[int], buckets: int) -> None:
    values = np.array(numbers, np.float64)
    edges = fitted(values, buckets)
    assert edges == sorted(set(edges))
    assert len(edges) <= buckets - 1
    distinct, rows = np.unique(values, return_counts=True)
    where = buckets_of(distinct, edges)
    if len(distinct) <= buckets:
        assert len(set(where)) == len(distinct)  # a bucket for each
        return
    heavy = rows * buckets >= len(values)
    if not heavy.any():
        assert edges == plain_quantiles(values, buckets)
    runs = np.count_nonzero(np.diff(np.concatenate([[True], heavy])) & ~heavy)
    if heavy.sum() + runs <= buckets:
        assert all(np.count_nonzero(where == where[at]) == 1 for at in np.flatnonzero(heavy))
    assert len(set(where)) > 1


def test_a_flag_has_two_buckets() -> None:
    assert fitted([0] * 60 + [1] * 40, 2) == [1.0]
    assert buckets_of([0, 1], fitted([0] * 40 + [1] * 60, 2)).tolist() == [0, 1]


def test_edges_beside_a_heavy_value_are_values_that_occur() -> None:
    tiny = 5e-324
    assert fitted([0.0] * 90 + [tiny] * 10, 2) == [tiny]
    assert fitted([-1.0] * 5 + [0.0] * 90 + [1.0] * 5, 3) == [0.0, 1.0]
    # One bucket too few: what is lighter joins the heavy value.
    assert fitted([-1.0] * 4 + [0.0] * 90 + [1.0] * 6, 2) == [1.0]
    assert fitted([-1.0] * 6 + [0.0] * 90 + [1.0] * 4, 2) == [0.0]


def test_a_heavy_value_leaves_the_others_quantiles_of_their_own() -> None:
    positive = np.arange(1.0, 301.0)
    edges = fitted(np.concatenate([np.zeros(9700), positive]), 16)
    assert edges == [1.0, *np.quantile(positive, np.linspace(0, 1, 16)[1:-1]).tolist()]
    assert np.bincount(buckets_of(positive, edges)).tolist() == [0] + [20] * 15
    # Before, between and after heavy values, by the rows that lie there.
    around = np.concatenate(
        [np.arange(-100.0, 0), np.zeros(900), np.arange(1.0, 201), np.full(900, 500.0), [501.0, 502]]
    )
    where = buckets_of(np.unique(around), fitted(around, 12))
    rows_of = np.bincount(buckets_of(around, fitted(around, 12)))
    assert len(rows_of) == 12
    assert (rows_of == 900).sum() == 2
    assert where[-1] == where[-2] == 11
    assert rows_of.max() == 900
    assert sorted(rows_of)[-3] <= 34


def test_a_count_that_is_mostly_zero_still_tells_rows_apart() -> None:
    """As in click logs: 96 % of rows have no earlier click, the others click the more, the more they had."""
    rng = np.random.default_rng(0)
    count = np.where(rng.random(40_000) < 0.96, 0, rng.geometric(0.15, 40_000)).astype(np.float64)
    label = (rng.random(40_000) < np.where(count == 0, 0.01, 0.04 + 0.03 * np.minimum(count, 20))).astype(np.uint8)
    first, later = slice(0, 20_000), slice(20_000, None)
    rate: dict[str, np.ndarray] = {}
    for name, edges in (("now", fitted(count[first], 16)), ("before", plain_quantiles(count[first], 16))):
        bucket = buckets_of(count, edges)
        clicks = np.bincount(bucket[first], label[first], 17) / np.maximum(np.bincount(bucket[first], minlength=17), 1)
        rate[name] = clicks[bucket[later]]
    raw = auc(label[later], count[later])
    assert raw > 0.7
    assert auc(label[later], rate["before"]) == 0.5  # one bucket for all
    assert abs(auc(label[later], rate["now"]) - raw) < 0.005


# --- in a log


def schema(*fields: dict[str, Any]) -> Schema:
    time = {"column": "t", "unit": "ms"}
    user = {"name": "u", "kind": "hashed", "buckets": 8}
    return Schema.model_validate({"name": "s", "time": time, "user": "u", "tasks": ["y"], "fields": [user, *fields]})


def write(folder: Path, first: list[Any], then: int = 2000, kind: str = "parquet") -> Path:
    """A first day with these values of `n`, and a second day of many rows; in a CSV or a Parquet file."""
    values = [*first, *np.random.default_rng(0).gamma(2, 5, then).round(2).tolist()]
    step = 40_000
    t = np.concatenate([BEGIN + np.arange(len(first)) * 1000, BEGIN + DAY + np.arange(then) * step])
    table = pa.table({"t": t, "u": t % 7, "y": t // 1000 % 2, "n": pa.array(values, pa.float64())})
    path = folder / f"x.{kind}"
    pa_csv.write_csv(table, path) if kind == "csv" else pq.write_table(table, path, row_group_size=300)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("transform", ["quantile", "log"])
def test_a_first_block_of_three_rows_is_refused_and_the_remedy_helps(tmp_path: Path, kind: str, transform: str) -> None:
    of = schema({"name": "n", "kind": "numeric", "buckets": 16, "transform": transform})
    path = write(tmp_path, [3.0, 1.0, 2.0], kind=kind)
    with pytest.raises(
        SchemaError, match=r"'n' has 3 values in the first block, .* 16 buckets .* 320 are needed"
    ) as caught:
        ingest(of, [path], tmp_path / "log", by="day", shard_rows=100)
    assert not (tmp_path / "log").exists()
    (rows,) = re.findall(r"--by (\d+) is enough", str(caught.value))
    assert 320 <= int(rows) < 520  # to the end of a shard
    ingest(of, [path], tmp_path / "log", by=int(rows))
    assert len(parse_json(Edges, edges_file(tmp_path / "log")).edges["n"]) == 15
    assert open_log(tmp_path / "log").notes == []


def test_missing_values_are_no_values(tmp_path: Path) -> None:
    of = schema({"name": "n", "kind": "numeric", "buckets": 4})
    path = write(tmp_path, [*[None] * 500, *np.arange(79.0)])
    with pytest.raises(SchemaError, match="has 79 values in the first block"):
        ingest(of, [path], tmp_path / "log", by="day")


@pytest.mark.parametrize("first", [np.arange(80.0).tolist(), [0.0, 1.0] * 20])
def test_twenty_values_per_bucket_or_per_different_value_are_enough(tmp_path: Path, first: list[float]) -> None:
    path = write(tmp_path, first)
    ingest(schema({"name": "n", "kind": "numeric", "buckets": 4}), [path], tmp_path / "log", by="day")
    assert parse_json(Edges, edges_file(tmp_path / "log")).edges["n"] == fitted(first, 4)


def test_a_log_without_enough_values_anywhere_is_read_and_told(tmp_path: Path) -> None:
    fields = [
        {"name": "n", "kind": "numeric", "buckets": 16},
        {"name": "m", "column": "n", "kind": "numeric", "buckets": 5},
    ]
    path = write(tmp_path, np.arange(100.0).tolist(), 0)
    ingest(schema(*fields), [path], tmp_path / "log", by="day")
    (note,) = open_log(tmp_path / "log").notes
    assert note.column == "n"
    assert "'n': its 16 buckets are fitted on 100 values in the first block; 320 or more would fit better" in note.what


def test_a_field_with_one_bucket_is_told(tmp_path: Path) -> None:
    fields = [
        {"name": "n", "kind": "numeric", "buckets": 3},
        {"name": "m", "column": "n", "kind": "numeric", "buckets": 3, "transform": "log"},
    ]
    path = write(tmp_path, [7.0] * 100, 0)
    ingest(schema(*fields), [path], tmp_path / "log", by="day")
    notes = [str(note) for note in open_log(tmp_path / "log").notes]
    assert notes == [
        f"n: numeric field {name!r}: all its values in the first block are in one bucket, so that it tells no rows apart there"
        for name in "nm"
    ]


def test_first_blocks_that_are_long_enough_do_not_see_later_values(tmp_path: Path) -> None:
    """Edges come from the first block alone, so that time does not leak."""
    of = schema({"name": "n", "kind": "numeric", "buckets": 4})
    first = np.random.default_rng(3).normal(size=90).tolist()
    ingest(of, [write(tmp_path, first)], tmp_path / "log", by="day")
    ingest(of, [tmp_path / "x.parquet"], tmp_path / "one", by="day", blocks=1)
    ids = [open_log(tmp_path / name).read_block(open_log(tmp_path / name).blocks[0]).ids for name in ("log", "one")]
    np.testing.assert_array_equal(*ids)
    assert parse_json(Edges, edges_file(tmp_path / "log")).edges["n"] == plain_quantiles(np.array(first), 4)
