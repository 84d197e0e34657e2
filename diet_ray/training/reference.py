"""Stage step 1: the reference model phi_t, trained continually, one pass per block.

The same function trains a candidate with its own embeddings on the full log (`diet_ray.judge.baselines`), so that both train alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import ReferenceConfig
from diet_ray.logs.blocks import Rows
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.training.adam import NetAdam, TableAdam, net_adam, on_device, table_adam
from diet_ray.training.device import forked, put
from diet_ray.training.embedding import Embedding
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
        self._known = same_in_both_modes(self.net)
        self._net_parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.table_optimiser = self._table_optimiser()

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
        table, slots = self.embedding.weight.detach(), self.embedding.field_of_slot
        rows, values = batch.rows, table.index_select(0, batch.rows)
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
            rows, gradient = crew.sum_rows(rows, gradient)
            values = table.index_select(0, rows)
        if self.config.embedding_l2:
            gradient.add_(values, alpha=self.config.embedding_l2)
        (optimiser or self.net_optimiser).learn(gradients)
        self.table_optimiser.learn(rows, values, gradient)
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

    def _table_optimiser(self) -> TableAdam:
        return table_adam(self.embedding.weight, self.config.embedding_lr)

    def _optimised(self) -> Iterator[tuple[str, Tensor, torch.optim.Optimizer]]:
        yield "table", self.embedding.weight, self.table_optimiser
        for name, weight in self.net.named_parameters():
            yield f"net.{name}", weight, self.net_optimiser


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
                [batch.ids for batch in own], reference.schema.field_of_slot, reference.embedding.n_ids, crew.device
            )
            for batch, target, table_rows in zip(some, labels.split([len(batch) for batch in own]), used, strict=True):
                scale = 1 / (len(batch) * len(reference.net.members) * reference.schema.n_tasks)
                learned, predicted = reference.learn(
                    table_rows, target, scale, crew=crew, predict=on_predicted is not None
                )
                logits.append(learned)
                if on_predicted and predicted is not None:
                    on_predicted(batch, predicted)
                rows_seen += len(batch)
                while on_checkpoint and k < n_checkpoints and rows_seen * n_checkpoints >= (k + 1) * rows:
                    on_checkpoint(k, reference.checkpoint())
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
