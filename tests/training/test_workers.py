"""The crew alone and as a group of one; that two equal one is shown where they work (reference, refine)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from diet_ray.training.workers import Crew, Group, Solo


@pytest.fixture(params=["solo", "group"])
def crew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crew]:
    if request.param == "solo":
        yield Solo()
        return
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield Group()
    dist.destroy_process_group()


def test_one_worker_leads_and_sums_to_itself(crew: Crew) -> None:
    assert (crew.rank, crew.size) == (0, 1)
    assert crew.device == torch.device("cpu")
    values = torch.tensor([1.5, -2.0], dtype=torch.float64)
    total = crew.sum(values)
    assert torch.equal(total, values)
    assert total.dtype == torch.float64
    crew.barrier()


def test_a_group_sums_into_a_new_tensor(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        values = torch.ones(3)
        assert Group().sum(values).data_ptr() != values.data_ptr()
    finally:
        dist.destroy_process_group()


def test_a_parallel_module_has_the_same_outputs_gradients_and_parameters(crew: Crew) -> None:
    torch.manual_seed(0)
    module, alone = nn.Linear(3, 2), nn.Linear(3, 2)
    alone.load_state_dict(module.state_dict())
    x = torch.randn(5, 3)
    parallel = crew.parallel(module)
    assert torch.equal(parallel(x), alone(x))
    parallel(x).square().sum().backward()
    alone(x).square().sum().backward()
    for mine, theirs in zip(module.parameters(), alone.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


def test_a_sparse_table_is_reduced(crew: Crew) -> None:
    table = nn.Embedding(10, 2, sparse=True)
    crew.parallel(table)(torch.tensor([1, 1, 4])).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.coalesce().indices().flatten().tolist() == [1, 4]
    assert table.weight.grad.to_dense()[1].tolist() == [2.0, 2.0]
