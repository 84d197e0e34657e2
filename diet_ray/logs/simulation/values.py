"""Values of the rows of a simulated log: users, items and contexts.

A row is drawn by counters: each of its random numbers is a function of the seed, the row's position in its block and the purpose of the
number. So any part of a block can be drawn without the rest. `labels.py` draws the labels.

Popularity: a rank follows a Zipf law cut off at the values present in the block. A keyed permutation turns the rank into a value. It is an
invertible hash on the next power of two, repeated until its result is a present value (Black & Rogaway 2002). So a new value takes over a
rank, and almost all other values keep theirs. Two permutations are mixed with a changing share: other values become popular over 1/`churn`
blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from diet_ray.logs.simulation.config import SimulateConfig, SimulatedField
from diet_ray.seeds import derive_seed, uniform_by_id


def draw_values(config: SimulateConfig, block: int, first: int, n: int) -> list[np.ndarray]:
    """`F` arrays `[n]` int64: the value of each field in rows `first` to `first + n` of the stream, with the popularity of a block."""
    values: dict[str, np.ndarray] = {}
    sizes = {field.name: field.size for field in config.fields}
    for field in config.fields:
        seed = derive_seed(config.seed, "field", field.name)
        if field.of is None:
            values[field.name] = _drawn(field, block, first, n, seed)
        else:
            values[field.name] = _each(partial(_following, field=field, seed=seed), values[field.of], sizes[field.of])
    return list(values.values())


def uniforms(seed: int, first: int, n: int) -> np.ndarray:
    """`[n]` float64 in [0, 1): numbers `first` to `first + n` of the seed's endless stream (Philox, Salmon et al. 2011)."""
    bits = np.random.Philox(key=seed, counter=first // 4)  # one count gives four numbers
    return np.random.Generator(bits).random(first % 4 + n)[first % 4 :]


def zipf_ranks(u: np.ndarray, n: int, exponent: float) -> np.ndarray:
    """`[N]` int64 ranks from 0 below `n`, the quantiles `u [N]` of a density x^-exponent on [1, n + 1), rounded down."""
    power = 1 - exponent
    x = (1 + u * ((n + 1.0) ** power - 1)) ** (1 / power) if power else (n + 1.0) ** u
    return np.minimum(x.astype(np.int64) - 1, n - 1)


def permuted(ranks: np.ndarray, seed: int, size: int, present: int) -> np.ndarray:
    """`[N]` int64: the ids of `ranks [N]` under the seed's permutation of `present` of at most `size` ids.

    Args:
        ranks: int64 within [0, present).
        seed: of the permutation.
        size: number of ids that there will ever be. When one more is present, one rank gets the new id, and its old id gets the new rank.
        present: number of ids that are present.
    """
    bits = (size - 1).bit_length()
    mask, shift = np.uint64((1 << bits) - 1), np.uint64(max(1, bits // 2))
    keys = [(derive_seed(seed, "times", i) | 1, derive_seed(seed, "plus", i)) for i in range(3)]

    def step(x: np.ndarray) -> np.ndarray:
        for times, plus in keys:
            x = (x * np.uint64(times) + np.uint64(plus)) & mask
            x = x ^ (x >> shift)
        return x

    ids = step(ranks.astype(np.uint64))
    outside = np.flatnonzero(ids >= present)
    while len(outside):
        walked = step(ids[outside])
        ids[outside] = walked
        outside = outside[walked >= present]
    return ids.astype(np.int64)


def _following(owners: np.ndarray, field: SimulatedField, seed: int) -> np.ndarray:
    """`[n]` int64: the values of a field that another field's values, `owners [n]`, determine."""
    return zipf_ranks(uniform_by_id(owners, seed), field.size, field.zipf)


def _drawn(field: SimulatedField, block: int, first: int, n: int, seed: int) -> np.ndarray:
    """`[n]` int64: ids of a field that rows draw."""
    present = field.present(block)
    ranks = zipf_ranks(uniforms(derive_seed(seed, "rank"), first, n), present, field.zipf)
    era, share = divmod(block * field.churn, 1)

    def ids_in(era: int, ranks: np.ndarray) -> np.ndarray:
        key = derive_seed(seed, "era", era)
        return _each(lambda ranks: permuted(ranks, key, field.size, present), ranks, present)

    ids = ids_in(int(era), ranks)
    if share:
        later = np.flatnonzero(uniforms(derive_seed(seed, "era"), first, n) < share)
        ids[later] = ids_in(int(era) + 1, ranks[later])
    return ids


def _each(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray, size: int) -> np.ndarray:
    """`function(values)` of values below `size`, by a table where that is less work."""
    return function(np.arange(size))[values] if size <= len(values) else function(values)
