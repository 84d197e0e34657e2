import subprocess
import sys

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


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_columns_are_those_of_pyarrow_and_share_memory(kind: str) -> None:
    values = np.arange(12).astype(kind)
    column = column_of(values)
    assert column.equals(pa.array(values))
    part = values_of(pa.chunked_array([column.slice(3, 4)]))
    assert part.dtype == values.dtype
    assert part.tolist() == [3, 4, 5, 6]
    assert np.shares_memory(part, values)
    assert not part.flags.writeable
    lists = values_of(pa.chunked_array([column_of(values.reshape(4, 3)).slice(1, 2)]))
    np.testing.assert_array_equal(lists, values.reshape(4, 3)[1:3])


def test_numbers_need_no_pandas() -> None:
    """In the second of its import, Ctrl-C and SIGTERM would be lost."""
    code = (
        "import sys, numpy as np, pyarrow as pa\nfrom diet_ray.storage.arrays import column_of, values_of\n"
        "assert values_of(pa.chunked_array([column_of(np.arange(6.0).reshape(3, 2))])).shape == (3, 2)\n"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
