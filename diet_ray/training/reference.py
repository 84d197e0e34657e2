"""Stage step 1: the reference model phi_t, trained continually, one pass per block.

The same function trains a candidate with its own embeddings on the full log (`diet_ray.judge.baselines`), so that both train alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import ReferenceConfig
from diet_ray.logs.blocks import Rows
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.training.adam import net_adam, on_device, table_adam
from diet_ray.training.device import forked, put
from diet_ray.training.embedding import Embedding
from diet_ray.training.workers import Crew


class Committee(nn.Module):
    """Nets with a shared embedding: `[B, F, d] -> [H, B, T]`, the logits of each member.

    Each member has its own loss, so the shared table must fit all of them. The prediction of the committee is the mean of the members'
    logits.
    """

    def __init__(self, nets: list[CandidateSpec], schema: Schema, dim: int, seed: int) -> None:
        super().__init__()
        seeds = [derive_seed(seed, "net", *([number] if number else [])) for number in range(len(nets))]
        self.members = nn.ModuleList(
            build(net, schema.field_names, dim, schema.n_tasks, own) for net, own in zip(nets, seeds, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [H, B, T]`."""
        return torch.stack([member(x) for member in self.members])


class Mean(nn.Module):
    """A committee as one net, `[B, F, d] -> [B, T]` float32."""

    def __init__(self, committee: Committee) -> None:
        super().__init__()
        self.committee = committee

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, d] -> [B, T]`."""
        logits: Tensor = self.committee(x).float().mean(dim=0)
        return logits


class Reference(nn.Module):
    """Embedding table and committee of nets, with their optimisers: the whole state from which the pass of the next block starts."""

    def __init__(
        self, schema: Schema, nets: list[CandidateSpec], config: ReferenceConfig, *, n_ids: int, seed: int
    ) -> None:
        super().__init__()
        self.schema, self.config, self.seed = schema, config, seed
        self.embedding = Embedding(schema, n_ids, config.dim, derive_seed(seed, "embedding"), sparse=True)
        self.net = Committee(nets, schema, config.dim, seed)
        groups = [
            {"params": list(member.parameters()), "lr": config.lr * net.lr_scale}
            for net, member in zip(nets, self.net.members, strict=True)
        ]
        self.net_optimiser = net_adam(groups)
        self.table_optimiser = self._table_optimiser()

    def forward(self, ids: Tensor) -> Tensor:
        """`[B, S]` ids to `[H, B, T]` logits, those of each member."""
        logits: Tensor = self.net(self.embedding(ids))
        return logits

    @torch.no_grad()
    def predict(self, ids: Tensor) -> Tensor:
        """`[B, S]` ids to `[H, B, T]` logits in evaluation mode; the mode is put back."""
        training = self.training
        self.eval()
        logits: Tensor = self(ids)
        self.train(training)
        return logits

    def penalise_table(self) -> None:
        """Add the gradient of the L2 penalty, `embedding_l2 * row`, to that of each row of the table that the last batch has looked up."""
        if self.config.embedding_l2 == 0:
            return
        table = self.embedding.weight
        assert table.grad is not None, "it is called after the backward pass"
        gradient = table.grad.coalesce()
        # `values` is a view, so this changes the gradient.
        gradient.values().add_(table.detach()[gradient.indices()[0]], alpha=self.config.embedding_l2)
        table.grad = gradient

    def grow(self, n_ids: int) -> None:
        """Add rows for the new ids of a block; the optimiser moments of the old rows stay."""
        if n_ids == self.embedding.n_ids:
            return
        state = self.table_optimiser.state[self.embedding.weight]
        self.embedding.grow(n_ids, derive_seed(self.seed, "embedding"))
        self.table_optimiser = self._table_optimiser()
        if state:
            pad = (0, 0, 0, n_ids - state["exp_avg"].shape[0])
            grown = {name: nn.functional.pad(state[name], pad) for name in ("exp_avg", "exp_avg_sq")}
            self.table_optimiser.state[self.embedding.weight] = {"step": state["step"], **grown}

    def checkpoint(self) -> dict[str, Tensor]:
        """Copies of `table` and `net.*`, for scoring, relabelling and candidates."""
        weights = {"table": self.embedding.weight, **{f"net.{name}": p for name, p in self.net.named_parameters()}}
        return {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}

    def move(self, device: torch.device) -> None:
        """Put the model and the moments of its optimisers on a device."""
        self.to(device)
        on_device(self.net_optimiser, device)
        for _, parameter, optimiser in self._optimised():
            state = optimiser.state[parameter]
            # Step counts stay on the CPU, where the optimisers need them.
            state.update({name: state[name].to(device) for name in ("exp_avg", "exp_avg_sq") if name in state})

    def optimiser_state(self) -> dict[str, Tensor]:
        """Moments and step counts of both optimisers, by parameter name."""
        tensors = {}
        for name, parameter, optimiser in self._optimised():
            for key, value in optimiser.state[parameter].items():
                tensors[f"{name}/{key}"] = torch.as_tensor(value).cpu().clone().contiguous()
        return tensors

    def load(self, checkpoint: dict[str, Tensor], optimiser: dict[str, Tensor]) -> None:
        """Load a state saved from `checkpoint` and `optimiser_state`."""
        self.grow(checkpoint["table"].shape[0])
        with torch.no_grad():
            self.embedding.weight.copy_(checkpoint["table"])
            for name, weight in self.net.named_parameters():
                weight.copy_(checkpoint[f"net.{name}"])
        for name, parameter, owner in self._optimised():
            saved = {k.rpartition("/")[2]: v.clone() for k, v in optimiser.items() if k.rpartition("/")[0] == name}
            if owner is self.table_optimiser and "step" in saved:
                owner.state[parameter] = {**saved, "step": int(saved["step"])}
            else:
                owner.state[parameter] = saved

    def steps(self) -> int:
        """Optimiser steps done so far, in all passes."""
        return int(self.table_optimiser.state[self.embedding.weight].get("step", 0))

    def _table_optimiser(self) -> torch.optim.Optimizer:
        return table_adam(self.embedding.weight, self.config.embedding_lr)

    def _optimised(self) -> Iterator[tuple[str, Tensor, torch.optim.Optimizer]]:
        yield "table", self.embedding.weight, self.table_optimiser
        for name, weight in self.net.named_parameters():
            yield f"net.{name}", weight, self.net_optimiser


def batches(parts: Iterable[Rows], batch_size: int) -> Iterator[Rows]:
    """Cut a stream of rows into batches, across the borders of its parts; only the last batch may be smaller."""
    rest: Rows | None = None
    for part in parts:
        rows = part if rest is None else Rows.concat([rest, part])
        whole = len(rows) - len(rows) % batch_size
        for start in range(0, whole, batch_size):
            yield rows.take(np.arange(start, start + batch_size))
        rest = rows.take(np.arange(whole, len(rows)))
    if rest is not None and len(rest):
        yield rest


def train_pass(
    reference: Reference,
    parts: Iterable[Rows],
    crew: Crew,
    *,
    rows: int,
    on_checkpoint: Callable[[int, dict[str, Tensor]], None] | None = None,
    on_predicted: Callable[[Rows, Tensor], None] | None = None,
) -> float:
    """One pass over a stream of rows, in order. Every batch is split over the workers; its gradient is that of the whole batch.

    Dropout, where the net has it, draws from torch's global generator. The pass seeds that generator with the model's seed, its number of
    steps done and the rank, and restores it afterwards.

    Args:
        reference: changed in place; its table must already have grown to the ids of the stream.
        parts: the rows.
        crew: the workers; all must get the same rows.
        rows: number of rows in `parts`, to place the K checkpoints.
        on_checkpoint: called on every worker after each k-th of the K parts of the pass, with k (from 0) and the weights.
        on_predicted: called with each batch of B rows and its logits `[H, B, T]`, predicted in evaluation mode just before the training
            step on the batch. For one worker: another worker has other rows.

    Returns:
        The progressive validation logloss: the mean loss of each row just before the training step on it (nats per task, mean over the
        members).
    """
    reference.train()
    reference.move(crew.device)
    model = crew.parallel(reference)
    k, n_checkpoints, rows_seen = 0, reference.config.checkpoints, 0
    total = torch.zeros(2, dtype=torch.float64)
    with torch.random.fork_rng(devices=forked(crew.device)):
        torch.manual_seed(derive_seed(reference.seed, "dropout", reference.steps(), crew.rank))
        for batch in batches(parts, reference.config.batch_size):
            ids = put(torch.tensor(batch.ids[crew.rank :: crew.size]), crew.device)
            labels = put(torch.tensor(batch.labels[crew.rank :: crew.size], dtype=torch.float32), crew.device)
            if on_predicted:
                on_predicted(batch, reference.predict(ids))
            logits = model(ids)
            whole = binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="sum")
            summed = whole / (len(logits) * reference.schema.n_tasks)
            reference.net_optimiser.zero_grad()
            reference.table_optimiser.zero_grad()
            # DDP averages over the W workers; times W this gives the mean over the whole batch, even where the split is uneven.
            torch.autograd.backward(summed * (crew.size / len(batch)))
            reference.net_optimiser.step()
            reference.penalise_table()
            reference.table_optimiser.step()
            total += torch.tensor([float(summed.detach()), len(labels)], dtype=torch.float64)
            rows_seen += len(batch)
            while on_checkpoint and k < n_checkpoints and rows_seen * n_checkpoints >= (k + 1) * rows:
                on_checkpoint(k, reference.checkpoint())
                k += 1
    total = crew.sum(total)
    return float(total[0] / total[1])
