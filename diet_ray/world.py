"""A made-up world of users, items and contexts, from which `diet-ray simulate` draws rows: its config, and who meets what. Pure; no Ray.

A row is drawn by counters: each of its random numbers is a function of the seed, the row's place in its block and what the number is
for. So any part of a block can be drawn without the rest. How labels come about says `diet_ray.truth`.

Popularity: a rank follows a Zipf law cut off at the values present in the block. A keyed permutation turns it into a value: an invertible
hash on the next power of two, walked until it falls among those present (Black & Rogaway 2002), so that a value that enters takes over
a rank and leaves almost all others alone. Two permutations are cross-faded: hot values give way to others over 1/`churn` blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field as Key
from pydantic import model_validator

from diet_ray.schema import Field, Schema, Time
from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.settings import Settings

Finite = Annotated[float, Key(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Key(ge=0, le=1)]


class SimulatedField(Settings):
    """One categorical field. Its values are numbered from 0, and a value's number is its hash bucket: nothing collides."""

    name: str = Key(min_length=1)
    """Name of the field, unique in the config."""
    size: int = Key(ge=2, le=2**30)
    """Number of values that there will ever be."""
    zipf: float = Key(default=1.0, ge=0, le=4)
    """Exponent of the long tail: the r-th value has a share of about r^-zipf; 0 is uniform."""
    of: str | None = None
    """An earlier field that determines this one, such as the item of a category; None where every row draws it anew."""
    weight: Finite = 1.0
    """Factor on the main effects and latent factors of its values; a field of weight 0 tells nothing."""
    start: float = Key(default=1.0, ge=0.01, le=1)
    """Share of the values that are present in the first block."""
    new: Share = 0.0
    """Share of all values that enters with each later block, until all are present: cold start."""
    churn: Share = 0.0
    """Popularity that passes to other values per block: 0.1 has other hot values after ten blocks."""

    @model_validator(mode="after")
    def _consistent(self) -> SimulatedField:
        if self.of is not None and (self.start < 1 or self.new or self.churn):
            raise ValueError(
                f"field {self.name!r} follows {self.of!r}: start, new and churn belong to fields that rows draw"
            )
        return self

    def present(self, block: int) -> int:
        """Number of values that have entered by a block."""
        return min(self.size, math.ceil(self.size * (self.start + self.new * block)))


class SimulateConfig(Settings):
    """A simulated log: its size, its fields, and how labels depend on them. Longer logs begin with the same blocks."""

    name: str = "simulated"
    """Name of the log."""
    rows: int = Key(default=100_000, ge=1, lt=2**32)
    """Rows per block."""
    blocks: int = Key(default=10, ge=1, le=100_000)
    """Number of blocks, a day each."""
    shard_rows: int = Key(default=65_536, ge=1, le=2**24)
    """Rows per shard at most; they are drawn in memory, and so are tables of all fields that have no more values than this."""
    seed: int = Key(default=0, ge=0)
    """Seed of everything random."""
    fields: tuple[SimulatedField, ...] = Key(
        default=(
            SimulatedField(name="user", size=20_000, zipf=0.7, start=0.7, new=0.02),
            SimulatedField(name="item", size=5_000, start=0.7, new=0.02, churn=0.05),
            SimulatedField(name="city", size=100, of="user"),
            SimulatedField(name="category", size=50, of="item", zipf=0.7),
            SimulatedField(name="hour", size=24, zipf=0.3),
            SimulatedField(name="device", size=6),
            SimulatedField(name="place", size=10, zipf=0.7),
            SimulatedField(name="query", size=2_000, zipf=1.1, churn=0.1),
        ),
        min_length=2,
    )
    """The fields, in order."""
    user: str = "user"
    """The field that identifies the user."""
    tasks: dict[str, Annotated[float, Key(gt=0, lt=1)]] = Key(default={"click": 0.2}, min_length=1)
    """The tasks, and the share of positives that each has in the world of the first block."""
    factors: int = Key(default=4, ge=1, le=64)
    """Latent factors per value."""
    main: Finite = 1.0
    """Standard deviation of the sum of main effects, in logits."""
    pairwise: Finite = 0.7
    """Standard deviation of the sum over pairs of fields, in logits; what a linear model cannot learn."""
    higher: Finite = 0.5
    """Standard deviation of the sum over triples of fields, in logits; what a factorisation machine cannot learn."""
    relatedness: Share = 0.5
    """Correlation between the logits of two tasks."""
    drift: Finite = 0.05
    """How fast effects and factors change: between blocks k apart they correlate as exp(-(drift k)^2 / 2)."""
    noise: Share = 0.0
    """Share of labels that are drawn by the task's base rate alone, whatever the ids."""

    @model_validator(mode="after")
    def _consistent(self) -> SimulateConfig:
        names = [field.name for field in self.fields] + list(self.tasks)
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"{doubled[0]!r} names two of the fields and tasks")
        drawn: set[str] = set()
        for field in self.fields:
            if field.of is None:
                drawn.add(field.name)
            elif field.of not in drawn:
                raise ValueError(f"fields: {field.name!r} is of {field.of!r}, which is no earlier field that rows draw")
        if self.user not in drawn:
            raise ValueError(f"user: {self.user!r} is no field that rows draw, such as {min(drawn)!r}")
        telling = sum(field.weight > 0 for field in self.fields)
        for key, least in (("main", 1), ("pairwise", 2), ("higher", 3)):
            if getattr(self, key) and telling < least:
                raise ValueError(f"{key}: needs {least} fields of a weight above 0; set it to 0")
        if self.log_schema.first_static_id[-1] >= 2**31:
            raise ValueError("fields: their sizes add up to more than 2^31 ids")
        return self

    @property
    def log_schema(self) -> Schema:
        """The schema of the simulated log: hashed fields, one bucket per value."""
        return Schema(
            name=self.name,
            time=Time(column="time", unit="ms"),
            user=self.user,
            tasks=list(self.tasks),
            fields=[Field(name=field.name, kind="hashed", buckets=field.size) for field in self.fields],
        )


def draw_values(config: SimulateConfig, block: int, first: int, n: int) -> list[np.ndarray]:
    """`F` arrays `[n]` int64: what each field holds in rows `first` to `first + n` of the stream, as the world is in a block."""
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
    bits = np.random.Philox(key=seed, counter=first // 4)  # a count is four numbers
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
        seed: which permutation.
        size: ids that there will ever be. With one more present, one rank gets the new id, and its old one the new rank.
        present: ids that there are.
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
    """`[n]` int64: the values of a field that others, `owners [n]`, determine."""
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
