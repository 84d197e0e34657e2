"""Stage step 5: move old units from the embedding space of phi_{t-1} to that of phi_t."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diet_ray.memory.units import Units

RIDGE = 1e-3
"""Ridge penalty as a share of the mean squared norm of a field's embeddings."""


@dataclass(frozen=True)
class Moments:
    """The sums over units on which the maps of the fields are fitted; the moments of several shards can be added."""

    cross: Tensor
    """`[F, d, d]` float64, old^T new."""
    gram: Tensor
    """`[F, d, d]` float64, old^T old."""

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.cross + other.cross, self.gram + other.gram)


def moments(old: Tensor, new: Tensor) -> Moments:
    """The moments of M units' embeddings, `old` and `new` `[M, F, d]` float32."""
    a, b = old.double().transpose(0, 1), new.double().transpose(0, 1)
    return Moments(a.transpose(1, 2) @ b, a.transpose(1, 2) @ a)


def align(
    units: Units,
    old: Tensor | None,
    new: Tensor,
    maps: Tensor | None,
    predict: Callable[[Tensor], Tensor],
    relabel: float,
) -> Units:
    """Move units of M_{t-1} to the space of phi_t and relabel them (module A of the paper, figure 2).

    Without maps, delta does not change and the ids are looked up in the new table, so that `x = E_t[ids] + delta` (`reembed`). With maps,
    the old input `x = E_{t-1}[ids] + delta` is mapped to the new space, and delta becomes its difference to `E_t[ids]`.

    Args:
        units: M units.
        old: `[M, F, d]` float32, `E_{t-1}[ids]`; not read without maps.
        new: `[M, F, d]` float32, `E_t[ids]`.
        maps: `[F, d, d]` float32 (see `field_maps`), or None.
        predict: phi_t's net, `[M, F, d]` inputs to `[M, T]` logits.
        relabel: g of `logit <- (1 - g) * logit + g * phi_t(x)`.
    """
    delta = torch.tensor(units.delta)
    if maps is not None:
        assert old is not None
        delta = torch.einsum("mfd,fde->mfe", old + delta, maps) - new
    logit = torch.tensor(units.logit)
    if relabel:
        logit = (1 - relabel) * logit + relabel * predict(new + delta)
    return units.updated(delta=delta.numpy(), logit=logit.numpy())


def field_maps(moments: Moments, method: str) -> Tensor:
    """Per-field maps A with `old[:, f] @ A[f] ~ new[:, f]`.

    Args:
        moments: moments of the embeddings.
        method: `ridge` (least squares, shrunk toward the identity), `procrustes` (the orthogonal map; Schoenemann 1966) or `none`.

    Returns:
        `[F, d, d]` float32.
    """
    n_fields, dim = moments.gram.shape[:2]
    eye = torch.eye(dim, dtype=torch.float64).expand(n_fields, dim, dim)
    if method == "none":
        return eye.float()
    if method == "procrustes":
        u, _, vh = torch.linalg.svd(moments.cross)
        return torch.matmul(u, vh).float()
    penalty = RIDGE * moments.gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)[:, None, None] * eye
    maps: Tensor = torch.linalg.solve(moments.gram + penalty, moments.cross + penalty)
    return maps.float()
