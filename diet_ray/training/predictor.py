"""Predictions by a checkpoint of the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diet_ray.candidates import CandidateSpec
from diet_ray.config import Precision
from diet_ray.schema import Schema
from diet_ray.training.device import CPU, autocast, put
from diet_ray.training.embedding import lookup
from diet_ray.training.reference import Committee, Mean


class Predictor:
    """Predicts with a checkpoint: `[N, S]` ids to `[N, T]` logits on the device."""

    def __init__(
        self,
        schema: Schema,
        nets: list[CandidateSpec],
        checkpoint: dict[str, Tensor],
        *,
        device: torch.device = CPU,
        precision: Precision = "float32",
        rows: np.ndarray | None = None,
    ) -> None:
        """Load a checkpoint.

        Args:
            schema: of the log.
            nets: of the reference.
            checkpoint: `table` and `net.*`.
            device: where to predict.
            precision: of matrix products.
            rows: `[R]`, ascending from 0, the padding: the ids of the rows of `table`, where it is not whole. No other is looked up.
        """
        self.rows = rows
        self.device, self.precision = device, precision
        self.table = checkpoint["table"].to(device)
        self.field_of_slot = torch.tensor(schema.field_of_slot, device=device)
        committee = Committee(nets, schema, self.table.shape[1], seed=0)
        with torch.no_grad():
            for name, parameter in committee.named_parameters():
                parameter.copy_(checkpoint[f"net.{name}"])
        self.members, self.net = committee.members, Mean(committee).to(device).eval()

    @torch.no_grad()
    def embed(self, ids: np.ndarray) -> Tensor:
        """`[N, S]` ids to `[N, F, d]` inputs."""
        if self.rows is not None:
            ids = np.searchsorted(self.rows, ids)
        return lookup(self.table, put(torch.tensor(ids), self.device), self.field_of_slot)

    @torch.no_grad()
    def logits(self, x: Tensor, *, batch_size: int = 8192) -> Tensor:
        """`[N, F, d]` inputs to `[N, T]` logits."""
        with autocast(self.device, self.precision):
            return torch.cat([self.net(part) for part in torch.split(x, batch_size)])

    def __call__(self, ids: np.ndarray, *, batch_size: int = 8192) -> Tensor:
        """`[N, S]` ids to `[N, T]` logits, a batch at a time."""
        starts = range(0, len(ids), batch_size)
        return torch.cat([self.logits(self.embed(ids[start : start + batch_size])) for start in starts])
