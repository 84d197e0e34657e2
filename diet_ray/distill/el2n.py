"""Stage step 2: EL2N, how hard each row of the block is for the reference."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_EL2N = math.sqrt(2.0)
"""Largest possible score of one binary task."""


def el2n(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Label-conditioned EL2N of each row and task.

    EL2N is the norm of the error vector of the class probabilities (Paul et al. 2021), averaged over checkpoints; for one binary task
    the two entries are `p - y` and its negative, which gives `sqrt(2) * |p - y|`.

    Args:
        probabilities: `[K, N, T]` float32, probability of label 1 under each of the K checkpoints.
        labels: `[N, T]`, 0 or 1.

    Returns:
        `[N, T]` float32 in [0, sqrt 2].
    """
    return MAX_EL2N * (probabilities - labels.to(probabilities.dtype)).abs().mean(dim=0)


def mean_probability(probabilities: Tensor) -> Tensor:
    """`[N, T]`: the mean over checkpoints of `[K, N, T]` probabilities; the soft label of a unit made from the row."""
    return probabilities.mean(dim=0)


def to_logit(probabilities: Tensor) -> Tensor:
    """Logit of probabilities clamped to [2^-20, 1 - 2^-20], so that it is finite."""
    return torch.logit(probabilities, eps=2.0**-20)
