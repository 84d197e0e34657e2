"""The config of a simulated log (`diet-ray simulate --config X.yaml`)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field as Key
from pydantic import model_validator

from diet_ray.schema import HashedField, Schema, Time
from diet_ray.settings import Settings

Finite = Annotated[float, Key(ge=0, le=100, allow_inf_nan=False)]


Share = Annotated[float, Key(ge=0, le=1)]


class SimulatedField(Settings):
    """One categorical field. Its values are numbered from 0, and a value's number is its hash bucket: no two values collide."""

    name: str = Key(min_length=1)
    """Name of the field, unique in the config."""
    size: int = Key(ge=2, le=2**30)
    """Number of values that there will ever be."""
    zipf: float = Key(default=1.0, ge=0, le=4)
    """Exponent of the long tail: the r-th value has a share of about r^-zipf; 0 is uniform."""
    of: str | None = None
    """An earlier field that determines this one, as an item determines its category; None where every row draws a value."""
    weight: Finite = 1.0
    """Factor on the main effects and latent factors of its values; a field of weight 0 has no effect on labels."""
    start: float = Key(default=1.0, ge=0.01, le=1)
    """Share of the values that are present in the first block."""
    new: Share = 0.0
    """Share of all values that enters with each later block, until all are present: cold start."""
    churn: Share = 0.0
    """Share of the popularity that moves to other values per block: with 0.1, other values are popular after ten blocks."""

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
    """The tasks, each with its expected share of positives in the first block."""
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
            fields=[HashedField(name=field.name, buckets=field.size) for field in self.fields],
        )
