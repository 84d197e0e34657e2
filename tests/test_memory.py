"""The memory in the object store: versions, owners, readers, files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import ray

from diet_ray.memory import KEPT_VERSIONS, MemoryShard, ShardedMemory
from diet_ray.store import check_file, read_units
from diet_ray.units import Units, from_arrow, shard_of, to_arrow

pytestmark = pytest.mark.ray


def units(n: int, *, seed: int = 0) -> Units:
    rng = np.random.default_rng(seed)
    return Units(
        unit_id=np.sort(rng.choice(10**6, n, replace=False)).astype(np.int64),
        ids=rng.integers(0, 50, (n, 3)).astype(np.int32),
        delta=rng.normal(size=(n, 3, 4)).astype(np.float32),
        logit=rng.normal(size=(n, 2)).astype(np.float32),
        weight=np.ones(n, np.float32),
        block=np.zeros(n, np.int32),
        label=rng.integers(0, 2, (n, 2)).astype(np.uint8),
        influence=rng.normal(size=n).astype(np.float32),
    )


def same(a: Units, b: Units) -> bool:
    return all(np.array_equal(getattr(a, part.name), getattr(b, part.name)) for part in fields(Units))


@pytest.fixture
def memory(ray_cluster: int) -> Iterator[ShardedMemory]:
    memory = ShardedMemory(3)
    yield memory
    memory.close()


@ray.remote(num_cpus=0)
def read_elsewhere(memory: ShardedMemory) -> np.ndarray:
    return memory.read().unit_id


def test_all_that_is_published_is_read_here_and_elsewhere(memory: ShardedMemory) -> None:
    first, second = units(100), units(70, seed=1)
    memory.publish(first)
    assert same(memory.read(), first)
    memory.publish(second)
    assert same(memory.read(), second)
    assert np.array_equal(ray.get(read_elsewhere.remote(memory)), second.unit_id)


def test_shards_may_be_empty(memory: ShardedMemory) -> None:
    one = units(1)
    memory.publish(one)
    assert same(memory.read(), one)


def test_each_owner_writes_its_own_units(memory: ShardedMemory, tmp_path: Path) -> None:
    published = units(100)
    memory.publish(published)
    entries = memory.write(tmp_path)
    assert [entry.path for entry in entries] == ["memory-00.arrow", "memory-01.arrow", "memory-02.arrow"]
    parts = [read_units(check_file(tmp_path, entry)) for entry in entries]
    for index, part in enumerate(parts):
        assert len(part) > 0
        assert set(shard_of(part.unit_id, 3)) == {index}
    assert same(Units.concat(parts), published)


def test_a_version_lives_as_long_as_somebody_holds_it(ray_cluster: int) -> None:
    owner = MemoryShard.remote()  # type: ignore[attr-defined]
    versions = [units(50, seed=seed) for seed in range(4)]
    ray.get(owner.publish.remote(to_arrow(versions[0])))
    (reference,) = ray.get(owner.latest.remote())
    held = from_arrow(ray.get(reference), "here")
    assert not held.delta.flags.writeable  # mapped from the object store, not copied
    with pytest.raises(ValueError, match="read-only"):
        held.delta[0] = 1.0
    for later in versions[1 : KEPT_VERSIONS + 2]:
        ray.get(owner.publish.remote(to_arrow(later)))
    assert same(held, versions[0])
    (newest,) = ray.get(owner.latest.remote())
    assert same(from_arrow(ray.get(newest), "here"), versions[3])
    ray.kill(owner)
    assert same(held, versions[0])


def test_readers_of_one_version_share_its_bytes(ray_cluster: int) -> None:
    owner = MemoryShard.remote()  # type: ignore[attr-defined]
    ray.get(owner.publish.remote(to_arrow(units(2000))))
    (reference,) = ray.get(owner.latest.remote())
    one, other = (from_arrow(ray.get(reference), "here") for _ in range(2))
    for part in fields(Units):
        a, b = getattr(one, part.name), getattr(other, part.name)
        assert a.__array_interface__["data"] == b.__array_interface__["data"], part.name
    ray.kill(owner)


def test_a_closed_memory_is_gone(ray_cluster: int) -> None:
    memory = ShardedMemory(1)
    memory.publish(units(5))
    memory.close()

    def read_until_gone() -> None:
        # Ray kills an actor in its own time; what matters is that it is gone soon, and that reading then says so.
        until = time.monotonic() + 30
        while time.monotonic() < until:
            memory.read()
            time.sleep(0.05)

    with pytest.raises(ray.exceptions.RayActorError):
        read_until_gone()
