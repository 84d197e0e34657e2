"""Units of the shape of a memory of Complete Journey, made from numbers alone, so that each build and the plain loop can make the same.

Needs torch and numpy only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

DIM, IDS, STEPS, BATCH, LR, LAUNCH_LR, TABLE_LR, DRAW = 16, 86_000, 200, 256, 1e-2, 3e-3, 2e-3, 0.75
"""The width of embeddings, rows of a table, and how students train by default; the last but one is the table's rate in a launch."""


class Units(NamedTuple):
    """M units over F fields."""

    ids: Tensor
    """`[M, F]` int64."""
    x: Tensor
    """`[M, F, d]` float32."""
    logit: Tensor
    """`[M, 1]` float32."""
    weight: Tensor
    """`[M]` float32."""


def made_units(ids: Tensor) -> Units:
    """Units that use these ids."""
    rng = torch.Generator().manual_seed(0)
    m, fields = ids.shape
    x, logit = 0.05 * torch.randn(m, fields, DIM, generator=rng), torch.randn(m, 1, generator=rng) - 1
    return Units(ids, x, logit, torch.rand(m, generator=rng) + 0.5)


def own_ids(values: np.ndarray, sizes: Sequence[int]) -> Tensor:
    """`[M, F]` int64: the ids of one table for values of fields of these sizes; each field has ids of its own, from F + 1 on."""
    firsts = len(sizes) + 1 + np.cumsum([0, *sizes[:-1]])
    return torch.from_numpy(values + firsts)


def answer(made_rows: Any, seconds: Callable[[str, bool, Units], float]) -> None:
    """Print what `seconds` gives for each line of the input, until it ends: the name of a net, or `launched` and a name.

    The process's arguments are the shape of the rows and the number of units; `made_rows` is the module that makes them.
    """
    shape, m = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    units = made_units(own_ids(made_rows.made_ids(shape, m), made_rows.VALUES[shape]))
    for line in sys.stdin:
        way, _, name = line.strip().rpartition(" ")
        print(seconds(name, bool(way), units), flush=True)
