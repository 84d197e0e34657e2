"""The memory in shards: where units go, what is decided over all of them, and the owners in the object store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from diet_ray.candidates import build
from diet_ray.config import StreamConfig
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.engine.failures import LostShardError
from diet_ray.engine.owners import OwnedShards
from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.run_folder import read_units
from diet_ray.memory.table_reader import LinkFile
from diet_ray.memory.units import Units, shard_of
from diet_ray.storage.entries import check_file
from diet_ray.storage.tensors import save_tensors
from diet_ray.training.device import generator
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference
from diet_ray.training.student import FlatNet
from tests.support import synthetic
from tests.support.small_memory import memory_of, shards_of, units_of

SCHEMA = synthetic.schema(tasks=2)
STREAM = StreamConfig.model_validate(
    {"log": "x", "reference": {"dim": 3, "nets": [{"name": "lr", "arch": "lr", "adapter": False}]}}
)


def units(n: int, *, seed: int = 0) -> Units:
    rng = np.random.default_rng(seed)
    rows = synthetic.rows(n, tasks=2, block=seed)
    return Units(
        unit_id=np.sort(rng.choice(10**6, n, replace=False)).astype(np.int64),
        ids=rows.ids,
        delta=rng.normal(size=(n, SCHEMA.n_fields, 3)).astype(np.float32),
        logit=rng.normal(size=(n, 2)).astype(np.float32),
        weight=rng.random(n).astype(np.float32),
        block=np.zeros(n, np.int32),
        label=rows.labels,
        influence=rng.normal(size=n).astype(np.float32),
    )


def same(a: Units, b: Units) -> bool:
    return all(np.array_equal(getattr(a, part.name), getattr(b, part.name)) for part in fields(Units))


def phi(seed: int) -> dict[str, torch.Tensor]:
    n_ids = int(SCHEMA.first_static_id[-1])
    return Reference(SCHEMA, STREAM.reference.nets, STREAM.reference, n_ids=n_ids, seed=seed).checkpoint()


def predictor(seed: int) -> Predictor:
    return Predictor(SCHEMA, STREAM.reference.nets, phi(seed))


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_a_position_is_the_rank_by_unit_id_over_all_shards(shards: int) -> None:
    whole = units(50)
    memory = memory_of(whole, SCHEMA, STREAM, shards=shards, phi=predictor(0))
    assert len(memory) == memory.count() == 50
    for number, shard in enumerate(shards_of(memory)):
        assert set(shard_of(shard.units.unit_id, shards)) <= {number}
    rows = torch.randperm(50, generator=generator(1))[:20].sort().values
    taken = memory.take(rows)
    x = whole.inputs(predictor(0).table, SCHEMA.field_of_slot)
    torch.testing.assert_close(taken.x, x[rows], rtol=0, atol=0)
    assert np.array_equal(taken.logit.numpy(), whole.logit[rows])
    assert np.array_equal(taken.weight.numpy(), whole.weight[rows])


def test_what_moves_is_seen_at_once_and_dropped_unless_kept() -> None:
    whole, rows = units(30), torch.tensor([2, 3, 17])
    whole = whole.updated(delta=np.zeros_like(whole.delta))
    for kept in (False, True):
        memory = memory_of(whole, SCHEMA, STREAM, phi=predictor(0))
        before = memory.take(rows)
        memory.move(rows, torch.ones(3, SCHEMA.n_fields, 3), -torch.ones(3, 2))
        after = memory.take(rows)
        # Adam's first step is one learning rate long.
        assert bool(torch.isclose(before.x - after.x, torch.tensor(STREAM.refine.delta_lr), rtol=1e-2).all())
        assert bool(torch.isclose(after.logit - before.logit, torch.tensor(STREAM.refine.logit_lr), rtol=1e-2).all())
        assert torch.equal(memory.take(rows, refined=False).x, before.x)
        memory.settle(kept=kept)
        changed = (units_of(memory).logit != whole.logit).any(axis=1)
        assert np.flatnonzero(changed).tolist() == (rows.tolist() if kept else [])


def test_influence_is_measured_where_units_live_and_the_strongest_of_all_are_chosen() -> None:
    whole = units(40)
    spec = STREAM.refine.proxies[0]
    alone, spread = (memory_of(whole, SCHEMA, STREAM, shards=n, phi=predictor(0)) for n in (1, 5))
    theta = FlatNet(build(spec, SCHEMA.field_names, 3, 2, seed=4)).initial()
    along = torch.randn(len(theta), generator=generator(3))
    chosen = alone.measure(spec, theta, along, 7)
    assert torch.equal(spread.measure(spec, theta, along, 7), chosen)
    for memory in (alone, spread):
        memory.settle(kept=True)
    measured = units_of(spread).influence
    np.testing.assert_allclose(measured, units_of(alone).influence, rtol=1e-4, atol=1e-7)
    assert set(np.argsort(-np.abs(measured))[:7]) == set(chosen.tolist())
    assert spread.measure(spec, theta, along, 99).tolist() == list(range(40))


@pytest.mark.parametrize("method", ["reembed", "ridge", "procrustes", "none"])
def test_alignment_over_shards_is_alignment_of_the_whole(method: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        save_tensors(path, phi(seed))
    align = STREAM.align.model_copy(update={"method": method})
    stream = STREAM.model_copy(update={"align": align})
    found = []
    for shards in (1, 4):
        memory = memory_of(units(60), SCHEMA, stream, shards=shards)
        memory.align(None, paths[0], align)
        assert same(units_of(memory), units(60))  # before the first stage there is nothing to bring along
        memory.align([LinkFile(paths[0], len(phi(0)["table"]))], paths[1], align)
        found.append(units_of(memory))
    np.testing.assert_allclose(found[1].delta, found[0].delta, atol=1e-5)
    np.testing.assert_allclose(found[1].logit, found[0].logit, atol=1e-4)
    assert not np.array_equal(found[0].logit, units(60).logit)
    assert np.array_equal(found[0].delta, units(60).delta) == (method == "reembed")


def test_each_shard_writes_its_own_units_and_any_number_of_shards_loads_them(tmp_path: Path) -> None:
    whole = units(100)
    entries = memory_of(whole, SCHEMA, STREAM, shards=3).write(tmp_path)
    assert [entry.path for entry in entries] == ["memory-00.arrow", "memory-01.arrow", "memory-02.arrow"]
    parts = [read_units(check_file(tmp_path, entry)) for entry in entries]
    for index, part in enumerate(parts):
        assert set(shard_of(part.unit_id, 3)) == {index}
    loaded = memory_of(units(0), SCHEMA, STREAM, shards=5)
    loaded.load(tmp_path, entries)
    assert same(units_of(loaded), whole)
    (tmp_path / "memory-01.arrow").write_bytes(b"")
    with pytest.raises(CorruptArtefactError, match=r"memory-01\.arrow"):
        loaded.load(tmp_path, entries)


def test_shards_may_be_empty() -> None:
    memory = memory_of(units(1), SCHEMA, STREAM, shards=4, phi=predictor(0))
    assert len(memory.take(torch.tensor([0]))) == 1


@pytest.fixture
def owned(ray_cluster: int, tmp_path: Path) -> Iterator[ShardedMemory]:
    save_tensors(tmp_path / "phi.safetensors", phi(0))
    shards = OwnedShards(3)
    memory = ShardedMemory(shards)
    memory.begin(SCHEMA, STREAM)
    memory.align(None, tmp_path / "phi.safetensors", STREAM.align)
    yield memory
    shards.close()


@ray.remote(num_cpus=0)
def taken_elsewhere(memory: ShardedMemory, rows: torch.Tensor) -> np.ndarray:
    memory.open()
    return memory.take(rows).x.numpy()


@pytest.mark.ray
def test_owners_do_what_shards_in_this_process_do(owned: ShardedMemory, tmp_path: Path) -> None:
    whole, rows = units(80), torch.tensor([0, 5, 79])
    local = memory_of(whole, SCHEMA, STREAM, phi=predictor(0))
    owned.add(whole)
    owned.open()
    for memory in (local, owned):
        memory.move(rows, torch.ones(3, SCHEMA.n_fields, 3), torch.ones(3, 2))
    assert torch.equal(owned.take(rows).x, local.take(rows).x)
    assert np.array_equal(ray.get(taken_elsewhere.remote(owned, rows)), local.take(rows).x.numpy())
    (tmp_path / "local").mkdir()
    (tmp_path / "owned").mkdir()
    for memory in (local, owned):
        memory.settle(kept=True)
    assert local.write(tmp_path / "local") == owned.write(tmp_path / "owned")


@pytest.mark.ray
def test_an_owner_that_died_holds_nothing_and_says_so_until_the_run_begins_again(owned: ShardedMemory) -> None:
    owned.add(units(20))
    assert isinstance(owned.shards, OwnedShards)
    victim = owned.shards.owners[1]
    os.kill(ray.get(victim.__ray_call__.remote(lambda owner: os.getpid())), signal.SIGKILL)
    error: Exception = ray.exceptions.RayActorError()
    until = time.monotonic() + 240
    while isinstance(
        error, ray.exceptions.RayActorError
    ):  # Ray restarts the owner in its own time; until then, calls fail
        assert time.monotonic() < until
        time.sleep(0.2)
        try:
            ray.get(victim.do.remote("unit_ids", ()))
        except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as found:
            error = found
    assert isinstance(error.__cause__ or getattr(error, "cause", None), LostShardError)
    owned.begin(SCHEMA, STREAM)
    owned.add(units(20))
    assert owned.count() == 20
