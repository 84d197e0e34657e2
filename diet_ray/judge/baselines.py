"""The baselines of a memory: candidates trained on the full log, and on random rows of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import ReferenceConfig, StudentConfig
from diet_ray.judge.verdict import Clock, Verdict, predict_rows, verdict
from diet_ray.logs.blocks import BlockManifest, Log, Rows
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.training.adam import AdamState
from diet_ray.training.device import generator
from diet_ray.training.embedding import lookup
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, batches, train_pass
from diet_ray.training.student import Examples, FlatNet, batch_order, run_steps
from diet_ray.training.workers import Solo

FULL = "full log"
FROZEN = "full log, shared embeddings"
HARD_OWN = "random rows, hard labels, own embeddings"
HARD = "random rows, hard labels"
SOFT = "random rows, soft labels"


def full_log(
    spec: CandidateSpec, log: Log, blocks: list[BlockManifest], rows: Rows, config: ReferenceConfig, *, seed: int
) -> Verdict:
    """A candidate with embeddings of its own, trained by one pass per block over the full log, judged on `rows`.

    The pass is the reference's: the same batches, optimisers and learning rates, the net's scaled by the candidate.
    """
    model = own_model(spec, log.schema, config, n_ids=blocks[0].n_ids, seed=seed)
    with Clock() as clock:
        learn_blocks(model, log, blocks)
    return _judge_own(model, spec, log, rows, seed, FULL, clock)


def frozen_log(
    spec: CandidateSpec,
    log: Log,
    blocks: list[BlockManifest],
    table: Tensor,
    rows: Rows,
    config: ReferenceConfig,
    *,
    seed: int,
) -> Verdict:
    """A candidate on the reference's embeddings `table`, frozen, trained by one pass over the full log with its own labels.

    Its distance to `full_log` is the cost of shared embeddings; its distance to a student is the cost of learning from few units.
    """
    module = build(spec, log.schema.field_names, config.dim, log.schema.n_tasks, derive_seed(seed, "candidate"))
    net, lr, unused = FlatNet(module.train()), config.lr * spec.lr_scale, torch.Generator()
    state, slots = AdamState.start(net.initial()), torch.tensor(log.schema.field_of_slot)
    with Clock() as clock, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dropout"))
        for batch in batches(chain.from_iterable(log.iter_block(block) for block in blocks), config.batch_size):
            x, hard = lookup(table, torch.tensor(batch.ids), slots), torch.tensor(batch.labels, dtype=torch.float32)
            example = Examples(x, torch.logit(hard), torch.ones(len(batch)))
            order = torch.arange(len(batch))[None]
            state = run_steps(net, state, example, order, lambda step: lr, draw=0.0, rng=unused)
    logits = predict_rows(module, state.theta, table, rows, log.schema)
    return verdict(spec, logits, rows, log.schema, seed, FROZEN, clock, state.theta.numel())


def sample_own(
    spec: CandidateSpec,
    log: Log,
    sample: Rows,
    rows: Rows,
    config: ReferenceConfig,
    student: StudentConfig,
    *,
    n_ids: int,
    seed: int,
) -> Verdict:
    """A candidate with embeddings of its own, trained on the rows `sample` for the students' horizon: the simplest baseline.

    The rows' labels may be probabilities.
    """
    model = own_model(spec, log.schema, config, n_ids=n_ids, seed=seed)
    order = batch_order(len(sample), student.steps, student.batch_size, generator(seed, "order"))
    parts: Iterator[Rows] = (sample.take(batch.numpy()) for batch in order)
    with Clock() as clock:
        train_pass(model, parts, Solo(), rows=order.numel())
    return _judge_own(model, spec, log, rows, seed, HARD_OWN, clock)


def random_rows(log: Log, blocks: list[BlockManifest], n: int, *, seed: int) -> Rows:
    """`n` rows drawn uniformly without replacement from the blocks, in order of row id; one shard is in memory at a time."""
    kept: Rows | None = None
    for block in blocks:
        for part in log.iter_block(block):
            both = part if kept is None else Rows.concat([kept, part])
            kept = both.take(
                np.sort(np.argsort(uniform_by_id(both.row_id, derive_seed(seed, "rows")), kind="stable")[:n])
            )
    assert kept is not None, "a log has at least one block"
    return kept


def as_examples(sample: Rows, phi: Predictor, *, soft: bool) -> Examples:
    """Rows as a student's examples: embedded by the reference, with its probabilities (`soft`) or the rows' own labels, 0 to 1."""
    x = phi.embed(sample.ids)
    if soft:
        return Examples(x, phi.logits(x), torch.ones(len(sample)))
    return Examples(x, torch.logit(torch.tensor(sample.labels, dtype=torch.float32)), torch.ones(len(sample)))


def learn_blocks(model: Reference, log: Log, blocks: Iterable[BlockManifest]) -> list[float]:
    """One pass per block, in order; the table grows with each. Returns the progressive loss of each block (see `train_pass`)."""
    losses = []
    for block in blocks:
        model.grow(block.n_ids)
        losses.append(train_pass(model, log.iter_block(block), Solo(), rows=block.rows))
    return losses


def own_model(spec: CandidateSpec, schema: Schema, config: ReferenceConfig, *, n_ids: int, seed: int) -> Reference:
    """A candidate with a table of its own that has learned nothing yet."""
    # With a table of its own, a map in front of the net adds nothing: the table can learn the same.
    plain = spec.model_copy(update={"adapter": False})
    return Reference(schema, [plain], config.own(spec), n_ids=n_ids, seed=derive_seed(seed, "own"))


def _judge_own(
    model: Reference, spec: CandidateSpec, log: Log, rows: Rows, seed: int, trained_on: str, clock: Clock
) -> Verdict:
    phi = Predictor(log.schema, [spec.model_copy(update={"adapter": False})], model.checkpoint())
    logits: Tensor = phi(rows.ids)
    parameters = sum(parameter.numel() for parameter in model.net.parameters())
    return verdict(spec, logits.numpy(), rows, log.schema, seed, trained_on, clock, parameters)
