"""What a memory is compared with: candidates trained on the full log, and on random rows of it. No Ray here."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diet_ray.blocks import BlockManifest, Log, Rows
from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig, StudentConfig
from diet_ray.crew import Solo
from diet_ray.judge import Verdict, verdict
from diet_ray.reference import Predictor, Reference, train_pass
from diet_ray.seeds import derive_seed, generator, uniform_by_id
from diet_ray.student import Examples, batch_order

FULL = "full log"
HARD_OWN = "random rows, hard labels, own embeddings"
HARD = "random rows, hard labels"
SOFT = "random rows, soft labels"


def full_log(
    spec: CandidateSpec, log: Log, blocks: list[BlockManifest], rows: Rows, config: ReferenceConfig, *, seed: int
) -> Verdict:
    """A candidate with embeddings of its own, trained by one pass per block over the full log, judged on `rows`.

    The pass is the reference's: the same batches, optimisers and learning rates (unless the candidate sets its own).
    """
    model = _own_model(spec, log, config, n_ids=blocks[0].n_ids, seed=seed)
    began = time.process_time()
    for block in blocks:
        model.grow(block.n_ids)
        train_pass(model, log.iter_block(block), Solo(), rows=block.rows)
    return _judge_own(model, spec, log, rows, seed, FULL, time.process_time() - began)


def random_rows_own(
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
    """A candidate with embeddings of its own, trained on random rows for the students' horizon: the plainest baseline."""
    model = _own_model(spec, log, config, n_ids=n_ids, seed=seed)
    order = batch_order(len(sample), student.steps, student.batch_size, generator(seed, "order"))
    parts: Iterator[Rows] = (sample.take(batch.numpy()) for batch in order)
    began = time.process_time()
    train_pass(model, parts, Solo(), rows=order.numel())
    return _judge_own(model, spec, log, rows, seed, HARD_OWN, time.process_time() - began)


def random_rows(log: Log, blocks: list[BlockManifest], n: int, *, seed: int) -> Rows:
    """`n` rows drawn uniformly without replacement from the blocks, in order of row id; a shard is held in memory at a time."""
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
    """Rows as a student sees them through the reference's embeddings, with its probabilities (`soft`) or their own labels."""
    x = phi.embed(sample.ids)
    if soft:
        return Examples(x, phi.logits(x), torch.ones(len(sample)))
    hard = torch.tensor(sample.labels, dtype=torch.float32)
    return Examples(x, torch.where(hard > 0, torch.inf, -torch.inf), torch.ones(len(sample)))


def _own_model(spec: CandidateSpec, log: Log, config: ReferenceConfig, *, n_ids: int, seed: int) -> Reference:
    # With a table of its own, a map in front of the net adds nothing: the table takes it up.
    plain = spec.model_copy(update={"adapter": False})
    return Reference(log.schema, plain, config, n_ids=n_ids, seed=derive_seed(seed, "own"))


def _judge_own(
    model: Reference, spec: CandidateSpec, log: Log, rows: Rows, seed: int, trained_on: str, seconds: float
) -> Verdict:
    phi = Predictor(log.schema, spec.model_copy(update={"adapter": False}), model.checkpoint())
    logits: Tensor = phi(rows.ids)
    parameters = sum(parameter.numel() for parameter in model.net.parameters())
    return verdict(spec, logits.numpy(), rows, log.schema, seed, trained_on, seconds, parameters)
