"""Stage step 1: the reference model phi_t, trained continually, one pass per block.

The same function trains a candidate with its own embeddings on the full log (`diet_ray.judge.baselines`), so that both train alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import ReferenceConfig
from diet_ray.logs.blocks import Rows
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.training.adam import NetAdam, TableAdam, net_adam, on_device
from diet_ray.training.device import forked, put
from diet_ray.training.embedding import Embedding
from diet_ray.training.sharded_table import RowSource, ShardedTable
from diet_ray.training.table import MOMENTS, Table, WholeTable, save_shared
from diet_ray.training.table_rows import SORTED_AT_ONCE, TableRows, rows_of_batches
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


def same_in_both_modes(net: nn.Module) -> bool:
    """Whether a net is known to predict alike in training and in evaluation mode: it has only our own parts, and no dropout."""
    return all(
        type(module).__module__.startswith(("diet_ray.", "torch.nn.modules.linear", "torch.nn.modules.container"))
        or isinstance(module, nn.LayerNorm)
        or (isinstance(module, nn.Dropout) and module.p == 0)
        for module in net.modules()
    )


class Reference(nn.Module):
    """Embedding table and committee of nets, with their optimisers: the whole state from which the pass of the next block starts."""

    field_of_slot: Tensor

    def __init__(
        self,
        schema: Schema,
        nets: list[CandidateSpec],
        config: ReferenceConfig,
        *,
        n_ids: int,
        seed: int,
        shards: ShardedTable | None = None,
    ) -> None:
        """A model that has learned nothing.

        Args:
            schema: of the log.
            nets: the members of the committee.
            config: of the reference.
            n_ids: rows of the table.
            seed: of table and nets.
            shards: this worker's shard of the table, still empty; by default each worker has the whole table. A sharded model has no
                `embedding`, so it cannot be called; it learns, and is saved.
        """
        super().__init__()
        self.schema, self.config, self.seed = schema, config, seed
        self.table: Table
        if shards is None:
            self.embedding = Embedding(schema, n_ids, config.dim, derive_seed(seed, "embedding"), sparse=True)
            self.table = WholeTable(self.embedding, config.embedding_lr)
        else:
            self.table = shards
            shards.grow(n_ids, derive_seed(seed, "embedding"))
        self.register_buffer("field_of_slot", torch.from_numpy(schema.field_of_slot), persistent=False)
        self.net = Committee(nets, schema, config.dim, seed)
        groups = [
            {"params": list(member.parameters()), "lr": config.lr * net.lr_scale}
            for net, member in zip(nets, self.net.members, strict=True)
        ]
        self.net_optimiser = net_adam(groups)
        self._known = same_in_both_modes(self.net)
        self._net_parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]

    @property
    def table_optimiser(self) -> TableAdam:
        """Of the whole table."""
        assert isinstance(self.table, WholeTable), "the table is sharded"
        return self.table.optimiser

    def forward(self, ids: Tensor) -> Tensor:
        """`[B, S]` ids to `[H, B, T]` logits, those of each member."""
        logits: Tensor = self.net(self.embedding(ids))
        return logits

    @torch.no_grad()
    def predict(self, ids: Tensor) -> Tensor:
        """`[B, S]` ids to `[H, B, T]` logits in evaluation mode; the mode is put back."""
        return self._evaluated(self.embedding(ids))

    def learn(
        self,
        batch: TableRows,
        target: Tensor,
        scale: Tensor | float,
        *,
        crew: Crew | None = None,
        optimiser: NetAdam | None = None,
        shift: Tensor | None = None,
        predict: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """A step of both optimisers on a batch of B rows: on the sum of `scale` times the cross entropy, over members, rows and tasks.

        Args:
            batch: the rows of the table that the batch uses.
            target: `[B, T]`, 0 to 1.
            scale: the weight of a row, or `[B, 1]`, those of each.
            crew: workers, each with its own part of the batch; the sum is over all of them.
            optimiser: of the net; by default the model's own.
            shift: `[B, F, d]`, added to the inputs that the table gives.
            predict: whether to predict, in evaluation mode, before the step.

        Returns:
            The logits `[H, B, T]` with which the step began, and the prediction `[H, B, T]` or None.
        """
        slots, values = self.field_of_slot, self.table.values(batch)
        x = batch.embed(values, slots)
        x = (x if shift is None else x + shift).requires_grad_()
        predicted = self._evaluated(x) if predict and not self._known else None
        logits = self.net(x if self._known else x.clone())  # a user's module may work in place
        learned = logits.detach()
        if predict and predicted is None:
            predicted = learned
        # The derivative of the cross entropy by hand: a graph of it would cost more than its numbers.
        by_logits = torch.sigmoid(learned).sub_(target).mul_(scale)
        found = torch.autograd.grad(logits, [x, *self._net_parameters], by_logits, allow_unused=True)
        by_x, gradients = found[0], list[Tensor | None](found[1:])
        gradient = batch.gradient(torch.zeros_like(x) if by_x is None else by_x, slots)
        if crew is not None and crew.size > 1:
            gradients = _summed(gradients, crew)
        (optimiser or self.net_optimiser).learn(gradients)
        self.table.learn(batch, values, gradient, l2=self.config.embedding_l2, crew=crew)
        return learned, predicted

    @torch.no_grad()
    def _evaluated(self, x: Tensor) -> Tensor:
        """`[B, F, d]` to `[H, B, T]` logits in evaluation mode; the mode is put back."""
        training = self.training
        self.eval()
        logits: Tensor = self.net(x)
        self.train(training)
        return logits

    def grow(self, n_ids: int) -> None:
        """Add rows for the new ids of a block; the optimiser moments of the old rows stay."""
        if n_ids != self.table.n_ids:
            self.table.grow(n_ids, derive_seed(self.seed, "embedding"))

    def save(self, path: Path, crew: Crew) -> None:
        """Write `table` and `net.*` whole; all workers call it together, the leader writes."""
        save_shared(path, lambda: {**self.table.weights(), **self.nets()}, crew)

    def save_moments(self, path: Path, crew: Crew, rows: np.ndarray | None = None, **others: Tensor) -> None:
        """Write the state of both optimisers, that of the table whole or for some rows `[R]`, ascending, and other tensors; as `save`."""
        save_shared(path, lambda: {**self.table.moments(rows), **self._states(table=False), **others}, crew)

    def nets(self) -> dict[str, Tensor]:
        """Copies of `net.*`, the weights of the committee."""
        return {f"net.{name}": p.detach().cpu().clone().contiguous() for name, p in self.net.named_parameters()}

    def checkpoint(self) -> dict[str, Tensor]:
        """Copies of `table` and `net.*`, for scoring, relabelling and candidates; not of a sharded table."""
        return {"table": self.embedding.weight.detach().cpu().clone().contiguous(), **self.nets()}

    def move(self, device: torch.device) -> None:
        """Put the model and the moments of its optimisers on a device."""
        self.to(device)
        on_device(self.net_optimiser, device)
        for _, parameter, optimiser in self._optimised():
            state = optimiser.state[parameter]
            # Step counts stay on the CPU, where the optimisers need them.
            state.update({name: state[name].to(device) for name in MOMENTS if name in state})

    def optimiser_state(self) -> dict[str, Tensor]:
        """Moments and step counts of both optimisers, by parameter name; not of a sharded table."""
        return self._states(table=True)

    def _states(self, *, table: bool) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": torch.as_tensor(value).cpu().clone().contiguous()
            for name, parameter, optimiser in self._optimised(table=table)
            for key, value in optimiser.state[parameter].items()
        }

    def load(self, checkpoint: dict[str, Tensor], optimiser: dict[str, Tensor]) -> None:
        """Load a state saved from `checkpoint` and `optimiser_state`."""
        self.grow(checkpoint["table"].shape[0])
        with torch.no_grad():
            self.embedding.weight.copy_(checkpoint["table"])
        self._load_nets(checkpoint, optimiser)
        saved = _of("table", optimiser)
        if "step" in saved:
            state = {name: saved[name].clone() for name in MOMENTS}
            self.table_optimiser.state[self.embedding.weight] = {"step": int(saved["step"]), **state}

    def load_shard(self, checkpoint: RowSource, optimiser: RowSource) -> None:
        """Load the rows of this worker's shard and the nets from a saved state, whatever number of workers saved it."""
        assert isinstance(self.table, ShardedTable), "the table is whole"
        self.table.load(checkpoint, optimiser)
        self._load_nets(checkpoint.others, optimiser.others)

    def _load_nets(self, checkpoint: dict[str, Tensor], optimiser: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.net.named_parameters():
                weight.copy_(checkpoint[f"net.{name}"])
        for name, parameter, _ in self._optimised(table=False):
            self.net_optimiser.state[parameter] = {key: value.clone() for key, value in _of(name, optimiser).items()}

    def steps(self) -> int:
        """Optimiser steps done so far, in all passes."""
        return self.table.step()

    def _optimised(self, *, table: bool = True) -> Iterator[tuple[str, Tensor, torch.optim.Optimizer]]:
        if table and isinstance(self.table, WholeTable):
            yield "table", self.embedding.weight, self.table.optimiser
        for name, weight in self.net.named_parameters():
            yield f"net.{name}", weight, self.net_optimiser


def _of(name: str, optimiser: dict[str, Tensor]) -> dict[str, Tensor]:
    """The saved state of a parameter."""
    return {key.rpartition("/")[2]: value for key, value in optimiser.items() if key.rpartition("/")[0] == name}


def _summed(gradients: Sequence[Tensor | None], crew: Crew) -> list[Tensor | None]:
    """Gradients, each summed over the workers, in one message."""
    there = [gradient for gradient in gradients if gradient is not None]
    flat = crew.sum(torch.cat([gradient.flatten() for gradient in there]))
    parts = iter(torch.split(flat, [gradient.numel() for gradient in there]))
    return [None if gradient is None else next(parts).view_as(gradient) for gradient in gradients]


def batches(parts: Iterable[Rows], batch_size: int) -> Iterator[Rows]:
    """Cut a stream of rows into batches, across the borders of its parts; only the last batch may be smaller.

    A batch within a part shares its memory.
    """
    rest: Rows | None = None
    for part in parts:
        start = 0
        if rest is not None and len(rest):
            start = min(batch_size - len(rest), len(part))
            rest = Rows.concat([rest, part.take(slice(0, start))])
            if len(rest) < batch_size:
                continue
            yield rest
        whole = len(part) - (len(part) - start) % batch_size
        for begin in range(start, whole, batch_size):
            yield part.take(slice(begin, begin + batch_size))
        rest = part.take(slice(whole, len(part)))
    if rest is not None and len(rest):
        yield rest


def train_pass(
    reference: Reference,
    parts: Iterable[Rows],
    crew: Crew,
    *,
    rows: int,
    on_checkpoint: Callable[[int], None] | None = None,
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
        on_checkpoint: called on every worker after each k-th of the K parts of the pass, with k (from 0).
        on_predicted: called with each batch of B rows and its logits `[H, B, T]`, predicted in evaluation mode just before the training
            step on the batch. For one worker: another worker has other rows.

    Returns:
        The progressive validation logloss: the mean loss of each row just before the training step on it (nats per task, mean over the
        members).
    """
    reference.train()
    reference.move(crew.device)
    k, n_checkpoints, rows_seen = 0, reference.config.checkpoints, 0
    total = torch.zeros(2, dtype=torch.float64)
    with torch.random.fork_rng(devices=forked(crew.device)):
        torch.manual_seed(derive_seed(reference.seed, "dropout", reference.steps(), crew.rank))
        for some in _groups(batches(parts, reference.config.batch_size), reference.schema):
            logits: list[Tensor] = []
            own = some if crew.size == 1 else [batch.take(slice(crew.rank, None, crew.size)) for batch in some]
            labels = torch.from_numpy(np.concatenate([batch.labels for batch in own]).astype(np.float32))
            labels = put(labels, crew.device)
            used = rows_of_batches(
                [batch.ids for batch in own], reference.schema.field_of_slot, reference.table.n_ids, crew.device
            )
            prepared = reference.table.prepare(used)
            parts_of = labels.split([len(batch) for batch in own])
            for batch, target, table_rows in zip(some, parts_of, prepared, strict=True):
                scale = 1 / (len(batch) * len(reference.net.members) * reference.schema.n_tasks)
                learned, predicted = reference.learn(
                    table_rows, target, scale, crew=crew, predict=on_predicted is not None
                )
                logits.append(learned)
                if on_predicted and predicted is not None:
                    on_predicted(batch, predicted)
                rows_seen += len(batch)
                while on_checkpoint and k < n_checkpoints and rows_seen * n_checkpoints >= (k + 1) * rows:
                    on_checkpoint(k)
                    k += 1
            total += _loss_and_rows(torch.cat(logits, dim=1), labels)
    total = crew.sum(total)
    return float(total[0] / total[1])


def _groups(stream: Iterable[Rows], schema: Schema) -> Iterator[list[Rows]]:
    """Consecutive batches, as many as are prepared at once."""
    left = iter(stream)
    for first in left:
        more = SORTED_AT_ONCE // (len(first) * len(schema.field_of_slot))
        yield [first, *islice(left, max(0, more - 1))]


def _loss_and_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """`[2]` float64: the sum over rows of the cross entropy, mean over members and tasks, of logits `[H, N, T]`, and N."""
    each = binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="none")
    loss = each.double().sum() / (len(logits) * labels.shape[1])
    return torch.stack((loss.cpu(), torch.tensor(float(len(labels)), dtype=torch.float64)))
