"""Random numbers that depend only on the seed and their purpose, so that a resumed stage repeats exactly."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as `derive_seed(7, "refine", stage, round)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(*seed: int) -> np.random.Generator:
    """A numpy generator of that seed, PCG64 by name: `default_rng` may become another one in a later numpy."""
    return np.random.Generator(np.random.PCG64(seed))


def uniform_by_id(ids: np.ndarray, seed: int) -> np.ndarray:
    """`[N]` float64 in (0, 1), a pure function of each id (int64) and the seed, whatever the order or the shard.

    SplitMix64 (Steele et al. 2014) of the id, keyed by the seed.
    """
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(seed & 0xFFFFFFFFFFFFFFFF) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(2):  # twice, so that neighbouring ids under neighbouring seeds do not overlap
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    # 52 bits plus a half: with 53 bits the half would be rounded away, and the largest number would be 1.
    return ((z >> np.uint64(12)).astype(np.float64) + 0.5) / float(2**52)
