"""The shared embedding layer: one fused table for all fields, and the lookup that turns ids into the input of a candidate."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diet_ray.schema import Schema
from diet_ray.seeds import numpy_generator

STD = 0.05
"""Standard deviation of a new row."""
PAGE = 1024
"""Rows drawn from one generator. Part of the format: another value gives another table."""


class Embedding(nn.Embedding):
    """The fused table `[n_ids, d]` float32 of all fields; ids `[B, S]` -> `x [B, F, d]` (see `lookup`).

    With `sparse`, gradients are sparse: only rows that a batch uses are sent and updated, so the optimiser must be
    `torch.optim.SparseAdam` or plain SGD. The class derives from `nn.Embedding` because DDP finds sparse gradients by
    that class; it cannot reduce the sparse gradient of any other module. A pass of the reference makes no such gradient
    (`diet_ray.training.table_rows`).
    """

    field_of_slot: Tensor

    def __init__(self, schema: Schema, n_ids: int, dim: int, seed: int, *, sparse: bool = False) -> None:
        least = int(schema.first_static_id[-1])
        if n_ids < least:
            raise ValueError(f"n_ids is {n_ids}, but the fixed ids of schema {schema.name!r} alone are {least}")
        super().__init__(n_ids, dim, padding_idx=0, sparse=sparse, _weight=new_rows(0, n_ids, dim, seed))
        self.register_buffer("field_of_slot", torch.from_numpy(schema.field_of_slot), persistent=False)

    @property
    def n_ids(self) -> int:
        """Rows of the table; ids from this number on are unknown."""
        return self.num_embeddings

    def forward(self, ids: Tensor) -> Tensor:
        """`[B, S]` int32 or int64 -> `[B, F, d]`."""
        return lookup(self.weight, ids, self.field_of_slot, sparse=self.sparse)

    def grow(self, n_ids: int, seed: int) -> None:
        """Append rows, so that the table has `n_ids`; with the same seed, growing in several steps gives the same table as in one.

        `weight` becomes a new parameter: create a new optimiser and a new DDP wrapper afterwards.

        Raises:
            ValueError: `n_ids` is below the present size; tables never shrink.
        """
        if n_ids < self.n_ids:
            raise ValueError(f"a table of {self.n_ids} ids cannot shrink to {n_ids}")
        fresh = new_rows(self.n_ids, n_ids, self.embedding_dim, seed).to(self.weight)
        self.weight = nn.Parameter(torch.cat((self.weight.detach(), fresh)), requires_grad=self.weight.requires_grad)
        self.num_embeddings = n_ids


def lookup(table: Tensor, ids: Tensor, field_of_slot: Tensor, *, sparse: bool = False) -> Tensor:
    """Embed rows with a table.

    A single-valued field is a plain gather; a multi-valued field is averaged over its non-padding slots, and is zero
    where it has none. Padding (id 0) gives zeros and gets no gradient. An id that entered the vocabulary after the
    table was trained is not in the table and is read as its field's `unknown` (id f + 1).

    Args:
        table: `[n_ids, d]` float32.
        ids: `[B, S]` int32 or int64, non-negative.
        field_of_slot: `[S]` int64, `Schema.field_of_slot` as a tensor.
        sparse: whether the table's gradient is a sparse tensor.

    Returns:
        `[B, F, d]` float32.
    """
    n_rows, n_slots = ids.shape
    unknown = (field_of_slot + 1).to(ids.dtype)
    ids = torch.where(ids < table.shape[0], ids, unknown)
    n_fields = int(field_of_slot[-1]) + 1
    if n_fields == n_slots:
        # The padding row is zero in every table of diet_ray; `padding_idx` only prevents gradients for it.
        return F.embedding(ids, table, padding_idx=0, sparse=sparse)
    first = torch.searchsorted(field_of_slot, torch.arange(n_fields, device=ids.device))
    offsets = (torch.arange(n_rows, device=ids.device)[:, None] * n_slots + first).flatten().to(ids.dtype)
    pooled = F.embedding_bag(ids.flatten(), table, offsets, mode="mean", padding_idx=0, sparse=sparse)
    return pooled.view(n_rows, n_fields, table.shape[1])


def new_rows(start: int, stop: int, dim: int, seed: int) -> Tensor:
    """Initial values of the rows `start..stop`, `[stop - start, d]` float32: N(0, STD^2), and zero for row 0 (padding).

    A row depends only on its id, `dim` and the seed: ids are divided into pages, and each page is drawn by its own generator.
    """
    first, last = start // PAGE, -(-stop // PAGE)
    pages = [numpy_generator(seed, page).standard_normal((PAGE, dim), dtype=np.float32) for page in range(first, last)]
    rows = STD * np.concatenate(pages or [np.empty((0, dim), np.float32)])[start - first * PAGE : stop - first * PAGE]
    if start == 0:
        rows[:1] = 0
    return torch.from_numpy(rows)
