from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from diet_ray.schema import HashedField, Schema, SequenceField, Time, VocabularyField
from diet_ray.training.embedding import PAGE, STD, Embedding, lookup, new_rows

SINGLE = Schema(
    name="single",
    time=Time(column="t"),
    user="u",
    tasks=["y"],
    fields=[HashedField(name="a", buckets=5), VocabularyField(name="b")],
)
MULTI = Schema(
    name="multi",
    time=Time(column="t"),
    user="u",
    tasks=["y"],
    fields=[
        HashedField(name="a", buckets=5),
        VocabularyField(name="tags", max_values=3),
        VocabularyField(name="b"),
        VocabularyField(name="c", max_values=2),
    ],
)
SEQUENCES = Schema(
    name="sequences",
    time=Time(column="t"),
    user="u",
    tasks=["y"],
    fields=[
        SequenceField(name="past", of="a", length=2, pool="none"),
        HashedField(name="a", buckets=5),
        SequenceField(name="mean", of="a", length=3),
    ],
)
N_IDS = 20


def slots(schema: Schema) -> Tensor:
    return torch.from_numpy(schema.field_of_slot)


def slow(table: Tensor, ids: Tensor, schema: Schema) -> Tensor:
    out = torch.zeros(len(ids), schema.n_fields, table.shape[1])
    for b in range(len(ids)):
        for f in range(schema.n_fields):
            values = [int(ids[b, s]) for s in range(schema.n_slots) if schema.field_of_slot[s] == f and ids[b, s] != 0]
            values = [f + 1 if value >= len(table) else value for value in values]
            if values:
                out[b, f] = sum(table[value] for value in values) / len(values)
    return out


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("schema", [SINGLE, MULTI, SEQUENCES], ids=["single", "multi", "sequences"])
# The first call of a process pays for imports inside torch: no deadline, which would fail by chance.
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_lookup_is_its_definition(schema: Schema, kind: torch.dtype, data: st.DataObject) -> None:
    row = st.lists(st.integers(0, N_IDS + 5), min_size=schema.n_slots, max_size=schema.n_slots)
    raw = data.draw(st.lists(row, max_size=5))
    ids = torch.tensor(raw, dtype=kind).view(-1, schema.n_slots)
    table = new_rows(0, N_IDS, 3, seed=1)
    x = lookup(table, ids, slots(schema))
    assert x.shape == (len(ids), schema.n_fields, 3)
    torch.testing.assert_close(x, slow(table, ids, schema))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("schema", [SINGLE, MULTI, SEQUENCES], ids=["single", "multi", "sequences"])
def test_gradient_is_that_of_the_definition(schema: Schema, sparse: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, N_IDS + 5, (40, schema.n_slots), generator=generator)
    layer = Embedding(schema, N_IDS, 3, seed=1, sparse=sparse)
    weight = torch.randn(40, schema.n_fields, 3, generator=generator)
    (layer(ids) * weight).sum().backward()
    table = layer.weight.detach().clone().requires_grad_()
    (slow(table, ids, schema) * weight).sum().backward()
    assert layer.weight.grad.is_sparse == sparse
    got = layer.weight.grad.to_dense()
    torch.testing.assert_close(got, table.grad)
    assert not got[0].any()


@pytest.mark.parametrize("schema", [SINGLE, MULTI, SEQUENCES], ids=["single", "multi", "sequences"])
def test_sparse_adam_moves_only_rows_seen(schema: Schema) -> None:
    layer = Embedding(schema, N_IDS, 3, seed=1, sparse=True)
    before = layer.weight.detach().clone()
    ids = torch.zeros(4, schema.n_slots, dtype=torch.int32)
    ids[:, 0], ids[0, 1] = 7, 99
    optimiser = torch.optim.SparseAdam(layer.parameters(), lr=0.1)
    layer(ids).square().sum().backward()
    optimiser.step()
    moved = (layer.weight.detach() != before).any(1).nonzero().flatten().tolist()
    assert moved == [2, 7]
    assert not layer.weight[0].any()


@pytest.mark.parametrize("steps", [[3000], [15, 16, 1024, 1025, 3000], [2048, 2048, 2999, 3000]])
def test_growing_in_steps_is_growing_at_once(steps: list[int]) -> None:
    whole = new_rows(0, 3000, 4, seed=9)
    layer = Embedding(SINGLE, 12, 4, seed=9)
    trained = layer.weight.detach()[5] + 1
    with torch.no_grad():
        layer.weight[5] = trained
    for n in steps:
        layer.grow(n, seed=9)
    assert layer.n_ids == 3000
    assert isinstance(layer.weight, torch.nn.Parameter)
    expected = whole.clone()
    expected[5] = trained
    assert torch.equal(layer.weight.detach(), expected)


def test_new_rows_are_normal_and_seeded() -> None:
    rows = new_rows(0, 4 * PAGE, 16, seed=3)
    assert not rows[0].any()
    assert rows.dtype == torch.float32
    assert rows[1:].std().item() == pytest.approx(STD, rel=0.02)
    assert abs(rows[1:].mean().item()) < 1e-3
    assert len(np.unique(rows.numpy(), axis=0)) == 4 * PAGE
    assert torch.equal(rows[1000:1100], new_rows(1000, 1100, 16, seed=3))
    assert not torch.equal(rows, new_rows(0, 4 * PAGE, 16, seed=4))
    assert new_rows(5, 5, 16, seed=3).shape == (0, 16)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fixed ids of schema 'single' alone are 8"):
        Embedding(SINGLE, 7, 4, seed=0)
    with pytest.raises(ValueError, match="cannot shrink"):
        Embedding(SINGLE, 12, 4, seed=0).grow(11, seed=0)


def train(layer: torch.nn.Module, ids: Tensor, target: Tensor) -> None:
    optimiser = torch.optim.SparseAdam(layer.parameters(), lr=0.01)
    for step in range(5):
        optimiser.zero_grad()
        (layer(ids[step]) - target[step]).square().mean().backward()
        optimiser.step()


def batches() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, N_IDS + 5, (5, 16, MULTI.n_slots), generator=generator, dtype=torch.int32)
    return ids, torch.randn(5, 16, MULTI.n_fields, 3, generator=generator)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    ids, target = batches()
    model = DistributedDataParallel(Embedding(MULTI, N_IDS, 3, seed=1, sparse=True))
    train(model, ids[:, rank::2], target[:, rank::2])
    np.save(f"{folder}/{rank}.npy", model.module.weight.detach().numpy())
    del model  # its threads end before the group that they use does
    dist.barrier()  # and no process leaves while another still talks to it
    dist.destroy_process_group()


def test_two_gloo_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    single = Embedding(MULTI, N_IDS, 3, seed=1, sparse=True)
    train(single, *batches())
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), single.weight.detach().numpy(), atol=1e-6)
