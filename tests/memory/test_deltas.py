"""Deltas in half precision: the form in which a file keeps them, and what is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.deltas import full, full_schema, halved, to_file
from diet_ray.memory.run_folder import read_units, write_units
from diet_ray.memory.units import Units, check_columns, to_arrow

HALF, SINGLE = pa.list_(pa.float16(), 20 * 16), pa.list_(pa.float32(), 20 * 16)


def make(delta: np.ndarray) -> Units:
    m, rng = len(delta), np.random.default_rng(1)
    return Units(
        unit_id=np.arange(m, dtype=np.int64) * 7,
        ids=rng.integers(0, 5000, (m, 20)).astype(np.int32),
        delta=delta,
        logit=rng.normal(size=(m, 2)).astype(np.float32),
        weight=np.ones(m, np.float32),
        block=np.zeros(m, np.int32),
        label=rng.integers(0, 2, (m, 2)).astype(np.uint8),
        influence=rng.normal(size=m).astype(np.float32),
    )


def moved(m: int, share: float, scale: float = 1e-3) -> np.ndarray:
    """`[m, 20, 16]`: deltas as refinement leaves them, of a share of the units."""
    rng = np.random.default_rng(2)
    delta = halved(torch.tensor(rng.normal(0, scale, (m, 20, 16)), dtype=torch.float32)).numpy()
    delta[rng.random(m) >= share] = 0
    return delta


def test_only_units_with_a_delta_have_one_in_the_file(tmp_path: Path) -> None:
    units = make(moved(200, 0.3))
    write_units(tmp_path / "memory-00.arrow", units)
    with pa.ipc.open_file(tmp_path / "memory-00.arrow") as file:
        column = file.read_all()["delta"]
    assert column.type == HALF
    assert np.array_equal(column.is_valid().to_numpy(), units.delta.any(axis=(1, 2)))
    back = read_units(tmp_path / "memory-00.arrow")
    assert back.delta.dtype == np.float32
    assert all(np.array_equal(getattr(back, name), getattr(units, name)) for name in vars(units))
    again = write_units(tmp_path / "memory-01.arrow", back)
    assert (tmp_path / "memory-00.arrow").read_bytes() == (tmp_path / "memory-01.arrow").read_bytes()
    assert again.bytes < 0.6 * write_units(tmp_path / "all.arrow", make(moved(200, 1))).bytes


@pytest.mark.parametrize(
    "delta",
    [
        np.zeros((30, 20, 16), np.float32),
        np.random.default_rng(0).normal(size=(30, 20, 16)).astype(np.float32),
        np.full((30, 20, 16), 1e6, np.float32),
        np.zeros((0, 20, 16), np.float32),
    ],
    ids=["no unit moved", "made by maps", "beyond half precision", "no unit"],
)
def test_what_half_precision_does_not_hold_or_need_is_kept_as_before(delta: np.ndarray, tmp_path: Path) -> None:
    units = make(delta)
    table = to_file(units)
    assert table.schema.field("delta").type == SINGLE
    assert table.equals(to_arrow(units), check_metadata=True)
    write_units(tmp_path / "memory-00.arrow", units)
    assert np.array_equal(read_units(tmp_path / "memory-00.arrow").delta, delta)


def test_the_schema_alone_tells_the_shape() -> None:
    table = to_file(make(moved(10, 0.5)))
    assert check_columns(full_schema(table.schema), "here") == (20, 16)
    assert full_schema(table.schema).types == full(table).schema.types
    with pytest.raises(CorruptArtefactError, match="'delta' is there 0 times"):
        check_columns(full_schema(table.drop_columns(["delta"]).schema), "here")


def test_chunks_and_parts_of_a_table_are_read(tmp_path: Path) -> None:
    units = make(moved(40, 0.5))
    table = to_file(units)
    parts = pa.concat_tables([table.slice(5, 13), table.slice(18)])
    values = full(parts)["delta"].combine_chunks().flatten().to_numpy()
    assert np.array_equal(values, units.delta[5:].reshape(-1))
    assert len(full(table.slice(0, 0))) == 0


def test_a_missing_number_inside_a_delta_is_refused(tmp_path: Path) -> None:
    table = to_file(make(moved(10, 1)))
    values = table["delta"].combine_chunks().flatten()
    holed = pa.array(values.to_numpy(), mask=np.arange(len(values)) == 5)
    table = table.set_column(2, "delta", pa.FixedSizeListArray.from_arrays(holed, 320))
    path = tmp_path / "memory-00.arrow"
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(CorruptArtefactError, match=r"memory-00\.arrow: not a memory shard"):
        read_units(path)


@given(st.lists(st.floats(-65000, 65000, width=32), min_size=1, max_size=20))
def test_halving_keeps_eleven_bits_and_is_done_once(values: list[float]) -> None:
    exact = torch.tensor(values)
    half = halved(exact)
    assert half.dtype == torch.float32
    assert torch.equal(halved(half), half)
    assert bool(((half - exact).abs() <= exact.abs() * 2**-11 + 2**-25).all())
    assert not bool(torch.signbit(half[half == 0]).any())


def test_a_delta_beyond_half_precision_is_not_clamped() -> None:
    assert halved(torch.tensor([1e5, -1e5])).tolist() == [float("inf"), float("-inf")]
