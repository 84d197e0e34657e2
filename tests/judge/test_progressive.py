"""Progressive validation: the parts of the rows, and metrics against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from diet_ray.errors import CorruptArtefactError
from diet_ray.judge.metrics import gauc
from diet_ray.judge.progressive import days, progressive, read_losses, row_losses, slices, tenths, write_losses
from diet_ray.logs.blocks import Rows
from tests.support.synthetic import rows as synthetic_rows
from tests.support.synthetic import schema

HOUR = 3_600_000


@pytest.fixture
def rows() -> Rows:
    return synthetic_rows(1000)


@pytest.fixture
def logits(rows: Rows) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(rows.labels.shape).astype(np.float32)


def test_losses_are_those_of_scikit_learn(rows: Rows, logits: np.ndarray) -> None:
    losses = row_losses(logits, rows.labels)
    assert losses.dtype == np.float32
    expected = [
        log_loss([y], [p], labels=[0, 1]) for y, p in zip(rows.labels[:50, 0], expit(logits[:50, 0]), strict=True)
    ]
    np.testing.assert_allclose(losses[:50, 0], expected, rtol=1e-5)
    assert losses.mean() == pytest.approx(log_loss(rows.labels[:, 0], expit(logits[:, 0].astype(np.float64))), rel=1e-6)


def test_a_prediction_that_is_not_finite_has_no_loss(rows: Rows, logits: np.ndarray) -> None:
    logits[3], logits[5] = np.nan, np.inf
    assert np.flatnonzero(np.isnan(row_losses(logits, rows.labels)[:, 0])).tolist() == [3, 5]
    measured = progressive(rows, logits, schema(), blocks={"b": 1000}, known_ids=10**6)
    assert np.isnan(measured.whole.metrics["label_0"]["logloss"])
    assert measured.whole.undefined["label_0"]["logloss"] == "predictions are not finite"
    assert measured.tenths["b"][1].undefined == {}


def test_every_part_is_measured_as_scikit_learn_measures_it(rows: Rows, logits: np.ndarray) -> None:
    measured = progressive(rows, logits, schema(), blocks={"a": 600, "b": 3000}, known_ids=10**6, fields=["kind"])
    parts = [
        (measured.whole, np.arange(1000)),
        (measured.tenths["a"][2], np.arange(120, 180)),
        (measured.tenths["b"][0], np.arange(600, 900)),
        (measured.tenths["b"][1], np.arange(900, 1000)),
    ]
    [kind] = [f for f, name in enumerate(schema().field_names) if name == "kind"]
    for part in measured.slices:
        if part.values.startswith("id "):
            parts.append((part, np.flatnonzero(rows.ids[:, kind] == int(part.values[3:]))))
    assert len(parts) > 4
    for part, index in parts:
        labels, scores = rows.labels[index, 0], logits[index, 0]
        metrics = part.metrics["label_0"]
        assert part.rows == len(index)
        assert metrics["auc"] == pytest.approx(roc_auc_score(labels, scores))
        assert metrics["logloss"] == pytest.approx(log_loss(labels, expit(scores.astype(np.float64))))
        assert metrics["gauc"] == pytest.approx(gauc(rows.user[index], labels, scores), nan_ok=True)
        assert metrics["calibration"] == pytest.approx(expit(scores.astype(np.float64)).mean() / labels.mean())


def test_tenths_are_of_the_whole_block() -> None:
    parts = tenths(37, {"a": 25, "b": 31})
    assert [len(part) for part in parts["a"]] == [2, 3, 2, 3, 2, 3, 2, 3, 2, 3]
    assert [len(part) for part in parts["b"]] == [3, 3, 3, 3]
    assert np.concatenate([*parts["a"], *parts["b"]]).tolist() == list(range(37))
    assert list(tenths(25, {"a": 25, "b": 31})) == ["a"]
    assert [len(part) for part in tenths(3, {"a": 4})["a"]] == [1, 1, 1]


def test_more_rows_than_the_blocks_have_are_a_mistake(rows: Rows, logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="1000 rows, the blocks have 999"):
        progressive(rows, logits, schema(), blocks={"a": 999}, known_ids=10)


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [
        ("UTC", "2024-03-31T00:00+00:00"),
        ("Europe/Berlin", "2024-03-30T23:00+00:00"),
        ("Asia/Kathmandu", "2024-03-30T18:15+00:00"),
    ],
)
def test_a_day_begins_at_midnight_of_the_zone(zone: str, midnight: str) -> None:
    begin = int(np.datetime64(midnight[:16], "ms").astype(np.int64))
    time = np.array([begin - 1, begin, begin + 22 * HOUR, begin + 25 * HOUR])
    assert {day: part.tolist() for day, part in days(time, zone).items()} == {
        "2024-03-30": [0],
        "2024-03-31": [1, 2],
        "2024-04-01": [3],
    }


def test_a_day_may_have_23_hours() -> None:
    begin = int(np.datetime64("2024-03-30T23:00", "ms").astype(np.int64))  # the clocks of Berlin go forward on this day
    assert list(days(np.array([begin, begin + 23 * HOUR - 1]), "Europe/Berlin")) == ["2024-03-31"]
    assert list(days(np.array([begin, begin + 23 * HOUR]), "Europe/Berlin")) == ["2024-03-31", "2024-04-01"]


def test_slices_of_new_and_of_frequent_ids() -> None:
    ids = np.full((6, 4), 1, np.int32)
    [user] = [f for f, name in enumerate(schema().field_names) if name == "user"]
    ids[:, user] = [7, 9, 7, 20, 9, 9]
    parts = {name: part.tolist() for name, part in slices(ids, schema(), "user", known_ids=20).items()}
    assert parts == {"new": [3], "known": [0, 1, 2, 4, 5], "id 9": [1, 4, 5], "id 7": [0, 2], "id 20": [3]}
    assert "new" not in slices(ids, schema(), "user", known_ids=21)
    with pytest.raises(ValueError, match="no field 'usr'; fields: user"):
        slices(ids, schema(), "usr", known_ids=20)


def test_losses_are_kept_as_parquet(tmp_path: Path, rows: Rows, logits: np.ndarray) -> None:
    losses = row_losses(logits, rows.labels)
    losses[4] = np.nan
    path = tmp_path / "losses.parquet"
    write_losses(path, rows.row_id, losses, ["label_0"])
    table = pq.read_table(path)
    assert table.schema.names == ["row_id", "label_0_loss"]
    assert table.schema.types == [pa.int64(), pa.float32()]
    row_id, read = read_losses(path, ["label_0"])
    assert np.array_equal(row_id, rows.row_id)
    assert np.array_equal(read, losses, equal_nan=True)
    with pytest.raises(CorruptArtefactError, match="expected row_id, click_loss"):
        read_losses(path, ["click"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptArtefactError, match="not a readable Parquet file"):
        read_losses(path, ["label_0"])
    with pytest.raises(CorruptArtefactError, match=r"none\.parquet"):
        read_losses(tmp_path / "none.parquet", ["label_0"])
