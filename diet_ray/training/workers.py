"""The workers of one run: a single one, or a torch.distributed group, with the same interface."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from diet_ray.training.device import CPU

M = TypeVar("M", bound=nn.Module)


class Crew(Protocol):
    """The group of workers of a data-parallel step."""

    rank: int
    """Number of this worker, from 0; rank 0 is the leader."""
    size: int
    """Number of workers W."""
    device: torch.device
    """The device on which this worker trains the reference."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over the workers, the same bytes on each."""
        ...

    def barrier(self) -> None:
        """Wait until every worker has called it."""
        ...

    def parallel(self, module: M) -> M | nn.parallel.DistributedDataParallel:
        """The module with gradients averaged over the workers."""
        ...


class Solo:
    """One worker."""

    rank, size = 0, 1

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device

    def sum(self, values: Tensor) -> Tensor:
        """`values` itself."""
        return values

    def barrier(self) -> None:
        """Do nothing: there is no other worker."""

    def parallel(self, module: M) -> M:
        """`module` itself."""
        return module


class Group:
    """The workers of the default torch.distributed process group, gloo: the table's gradients are sparse, and nccl cannot sum these."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def sum(self, values: Tensor) -> Tensor:
        """All-reduce; returns a new tensor."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """A barrier made of an all-reduce on the CPU, so that it uses gloo and needs no device."""
        dist.all_reduce(torch.zeros(1))

    def parallel(self, module: M) -> nn.parallel.DistributedDataParallel:
        """`module` under DDP."""
        return nn.parallel.DistributedDataParallel(module)
