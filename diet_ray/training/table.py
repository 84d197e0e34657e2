"""The embedding table of the reference with its moments: whole in each worker here, split over the workers in `sharded_table.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from diet_ray.storage.tensors import PIECE_BYTES, Pieces, save_tensors
from diet_ray.training.adam import TableAdam, table_adam
from diet_ray.training.embedding import Embedding
from diet_ray.training.table_rows import TableRows
from diet_ray.training.workers import Crew

MOMENTS = ("exp_avg", "exp_avg_sq")
"""The tensors of the optimiser that have a row for each id."""


@dataclass(frozen=True)
class Gathered(Pieces):
    """Pieces that come from all workers: each of them must read them, and only the leader gets any."""


class Table(Protocol):
    """What a pass needs of the table. Where it is sharded, all workers call each method together."""

    @property
    def n_ids(self) -> int:
        """Rows of the table."""
        ...

    def prepare(self, batches: Sequence[TableRows]) -> list[TableRows]:
        """Find out, for some batches at once, what `values` and `learn` need to know of other workers."""
        ...

    def values(self, batch: TableRows) -> Tensor:
        """The rows of a prepared batch, `[U, d]`."""
        ...

    def learn(self, batch: TableRows, values: Tensor, gradient: Tensor, *, l2: float, crew: Crew | None) -> None:
        """A step of the table's optimiser on the batch of all workers.

        Args:
            batch: the worker's part of it.
            values: the rows, as `values` gave them; may be changed.
            gradient: `[U, d]`, of the worker's part; may be changed.
            l2: times each row is added to the sum of its gradients.
            crew: the workers.
        """
        ...

    def take(self, rows: np.ndarray) -> Tensor:
        """Copies of the rows `[R]`, in memory, `[R, d]`; all workers ask for the same."""
        ...

    def grow(self, n_ids: int, seed: int) -> None:
        """Append rows, so that there are `n_ids`: with the values that `diet_ray.training.embedding.new_rows` gives, and zero moments."""
        ...

    def step(self) -> int:
        """Steps of the optimiser done so far."""
        ...

    def weights(self, rows: np.ndarray | None = None) -> dict[str, Tensor | Pieces]:
        """`table` as `save_shared` writes it, or only some of its rows `[R]`, ascending."""
        ...

    def moments(self, rows: np.ndarray | None = None) -> dict[str, Tensor | Pieces]:
        """`table/exp_avg`, `table/exp_avg_sq` and `table/step`, likewise; empty before the first step."""
        ...


class WholeTable:
    """Each worker has the whole table and moves all rows of a batch."""

    def __init__(self, embedding: Embedding, lr: float) -> None:
        self.embedding, self.lr = embedding, lr
        self.optimiser = self._new_optimiser()

    @property
    def n_ids(self) -> int:
        """See `Table`."""
        return self.embedding.n_ids

    def prepare(self, batches: Sequence[TableRows]) -> list[TableRows]:
        """See `Table`."""
        return list(batches)

    def values(self, batch: TableRows) -> Tensor:
        """See `Table`."""
        return self.embedding.weight.detach().index_select(0, batch.rows)

    def learn(self, batch: TableRows, values: Tensor, gradient: Tensor, *, l2: float, crew: Crew | None) -> None:
        """See `Table`."""
        rows, several = batch.rows, crew is not None and crew.size > 1
        if crew is not None and several:
            rows, gradient = crew.sum_rows(rows, gradient)
            values = self.embedding.weight.detach().index_select(0, rows)
        if l2:
            gradient.add_(values, alpha=l2)
        self.optimiser.learn(rows, values, gradient, alike=several)

    def take(self, rows: np.ndarray) -> Tensor:
        """See `Table`."""
        weight = self.embedding.weight.detach()
        return weight.index_select(0, torch.from_numpy(rows).long().to(weight.device)).cpu()

    def grow(self, n_ids: int, seed: int) -> None:
        """See `Table`."""
        state = self.optimiser.state.pop(self.embedding.weight, {})
        self.embedding.grow(n_ids, seed)
        self.optimiser = self._new_optimiser()
        if state:
            grown = self.optimiser.state[self.embedding.weight]
            grown["step"] = state["step"]
            for name in MOMENTS:  # one after the other, so that memory holds only one of them twice
                moment = state.pop(name)
                grown[name] = nn.functional.pad(moment, (0, 0, 0, n_ids - len(moment)))

    def step(self) -> int:
        """See `Table`."""
        return int(self.optimiser.state[self.embedding.weight].get("step", 0))

    def weights(self, rows: np.ndarray | None = None) -> dict[str, Tensor | Pieces]:
        """See `Table`."""
        return {"table": picked(self.embedding.weight.detach(), rows)}

    def moments(self, rows: np.ndarray | None = None) -> dict[str, Tensor | Pieces]:
        """See `Table`."""
        state = self.optimiser.state[self.embedding.weight]
        if not state:
            return {}
        return {
            "table/step": torch.tensor(self.step()),
            **{f"table/{name}": picked(state[name], rows) for name in MOMENTS},
        }

    def _new_optimiser(self) -> TableAdam:
        return table_adam(self.embedding.weight, self.lr)


def picked(whole: Tensor, rows: np.ndarray | None) -> Tensor | Pieces:
    """Some rows `[R]` of a tensor, piece by piece, or the tensor itself."""
    if rows is None:
        return whole
    at = torch.from_numpy(rows).long()

    def read() -> Iterator[Tensor]:
        return (whole.index_select(0, part.to(whole.device)) for part in torch.split(at, piece_rows(whole.shape[1])))

    return Pieces(whole.dtype, (len(rows), *whole.shape[1:]), read)


def piece_rows(dim: int) -> int:
    """Rows of a table of that width in a piece."""
    return max(1, PIECE_BYTES // (4 * dim))


def save_shared(path: Path, tensors: Callable[[], dict[str, Tensor | Pieces]], crew: Crew) -> None:
    """Write tensors of which other workers may hold parts: the leader writes, the others send. All call it together."""
    if crew.rank == 0:
        save_tensors(path, tensors())
        return
    found = tensors()
    for name in sorted(found):  # the order in which the leader writes them
        value = found[name]
        if isinstance(value, Gathered):
            for _ in value.read():
                pass
