import hashlib

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.training.device import generator

MASK = 2**64 - 1
ID = st.integers(-(2**63), 2**63 - 1)


def mix(z: int) -> int:
    """SplitMix64 on Python's integers."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def unshift(z: int, by: int) -> int:
    out = z
    for _ in range(64 // by + 1):
        out = z ^ (out >> by)
    return out


def unmix(z: int) -> int:
    z = unshift(z, 31)
    z = unshift(z * pow(0x94D049BB133111EB, -1, 2**64) & MASK, 27)
    z = unshift(z * pow(0xBF58476D1CE4E5B9, -1, 2**64) & MASK, 30)
    return (z - 0x9E3779B97F4A7C15) & MASK


def test_derive_seed_is_stable_and_separates_purposes() -> None:
    expected = int.from_bytes(hashlib.sha256(b"7/refine/3/12").digest()[:8], "big") >> 1
    assert derive_seed(7, "refine", 3, 12) == expected
    seeds = {derive_seed(seed, *purpose) for seed in range(50) for purpose in (("a",), ("b",), ("a", 1), ("a", 1, 1))}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generator_leaves_the_global_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = (torch.rand(4, generator=generator(1, purpose)) for purpose in ("x", "x", "y"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None)
@given(ids=st.lists(ID, min_size=1, max_size=5), seed=st.integers(0, 2**63 - 1))
def test_uniform_by_id_is_splitmix64(ids: list[int], seed: int) -> None:
    got = uniform_by_id(np.array(ids, dtype=np.int64), seed)
    for id_, value in zip(ids, got, strict=True):
        z = mix(mix((id_ + seed * 0x9E3779B97F4A7C15) & MASK))
        assert 0 < value < 1
        assert abs(value - z / 2**64) < 2.0**-51


def test_uniform_by_id_stays_inside_the_open_interval() -> None:
    for z in (MASK, 0):  # the ids whose hash is all ones, all zeros
        id_ = unmix(unmix(z))
        assert mix(mix(id_)) == z
        (value,) = uniform_by_id(np.array([id_], dtype=np.uint64).view(np.int64), 0)
        assert 0 < value < 1
        assert all(int(value * n) < n for n in range(1, 100))


def test_uniform_by_id_is_uniform_for_each_seed_and_independent_of_neighbours() -> None:
    ids = np.arange(20_000, dtype=np.int64)
    columns = [uniform_by_id(ids, seed) for seed in (0, 1, 2)]
    for u in columns:
        assert kstest(u, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.03
    # Under the next seed a neighbouring id must not repeat this one's number.
    assert abs(np.corrcoef(columns[0][1:], columns[1][:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(columns[0], columns[1])[0, 1]) < 0.03
    shuffled = np.random.default_rng(0).permutation(ids)
    assert np.array_equal(uniform_by_id(shuffled, 0), columns[0][shuffled])
