"""The rows of a table that a batch uses: looked up, and moved by a step of Adam, without a graph or a sparse tensor.

A batch uses a row in several places. Which rows, and where, is found by one sort of integers. A step then takes the rows out of the table,
embeds the batch from them, sums the gradients of the places of each row, and puts the rows back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diet_ray.training.device import put

SORTED_AT_ONCE = 1 << 16
"""Ids whose labels and rows are prepared together."""


class Route(NamedTuple):
    """How the rows of a batch travel between the workers of a sharded table (`sharded_table.py`)."""

    order: Tensor
    """`[U]` int64: the worker's rows in order of their owners."""
    place: Tensor
    """`[U]` int64: where each row is in that order."""
    asked: list[int]
    """`[W]`, rows that the worker needs of each owner."""
    given: list[int]
    """`[W]`, rows that it has to give to each worker."""
    at: Tensor
    """`[G]` int64: where the rows to give are in its own shard, in order of the workers."""
    own: Tensor
    """`[R]` int64, ascending: the distinct rows among these."""
    position: Tensor
    """`[G]` int64: for each row to give its position in `own`."""


class TableRows(NamedTuple):
    """Which rows of a table a batch of B examples with S slots uses, and where."""

    rows: Tensor
    """`[U]` int64, ascending: the distinct ids of the batch."""
    of_place: Tensor
    """`[B * S]` int64: for each slot of each example the position of its id in `rows`."""
    places: Tensor
    """`[B * S]` int64: the slots in order of their ids, slot s of example b being `b * S + s`."""
    first: Tensor
    """`[U]` int64: where the slots of each row begin in `places`."""
    padded: bool
    """Whether the first row is padding, which never changes."""
    route: Route | None = None
    """Where the table is sharded."""

    def embed(self, rows: Tensor, field_of_slot: Tensor) -> Tensor:
        """`[B, F, d]` inputs from the values `[U, d]` of the rows, as `diet_ray.training.embedding.lookup` gives them."""
        n_slots, dim = len(field_of_slot), rows.shape[1]
        n_fields = int(field_of_slot[-1]) + 1
        if n_fields == n_slots:
            return rows.index_select(0, self.of_place).view(-1, n_fields, dim)
        first = torch.searchsorted(field_of_slot, torch.arange(n_fields, device=rows.device))
        starts = torch.arange(0, len(self.of_place), n_slots, device=rows.device)[:, None]
        return F.embedding_bag(
            self.of_place, rows, (starts + first).flatten(), mode="mean", padding_idx=0 if self.padded else None
        ).view(-1, n_fields, dim)

    def gradient(self, by_x: Tensor, field_of_slot: Tensor) -> Tensor:
        """`[U, d]`: the gradients of the rows from that of the inputs, `[B, F, d]`; zero for padding."""
        n_slots, n_fields = len(field_of_slot), by_x.shape[1]
        places, share = self.places, None
        if n_fields != n_slots:
            places = places // n_slots * n_fields + field_of_slot[places % n_slots]
            used = (self.of_place >= int(self.padded)).view(-1, n_slots).to(by_x.dtype)
            counts = by_x.new_zeros(by_x.shape[:2]).index_add_(1, field_of_slot, used)
            share = counts.clamp_(min=1).reciprocal_().flatten()[places]
        # A bag of gradients per row: the sum over the places where the row is used.
        gradient = F.embedding_bag(places, by_x.flatten(0, 1), self.first, mode="sum", per_sample_weights=share)
        if self.padded:
            gradient[0] = 0
        return gradient


def rows_of_batches(
    batches: Sequence[np.ndarray], field_of_slot: np.ndarray, n_ids: int, device: torch.device
) -> list[TableRows]:
    """The rows that each of some batches uses; for several batches at once, because steps between two calls make each slower.

    Args:
        batches: `[B, S]` integers each; B may differ.
        field_of_slot: `[S]`, `Schema.field_of_slot`.
        n_ids: rows of the table; an id that is not in it is read as its field's `unknown` (id f + 1).
        device: of the results.
    """
    unknown, used = field_of_slot + 1, []
    for batch in batches:
        ids = np.where(batch < n_ids, batch, unknown.astype(batch.dtype)).ravel()
        # Id and place in one integer: all are distinct, so every way to sort gives one order. Short integers are sorted twice as fast.
        bits = len(ids).bit_length()
        kind = np.dtype(np.uint32 if bits + n_ids.bit_length() <= 32 else np.uint64)
        keys: np.ndarray = (ids.astype(kind) << bits) + np.arange(len(ids), dtype=kind)
        keys.sort()
        found, places = keys >> bits, (keys & ((1 << bits) - 1)).astype(np.int64)
        new = np.ones(len(ids), bool)
        np.not_equal(found[1:], found[:-1], out=new[1:])
        first, of_place = np.flatnonzero(new), np.empty(len(ids), np.int64)
        of_place[places] = np.cumsum(new) - 1
        rows = found[first].astype(np.int64)
        used.append(
            TableRows(
                rows=put(torch.from_numpy(rows), device),
                of_place=put(torch.from_numpy(of_place), device),
                places=put(torch.from_numpy(places), device),
                first=put(torch.from_numpy(first), device),
                padded=bool((rows[:1] == 0).any()),
            )
        )
    return used
