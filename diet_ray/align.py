"""Stage step 5: old units follow the reference from phi_{t-1} to phi_t. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diet_ray.config import AlignConfig
from diet_ray.embedding import lookup
from diet_ray.units import Units

RIDGE = 1e-3
"""Ridge penalty as a share of the mean squared norm of a field's embeddings."""


def align(
    units: Units,
    old_table: Tensor,
    new_table: Tensor,
    field_of_slot: np.ndarray,
    predict: Callable[[Tensor], Tensor],
    config: AlignConfig,
) -> Units:
    """Move the units of M_{t-1} to the space of phi_t and relabel them (module A of the paper, figure 2).

    `reembed` keeps delta and looks the ids up in the new table, so that `x = E_t[ids] + delta`. The other methods move the old input
    `x = E_{t-1}[ids] + delta` itself: through a per-field d x d map fitted on the units' own embeddings (`ridge`, `procrustes`: an
    orthogonal one), or not at all (`none`); delta then takes up the difference to `E_t[ids]`.

    Args:
        units: M units.
        old_table: `[n_{t-1}, d]` float32.
        new_table: `[n_t, d]` float32, n_t >= n_{t-1}.
        field_of_slot: `[S]` int64.
        predict: phi_t's net, `[M, F, d]` inputs to `[M, T]` logits.
        config: method and rate of relabelling.
    """
    ids, slots = torch.tensor(units.ids), torch.tensor(field_of_slot)
    new = lookup(new_table, ids, slots)
    delta = torch.tensor(units.delta)
    if config.method != "reembed":
        old = lookup(old_table, ids, slots)
        delta = torch.einsum("mfd,fde->mfe", old + delta, field_maps(old, new, config.method)) - new
    logit = torch.tensor(units.logit)
    if config.relabel:
        logit = (1 - config.relabel) * logit + config.relabel * predict(new + delta)
    return units.updated(delta=delta.numpy(), logit=logit.numpy())


def field_maps(old: Tensor, new: Tensor, method: str) -> Tensor:
    """Per-field maps A with `old[:, f] @ A[f] ~ new[:, f]`.

    Args:
        old: `[M, F, d]` float32.
        new: `[M, F, d]` float32.
        method: `ridge` (least squares, shrunk toward the identity), `procrustes` (the orthogonal map; Schoenemann 1966) or `none`.

    Returns:
        `[F, d, d]` float32.
    """
    n_fields, dim = old.shape[1:]
    eye = torch.eye(dim, dtype=torch.float64).expand(n_fields, dim, dim)
    if method == "none":
        return eye.float()
    a, b = old.double().transpose(0, 1), new.double().transpose(0, 1)
    cross = a.transpose(1, 2) @ b
    if method == "procrustes":
        u, _, vh = torch.linalg.svd(cross)
        return torch.matmul(u, vh).float()
    gram = a.transpose(1, 2) @ a
    penalty = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)[:, None, None] * eye
    maps: Tensor = torch.linalg.solve(gram + penalty, cross + penalty)
    return maps.float()
