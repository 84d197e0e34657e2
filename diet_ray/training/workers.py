"""The workers of one run: a single one, or a torch.distributed group, with the same interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from diet_ray.training.device import CPU


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

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of a sparse matrix over the workers, the same bytes on each.

        Args:
            rows: `[U]` int64, ascending: those of its rows that are not zero; each worker may have others.
            values: `[U, d]`.

        Returns:
            The same of the sum.
        """
        ...

    def exchange(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Send each worker a part of `values` and receive one from each.

        Args:
            values: `[N, ...]` on the CPU, in order of the workers to whom its rows go.
            send: `[W]`, rows for each worker.
            receive: `[W]`, rows from each worker.

        Returns:
            `[M, ...]`, what came, in order of the workers.
        """
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

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """`rows` and `values` themselves."""
        return rows, values

    def exchange(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """`values` themselves."""
        return values


class Group:
    """The workers of the default torch.distributed process group, gloo, from GPU to GPU, too."""

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

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the rows of all workers on the CPU, as gloo must, and add those that are the same."""
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)]))
        most = int(torch.cat(counts).max())
        own = (rows.cpu(), values.detach().cpu())
        padded = [torch.cat((part, part.new_zeros((most - len(part), *part.shape[1:])))) for part in own]
        gathered = [[torch.empty_like(part) for _ in range(self.size)] for part in padded]
        for parts, part in zip(gathered, padded, strict=True):
            dist.all_gather(parts, part)
        all_rows, all_values = (
            torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)]) for parts in gathered
        )
        total, position = torch.unique(all_rows, return_inverse=True)
        added = all_values.new_zeros((len(total), *values.shape[1:])).index_add_(0, position, all_values)
        return total.to(rows.device), added.to(values.device)

    def exchange(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """All-to-all; returns a new tensor."""
        came = values.new_empty((sum(receive), *values.shape[1:]))
        dist.all_to_all_single(came, values.contiguous(), list(receive), list(send))
        return came
