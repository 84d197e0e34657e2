"""Workers that are threads of this process, for tests of what several workers do together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from diet_ray.training.workers import Crew


class ThreadCrew:
    """One of W workers. All of them meet in every call; each puts what it has where the others see it."""

    device = torch.device("cpu")

    def __init__(self, rank: int, slots: list[Any], everyone: threading.Barrier) -> None:
        self.rank, self.size, self._slots, self._everyone = rank, len(slots), slots, everyone

    def barrier(self) -> None:
        self._everyone.wait(timeout=60)

    def sum(self, values: Tensor) -> Tensor:
        total = torch.zeros_like(values)
        for part in self._shared(values):
            total = total + part
        return total

    def sum_rows(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        shared = self._shared((rows, values))
        total, position = torch.unique(torch.cat([one for one, _ in shared]), return_inverse=True)
        every = torch.cat([one for _, one in shared])
        return total, every.new_zeros((len(total), *every.shape[1:])).index_add_(0, position, every)

    def exchange(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        assert sum(send) == len(values)
        came = [parts[self.rank] for parts in self._shared(values.split(list(send)))]
        assert [len(part) for part in came] == list(receive)
        return torch.cat(came)

    def _shared(self, own: Any) -> list[Any]:
        self._slots[self.rank] = own
        self.barrier()
        found = list(self._slots)
        self.barrier()
        return found


def in_threads(workers: int, work: Callable[[Crew], Any]) -> list[Any]:
    """What `work` returns in each of some workers; an error in one ends all of them."""
    slots: list[Any] = [None] * workers
    everyone = threading.Barrier(workers)

    def one(rank: int) -> Any:
        try:
            return work(ThreadCrew(rank, slots, everyone))
        except BaseException:
            everyone.abort()
            raise

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(one, range(workers)))
