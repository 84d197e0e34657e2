"""The crew alone and as a group of one; that two equal one is shown where they work (reference, refine)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

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


def test_rows_of_one_worker_are_their_sum(crew: Crew) -> None:
    rows, values = torch.tensor([1, 4]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    summed = crew.sum_rows(rows, values)
    assert torch.equal(summed[0], rows)
    assert torch.equal(summed[1], values)
