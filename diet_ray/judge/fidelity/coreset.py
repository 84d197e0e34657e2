"""Classical coresets of a block, for the fidelity bench to compare the memory with.

`grand` is a score, like EL2N; `herding` and `k_center` choose by geometry, in the space of the reference's inputs. All of them are
conditioned on labels, as the memory is: the (task, label) cells and their quotas are those of `diet_ray.distill.select`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from diet_ray.distill.select import cell_quotas
from diet_ray.errors import DietError
from diet_ray.logs.blocks import Rows

Method = Literal["herding", "k_center"]

TIE = 1e-9
"""Relative difference of squared distances up to which rows tie: rounding must not decide between rows that mirror each other."""


def grand(net: nn.Module, x: Tensor, labels: Tensor, *, chunk: int = 128) -> Tensor:
    """GraNd of each row and task under one checkpoint: the norm of the gradient of the row's loss (Paul et al. 2021, definition 2.1).

    The gradient is with respect to the net's parameters and the row's own input: these change when the reference learns from the row. Cross
    entropy's gradient is `p - y` times that of the logit, so the norm is `|p - y| * |d logit|`.

    The score of a block is the mean over its K checkpoints. In the selection it replaces EL2N: `Scored(rows, score, probability)`,
    then `sketch` and `choose` with `SelectConfig(strategy="top")`.

    Args:
        net: `[B, F, d]` to `[B, T]` logits, such as `Predictor.net`; it is left in evaluation mode.
        x: `[N, F, d]` inputs.
        labels: `[N, T]`, 0 or 1.
        chunk: rows whose gradients are in memory at a time, one copy of the parameters each.

    Returns:
        `[N, T]`, of the type of `x`.
    """
    net.eval()
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def logit(parameters: dict[str, Tensor], row: Tensor, task: int) -> tuple[Tensor, Tensor]:
        value: Tensor = functional_call(net, parameters, (row[None],))[0, task]
        return value, value.detach()

    parts = []
    for inputs, targets in zip(torch.split(x.detach(), chunk), torch.split(labels.to(x.dtype), chunk), strict=True):
        columns = []
        for task in range(labels.shape[1]):
            gradient = vmap(grad(logit, argnums=(0, 1), has_aux=True), in_dims=(None, 0, None))
            (of_parameters, of_input), value = gradient(parameters, inputs, task)
            pieces = [*of_parameters.values(), of_input]
            # Norms of the pieces first: squares of whole gradients would double the memory.
            norms = torch.stack([torch.linalg.vector_norm(piece.flatten(1), dim=1) for piece in pieces])
            columns.append((torch.sigmoid(value) - targets[:, task]).abs() * torch.linalg.vector_norm(norms, dim=0))
        parts.append(torch.stack(columns, dim=1))
    return torch.cat(parts)


def herding(features: np.ndarray, n: int) -> np.ndarray:
    """Greedy herding (Welling 2009): each step takes the row that brings the mean of those taken closest to the mean of all, no row twice.

    Exact, O(n N D): one pass over the features a step.

    Args:
        features: `[N, D]` float64.
        n: rows to take; all where there are fewer.

    Returns:
        `[min(n, N)]` int64 positions in the order taken; ties (`TIE`) to the smaller position.
    """
    n = min(n, len(features))
    chosen = np.empty(n, dtype=np.int64)
    taken = np.zeros(len(features), dtype=bool)
    mean, missing = features.mean(axis=0), np.zeros(features.shape[1])
    for step in range(n):
        # With k rows taken that sum to s, the mean's distance is |k mean - s| / k: the next row is the one nearest to what is missing.
        missing += mean
        distance = cdist(features, missing[None], "sqeuclidean")[:, 0]
        distance[taken] = np.inf
        chosen[step] = best = np.argmax(distance <= distance.min() * (1 + TIE))
        taken[best] = True
        missing -= features[best]
    return chosen


def k_center(features: np.ndarray, n: int, *, first: int) -> np.ndarray:
    """Farthest-first traversal (Gonzalez 1985; Sener & Savarese 2018, algorithm 1): each step takes the row farthest from those taken.

    The largest distance of any row to its nearest taken one is at most twice that of the best n rows. O(n N D).

    Args:
        features: `[N, D]` float64.
        n: rows to take; all where there are fewer.
        first: position of the row to start from.

    Returns:
        `[min(n, N)]` int64 positions in the order taken; ties (`TIE`) to the smaller position.
    """
    n = min(n, len(features))
    chosen = np.empty(n, dtype=np.int64)
    nearest, best = np.full(len(features), np.inf), first
    for step in range(n):
        chosen[step] = best
        np.minimum(nearest, cdist(features, features[best][None], "sqeuclidean")[:, 0], out=nearest)
        # Below 0, the distance of a row that equals a taken one, because such a row may still be needed.
        nearest[best] = -1
        best = int(np.argmax(nearest >= nearest.max() * (1 - TIE)))
    return chosen


def choose_by_features(rows: Rows, features: np.ndarray, n: int, method: Method) -> np.ndarray:
    """The coreset of a block, by quotas per (task, label) cell as in `diet_ray.distill.select.choose`.

    Cells are filled in order, each from those of its rows that no earlier cell has taken. k-center starts from the row nearest to the
    mean of these rows. The same rows are chosen whatever their order.

    Args:
        rows: N rows of a block.
        features: `[N, F*d]`, their flattened inputs under the block's reference; the computation is in float64.
        n: rows to choose.
        method: how to choose within a cell.

    Returns:
        `[n]` int64 positions in `rows`, by rising row id; fewer only where a cell runs out of rows. Ties to the smaller row id.

    Raises:
        DietError: an input is not finite.
    """
    if not np.isfinite(features).all():
        raise DietError("the reference's inputs are not all finite: it diverged (lower reference.lr or embedding_lr)")
    by_id = np.argsort(rows.row_id, kind="stable")
    labels = rows.labels[by_id]
    cells = [labels[:, task] == label for task in range(labels.shape[1]) for label in (0, 1)]
    quotas = cell_quotas(np.array([cell.sum() for cell in cells]), n)
    taken = np.zeros(len(rows), dtype=bool)
    for cell, quota in zip(cells, quotas.tolist(), strict=True):
        members = np.flatnonzero(cell & ~taken)
        if not quota or not len(members):
            continue
        points = features[by_id[members]].astype(np.float64)
        middle = int(herding(points, 1)[0])
        picks = herding(points, quota) if method == "herding" else k_center(points, quota, first=middle)
        taken[members[picks]] = True
    return by_id[taken]
