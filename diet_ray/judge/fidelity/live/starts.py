"""What a candidate has learned before it goes live on a block, by the name of its start."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.judge.baselines import own_model
from diet_ray.judge.fidelity.live.plan import OF_A_RUN, LivePlan
from diet_ray.judge.fidelity.reduced_sets import reference, sample
from diet_ray.judge.launch import launch, table_alone
from diet_ray.judge.start import Start, load_start
from diet_ray.logs.blocks import BlockManifest, Log, Rows
from diet_ray.memory.layout import stage_folder
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.workers import Solo


class Ready(Protocol):
    """Makes a candidate ready for its first live row."""

    def __call__(self, spec: CandidateSpec, *, seed: int) -> Reference:
        """The candidate, which has learned what its start offers."""
        ...


def ready(plan: LivePlan, start: str, seed: int, block: BlockManifest) -> Ready:
    """How candidates get ready for a block. All that they share is loaded once.

    Args:
        plan: the plan; the run of the start must be complete.
        start: one of `StartName`.
        seed: of the run and of the selection of rows.
        block: the judging block.
    """
    bench, recipe = plan.bench, plan.live.recipe
    log, config = bench.log, bench.config.stream.reference
    n_ids = log.blocks[block.index - 1].n_ids

    def nothing(spec: CandidateSpec, *, seed: int) -> Reference:
        return own_model(spec, log.schema, config, n_ids=n_ids, seed=seed)

    own: Ready = nothing
    if start in OF_A_RUN:
        run = bench.keys.run_folder(plan.distillation(start, seed))
        loaded = load_start(stage_folder(run, block.index - 1))
        if start == "random":
            loaded = random_start(plan, loaded, seed, block)
        if start not in ("table", "table+recent"):
            return partial(launch, loaded, recipe=recipe)
        own = partial(table_alone, loaded)
    if start in ("table", "scratch"):
        return own
    latest = latest_rows(log, block, recipe.student.steps * recipe.student.batch_size)

    def after_latest(spec: CandidateSpec, *, seed: int) -> Reference:
        model = own(spec, seed=seed)
        train_pass(model, [latest], Solo(), rows=len(latest))
        return model

    return after_latest


def random_start(plan: LivePlan, start: Start, seed: int, block: BlockManifest) -> Start:
    """Random rows of the blocks before, as many as the memory has units, with the reference's probabilities, in the units' place."""
    training_set = plan.rows_of("random", seed, block.index)
    rows = sample(plan.bench, training_set)
    phi = reference(plan.bench, training_set)
    _, n_fields, dim = start.delta.shape
    return replace(
        start,
        ids=torch.tensor(rows.ids),
        delta=torch.zeros(len(rows), n_fields, dim),
        soft_label=torch.sigmoid(phi(rows.ids)),
        weight=torch.ones(len(rows)),
    )


def latest_rows(log: Log, block: BlockManifest, n: int) -> Rows:
    """The n rows before a block, in order of time; fewer where the log has fewer."""
    parts: list[Rows] = []
    for earlier in reversed(log.blocks[: block.index]):
        if sum(map(len, parts)) >= n:
            break
        parts.insert(0, log.read_block(earlier))
    rows = Rows.concat(parts)
    return rows.take(torch.arange(max(0, len(rows) - n), len(rows)).numpy())
