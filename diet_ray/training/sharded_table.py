"""The embedding table split over the workers by rows: worker r of W has the rows of the ids with `id % W == r`, and their moments.

So a shard has as many rows as any other, popular ids are spread, and no row moves when the table grows. For a batch, each worker fetches
the rows that its part of the batch uses from their owners, and sends their gradients back. The owners add these in order of the workers,
as `Crew.sum_rows` does for a whole table, and move their own rows alone: the same bytes as with the whole table in every worker.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from diet_ray.errors import ResourceError
from diet_ray.figures import size
from diet_ray.storage.tensors import Pieces
from diet_ray.training.adam import table_adam
from diet_ray.training.device import put
from diet_ray.training.embedding import PAGE, new_rows
from diet_ray.training.table import MOMENTS, Gathered, piece_rows
from diet_ray.training.table_rows import Route, TableRows
from diet_ray.training.workers import Crew


class RowSource(Protocol):
    """A saved state, of which rows are read without the whole (`diet_ray.memory.table_reader`)."""

    n_ids: int
    """Rows of the table."""
    others: dict[str, Tensor]
    """The tensors that have no row for each id."""

    def take(self, ids: np.ndarray | Tensor, name: str = ...) -> Tensor:
        """The rows of ids `[U]` of a tensor, `[U, d]`."""
        ...


class ShardedTable:
    """A worker's shard, in memory or in files that are mapped; a `diet_ray.training.table.Table`. It lies on the CPU, beside any GPU.

    Room is taken once, for the ids of the last block of the run: growing copies nothing.
    """

    def __init__(
        self, crew: Crew, dim: int, lr: float, *, most_ids: int, on: Literal["ram", "mmap"] = "ram", folder: Path
    ) -> None:
        """An empty shard.

        Args:
            crew: the workers.
            dim: width of the table.
            lr: the table's learning rate.
            most_ids: rows of the table for which there must be room.
            on: whether the shard lies in memory or in files.
            folder: of these files. They have no name there, so that nothing is left of them however the process ends.

        Raises:
            ResourceError: the folder's disk is too small.
        """
        self.crew, self.dim, self.n_ids, self.most_ids = crew, dim, 0, most_ids
        most = _rows_of(crew, most_ids)
        self._stores = {name: _room(most, dim, folder if on == "mmap" else None) for name in ("table", *MOMENTS)}
        self._weight = nn.Parameter(self._stores["table"], requires_grad=False)
        self._optimiser = table_adam(self._weight, lr)
        self._optimiser.state[self._weight] = {"step": 0, **{name: self._stores[name] for name in MOMENTS}}

    def prepare(self, batches: Sequence[TableRows]) -> list[TableRows]:
        """See `Table`: each worker tells the owners which rows it is going to ask for, of all batches in one message."""
        routes = self._routes([batch.rows for batch in batches])
        return [batch._replace(route=route) for batch, route in zip(batches, routes, strict=True)]

    def values(self, batch: TableRows) -> Tensor:
        """See `Table`."""
        return put(self._fetch(_route(batch)), batch.rows.device)

    @torch.no_grad()
    def learn(self, batch: TableRows, values: Tensor, gradient: Tensor, *, l2: float, crew: Crew | None) -> None:
        """See `Table`. `values` are not needed: an owner has its own."""
        route = _route(batch)
        gradient = gradient.detach().cpu()
        if self.crew.size > 1:
            came = self.crew.exchange(gradient.index_select(0, route.order), route.asked, route.given)
            gradient = came.new_zeros((len(route.own), self.dim)).index_add_(0, route.position, came)
        own = self._stores["table"].index_select(0, route.own)
        if l2:
            gradient.add_(own, alpha=l2)
        self._optimiser.learn(route.own, own, gradient, alike=self.crew.size > 1)

    def take(self, rows: np.ndarray) -> Tensor:
        """See `Table`."""
        return self._fetch(self._routes([torch.from_numpy(rows).long()])[0])

    def grow(self, n_ids: int, seed: int) -> None:
        """See `Table`. Each worker draws all new rows, a few pages at a time, and keeps its own."""
        if not self.n_ids <= n_ids <= self.most_ids:
            raise ValueError(f"a table of {self.n_ids} ids, with room for {self.most_ids}, cannot have {n_ids}")
        step = max(1, piece_rows(self.dim) // PAGE) * PAGE
        for start in range(self.n_ids // PAGE * PAGE, n_ids, step):
            first, stop = max(start, self.n_ids), min(start + step, n_ids)
            ids = self._own_ids(first, stop)
            self._stores["table"][ids // self.crew.size] = new_rows(first, stop, self.dim, seed)[ids - first]
        self.n_ids = n_ids

    def step(self) -> int:
        """See `Table`."""
        return int(self._optimiser.state[self._weight]["step"])

    def weights(self, rows: np.ndarray | None = None) -> dict[str, Tensor | Pieces]:
        """See `Table`."""
        return {"table": self._gathered("table", rows)}

    def moments(self, rows: np.ndarray | None = None) -> dict[str, Tensor | Pieces]:
        """See `Table`."""
        if not self.step():
            return {}
        return {
            "table/step": torch.tensor(self.step()),
            **{f"table/{name}": self._gathered(name, rows) for name in MOMENTS},
        }

    def load(self, checkpoint: RowSource, optimiser: RowSource) -> None:
        """Read this worker's rows of a saved table and its moments, piece by piece."""
        if checkpoint.n_ids > self.most_ids:
            raise ValueError(f"a table with room for {self.most_ids} ids cannot have {checkpoint.n_ids}")
        self.n_ids = checkpoint.n_ids
        step = optimiser.others.get("table/step")
        self._optimiser.state[self._weight]["step"] = 0 if step is None else int(step)
        for name, store in self._stores.items():
            if name != "table" and step is None:
                continue
            for start in range(0, self.n_ids, piece_rows(self.dim) * self.crew.size):
                ids = self._own_ids(start, min(start + piece_rows(self.dim) * self.crew.size, self.n_ids))
                source, key = (checkpoint, name) if name == "table" else (optimiser, f"table/{name}")
                store[ids // self.crew.size] = source.take(ids, key)

    def _own_ids(self, start: int, stop: int) -> Tensor:
        """Those of the ids `start..stop` whose rows this worker has, ascending."""
        rank, of = self.crew.rank, self.crew.size
        first = start + (rank - start) % of
        return torch.arange(first, max(first, stop), of)

    def _routes(self, wanted: Sequence[Tensor]) -> list[Route]:
        """How the rows `[U]` of each of some batches get from their owners to this worker, and those of other workers from here."""
        of, n = self.crew.size, len(wanted)
        wanted = [rows.cpu() for rows in wanted]
        if of == 1:
            return [_at_home(rows) for rows in wanted]
        owners = [rows % of for rows in wanted]
        orders = [torch.argsort(owner, stable=True) for owner in owners]
        asked = torch.stack([torch.bincount(owner, minlength=of) for owner in owners])
        # Counts and rows go to each owner batch after batch.
        given = self.crew.exchange(asked.T.reshape(of * n), [n] * of, [n] * of).view(of, n).T
        sorted_rows = [
            torch.split(rows[order], counts.tolist()) for rows, order, counts in zip(wanted, orders, asked, strict=True)
        ]
        sent = torch.cat([parts[owner] for owner in range(of) for parts in sorted_rows])
        came = self.crew.exchange(sent, asked.sum(0).tolist(), given.sum(0).tolist()) // of
        parts_of = came.split(given.T.reshape(-1).tolist())
        routes = []
        for number, order in enumerate(orders):
            at = torch.cat([parts_of[worker * n + number] for worker in range(of)])
            own, position = torch.unique(at, return_inverse=True)
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order))
            routes.append(Route(order, place, asked[number].tolist(), given[number].tolist(), at, own, position))
        return routes

    def _fetch(self, route: Route) -> Tensor:
        own = self._stores["table"].index_select(0, route.at)
        if self.crew.size == 1:
            return own
        return self.crew.exchange(own, route.given, route.asked).index_select(0, route.place)

    def _gathered(self, name: str, rows: np.ndarray | None) -> Gathered:
        n = self.n_ids if rows is None else len(rows)
        return Gathered(torch.float32, (n, self.dim), lambda: self._pieces(name, rows, n))

    def _pieces(self, name: str, rows: np.ndarray | None, n: int) -> Iterator[Tensor]:
        """For the leader, the rows of all workers, piece by piece; nothing for the others, who send."""
        of, rank, leads = self.crew.size, self.crew.rank, self.crew.rank == 0
        for start in range(0, n, piece_rows(self.dim)):
            stop = min(start + piece_rows(self.dim), n)
            ids = torch.arange(start, stop) if rows is None else torch.from_numpy(rows[start:stop]).long()
            owner = ids % of
            counts = torch.bincount(owner, minlength=of).tolist()
            send = [counts[rank] if worker == 0 else 0 for worker in range(of)]
            own = self._stores[name].index_select(0, ids[owner == rank] // of)
            came = self.crew.exchange(own, send, counts if leads else [0] * of)
            if leads:
                piece = torch.empty_like(came)
                piece[torch.argsort(owner, stable=True)] = came
                yield piece


def _route(batch: TableRows) -> Route:
    assert batch.route is not None, "prepare the batch"
    return batch.route


def _at_home(rows: Tensor) -> Route:
    """The route of rows that a single worker has itself."""
    every = torch.arange(len(rows))
    return Route(every, every, [len(rows)], [len(rows)], rows, rows, every)


def _rows_of(crew: Crew, n_ids: int) -> int:
    """Rows of a worker's shard."""
    return len(range(crew.rank, n_ids, crew.size))


def _room(rows: int, dim: int, folder: Path | None) -> Tensor:
    """`[rows, dim]` float32 zeros: memory of which only what is used is taken, or a file without a name that is mapped."""
    length = max(4 * rows * dim, mmap.PAGESIZE)
    try:
        if folder is None:
            mapped = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            with tempfile.TemporaryFile(dir=folder) as file:
                # All of its blocks are taken now: a full disk would later end the process without a word.
                os.posix_fallocate(file.fileno(), 0, length)
                mapped = mmap.mmap(file.fileno(), length)
    except OSError as error:
        where, on, other = ("memory", "ram", "mmap") if folder is None else (str(folder), "mmap", "ram")
        raise ResourceError(
            f"{where}: no room for {size(length)} of a worker's part of the table ({error.strerror}), key 'reference.table.on' being "
            f"{on}; free some, raise cluster.workers with reference.table.shards auto, or set it to {other}"
        ) from error
    return torch.frombuffer(mapped, dtype=torch.float32, count=rows * dim).view(rows, dim)
