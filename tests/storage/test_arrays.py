import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.storage.arrays import column_of, values_of

KINDS = ["int32", "int64", "uint8", "float32", "float64"]


def array(n: int, width: int, kind: str) -> np.ndarray:
    values = np.random.default_rng(n * 31 + width).integers(0, 200, (n, width) if width else n).astype(kind)
    return np.asarray(values)


@settings(deadline=None)
@given(n=st.integers(0, 9), width=st.integers(0, 4), kind=st.sampled_from(KINDS), cut=st.integers(0, 9))
def test_round_trip_over_any_chunks(n: int, width: int, kind: str, cut: int) -> None:
    values = array(n, width, kind)
    chunks = [column_of(values[:cut]), column_of(values[cut:])]
    back = values_of(pa.chunked_array(chunks))
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert np.array_equal(back, values)


@pytest.mark.parametrize("width", [0, 3])
def test_no_chunk_and_sliced_columns(width: int) -> None:
    values = array(8, width, "float32")
    column = pa.chunked_array([column_of(values)])
    none = pa.chunked_array([], type=column.type)
    assert values_of(none).shape == ((0, width) if width else (0,))
    assert np.array_equal(values_of(column.slice(2, 3)), values[2:5])


def test_one_chunk_is_shared_not_copied() -> None:
    column = pa.chunked_array([column_of(array(6, 2, "float32"))])
    address = column.chunk(0).flatten().buffers()[1].address
    assert values_of(column).__array_interface__["data"][0] == address


def test_a_transposed_array_keeps_its_values() -> None:
    values = array(3, 4, "int32").T
    assert np.array_equal(values_of(pa.chunked_array([column_of(values)])), values)


def test_nulls_are_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        values_of(pa.chunked_array([pa.array([1, None, 3], pa.int64())]))
