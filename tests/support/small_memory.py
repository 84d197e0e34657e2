"""A memory in this process, made of given units."""

from __future__ import annotations

from diet_ray.config import StreamConfig
from diet_ray.distill.sharded_memory import LocalShards, ShardedMemory
from diet_ray.distill.unit_shard import UnitShard
from diet_ray.memory.units import Units
from diet_ray.schema import Schema
from diet_ray.training.predictor import Predictor


def memory_of(
    units: Units, schema: Schema, stream: StreamConfig, *, shards: int = 3, phi: Predictor | None = None
) -> ShardedMemory:
    memory = ShardedMemory(LocalShards(shards))
    memory.begin(schema, stream)
    memory.add(units)
    for shard in shards_of(memory):
        if phi is not None:
            shard.phi = phi
    memory.open()
    return memory


def shards_of(memory: ShardedMemory) -> list[UnitShard]:
    assert isinstance(memory.shards, LocalShards)
    return memory.shards.shards


def units_of(memory: ShardedMemory) -> Units:
    """All units as they were last settled."""
    return Units.concat([shard.units for shard in shards_of(memory)])
