from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.distill.convert import convert
from diet_ray.distill.select import Scored
from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.run_folder import read_units, write_units
from diet_ray.memory.units import Units, from_arrow, shard_of, to_arrow
from diet_ray.training.embedding import lookup
from tests.support import synthetic

COLUMNS = ("unit_id", "ids", "delta", "logit", "weight", "block", "label", "influence")


def make(m: int, *, tasks: int = 2, seed: int = 0) -> Units:
    rng = np.random.default_rng(seed)
    rows = synthetic.rows(m, tasks=tasks)
    return Units(
        unit_id=rows.row_id,
        ids=rows.ids,
        delta=rng.normal(size=(m, 4, 3)).astype(np.float32),
        logit=rng.normal(size=(m, tasks)).astype(np.float32),
        weight=rng.random(m).astype(np.float32),
        block=rng.integers(0, 3, m).astype(np.int32),
        label=rows.labels,
        influence=rng.normal(size=m).astype(np.float32),
    )


def assert_same(a: Units, b: Units) -> None:
    for name in COLUMNS:
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype, name
        assert np.array_equal(x, y), name
        assert x.shape == y.shape, name


@pytest.mark.parametrize("m", [0, 1, 17])
@pytest.mark.parametrize("tasks", [1, 3])
def test_arrow_and_file_round_trips(m: int, tasks: int, tmp_path: Path) -> None:
    units = make(m, tasks=tasks)
    assert_same(from_arrow(to_arrow(units), "here"), units)
    entry = write_units(tmp_path / "memory-00.arrow", units)
    assert_same(read_units(tmp_path / "memory-00.arrow"), units)
    again = write_units(tmp_path / "memory-01.arrow", units)
    assert again.sha256 == entry.sha256


def test_damage_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory-00.arrow"
    write_units(path, make(50))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not arrow at all"):
        path.write_bytes(damaged)
        with pytest.raises(CorruptArtefactError, match=r"memory-00\.arrow"):
            read_units(path)
    path.unlink()
    with pytest.raises(CorruptArtefactError, match=r"memory-00\.arrow"):
        read_units(path)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_or_mistyped_column_is_refused(column: str) -> None:
    table = to_arrow(make(6))
    with pytest.raises(CorruptArtefactError, match=f"here: .*{column}"):
        from_arrow(table.drop_columns([column]), "here")
    wrong = table.set_column(table.column_names.index(column), column, pa.array(["x"] * 6))
    with pytest.raises(CorruptArtefactError, match="here: not a memory shard"):
        from_arrow(wrong, "here")


def test_a_table_without_its_shape_is_refused() -> None:
    for metadata in (None, {"n_fields": "4"}, {"n_fields": "5", "dim": "3"}, {"n_fields": "x", "dim": "3"}):
        with pytest.raises(CorruptArtefactError, match="here"):
            from_arrow(to_arrow(make(6)).replace_schema_metadata(metadata), "here")


@settings(deadline=None)
@given(n_shards=st.integers(1, 9), seed=st.integers(0, 50))
def test_shards_are_stable_and_in_range(n_shards: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 2**60, 50)
    shards = shard_of(ids, n_shards)
    assert shards.min() >= 0
    assert shards.max() < n_shards
    assert np.array_equal(shard_of(ids[::-1], n_shards)[::-1], shards)  # of the unit alone
    assert np.array_equal(np.concatenate([shard_of(ids[:20], n_shards), shard_of(ids[20:], n_shards)]), shards)


def test_shards_are_even() -> None:
    counts = np.bincount(shard_of(np.arange(8000), 4), minlength=4)
    assert (np.abs(counts - 2000) < 200).all()


def test_concat_orders_by_unit_id() -> None:
    units = make(20)
    order = np.random.default_rng(1).permutation(20)
    assert_same(Units.concat([units.take(order[:7]), units.take(order[7:])]), units)
    assert units.nbytes == sum(getattr(units, name).nbytes for name in COLUMNS)


def test_converted_rows_equal_their_rows() -> None:
    rows = synthetic.rows(30, tasks=2)
    probability = np.random.default_rng(0).random((30, 2)).astype(np.float32)
    probability[0] = (0.0, 1.0)
    units = convert(Scored(rows, probability, probability), block=5, n_fields=4, dim=3)
    table = torch.randn(200, 3)
    slots = synthetic.schema().field_of_slot
    assert torch.equal(units.inputs(table, slots), lookup(table, torch.tensor(rows.ids), torch.tensor(slots)))
    np.testing.assert_allclose(1 / (1 + np.exp(-units.logit)), probability, atol=2e-6)
    assert np.isfinite(units.logit).all()
    assert np.array_equal(units.unit_id, rows.row_id)
    assert np.array_equal(units.label, rows.labels)
    assert set(units.weight) == {1.0}
    assert set(units.block) == {5}
    moved = units.updated(delta=np.ones_like(units.delta))
    assert torch.allclose(moved.inputs(table, slots), units.inputs(table, slots) + 1)
