"""One training of the protocol `live`: a candidate gets ready, meets the rows of a block, and the losses of these rows are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from diet_ray.judge.baselines import learn_blocks, own_model
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.live.plan import FULL, LivePlan, LiveTraining
from diet_ray.judge.fidelity.live.starts import ready
from diet_ray.judge.live import LiveRows, go_live, live_rows
from diet_ray.judge.progressive import read_losses, row_losses, write_losses
from diet_ray.judge.verdict import Clock
from diet_ray.logs.blocks import BlockManifest
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.training.device import torch_threads
from diet_ray.training.reference import Reference


class Timed(Settings):
    """CPU seconds of a training up to a judging block and on it."""

    before: float
    """Until it was ready for the block."""
    live: float
    """Predicting and learning the rows of the block."""
    rows: int
    """Number of those rows."""


class Kept(Settings):
    """The costs of a training; its losses are in `BLOCK.parquet` beside. Written last: where it is, the losses are whole."""

    blocks: dict[str, Timed]
    """By the name of the judging block."""


def train_group(description: str, *, config: str, cache: str) -> bytes:
    """The function for the mapper: do the trainings of a group that are not done yet.

    Args:
        description: JSON list of `LiveTraining`s with one start, seed and block.
        config: JSON of the `FidelityConfig`.
        cache: its cache.
    """
    plan = LivePlan.open(FidelityConfig.model_validate_json(config), Path(cache))
    group = [LiveTraining.model_validate(body) for body in json.loads(description)]
    todo = [training for training in group if not plan.is_done(training)]
    if todo:
        with torch_threads(1):
            if todo[0].start == FULL:
                for training in todo:
                    _full(plan, training)
            else:
                _from_start(plan, todo)
    return b""


def losses(plan: LivePlan, training: LiveTraining, block: BlockManifest) -> np.ndarray:
    """`[n, T]` float32: the losses of the rows of a block that a kept training met, in order of time, nan where it diverged.

    Raises:
        CorruptArtefactError: the file is missing or damaged.
    """
    return read_losses(plan.folder(training) / f"{block.index}.parquet", plan.bench.log.schema.tasks)[1]


def kept(plan: LivePlan, training: LiveTraining) -> Kept:
    """The costs of a kept training. Raises CorruptArtefactError where the file is missing or damaged."""
    return parse_json(Kept, plan.folder(training) / "kept.json")


def _full(plan: LivePlan, training: LiveTraining) -> None:
    """One pass over all blocks in order, which predicts the rows of the judging blocks before it learns them."""
    bench = plan.bench
    log, config, clock, blocks = bench.log, bench.config.stream.reference, Clock(), {}
    judged = {block.index: block for block in plan.judged}
    spec, seed = training.candidate, derive_seed(training.seed, "backfill")
    model = own_model(spec, log.schema, config, n_ids=log.blocks[0].n_ids, seed=seed)
    for block in log.blocks[: training.block + 1]:
        if block.index in judged:
            blocks[block.name] = _live(plan, training, model, live_rows(log, block, 1), before=clock.cpu)
            continue
        with clock:
            learn_blocks(model, log, [block])
    write_json(plan.folder(training) / "kept.json", Kept(blocks=blocks))


def _from_start(plan: LivePlan, trainings: list[LiveTraining]) -> None:
    """Trainings with one start, seed and block."""
    start, seed, block = trainings[0].start, trainings[0].seed, plan.bench.log.blocks[trainings[0].block]
    get_ready, rows = ready(plan, start, seed, block), live_rows(plan.bench.log, block, plan.live.shares[-1])
    for training in trainings:
        with Clock() as clock:
            model = get_ready(training.candidate, seed=derive_seed(seed, "launch"))
        timed = _live(plan, training, model, rows, before=clock.cpu)
        write_json(plan.folder(training) / "kept.json", Kept(blocks={block.name: timed}))


def _live(plan: LivePlan, training: LiveTraining, model: Reference, rows: LiveRows, *, before: float) -> Timed:
    """Let a candidate meet the rows of one block, and write their losses."""
    with Clock() as clock:
        logits = go_live(model, rows)
    (block,) = rows.blocks
    met, schema = rows.rows, plan.bench.log.schema
    path = plan.folder(training) / f"{block.index}.parquet"
    write_losses(path, met.row_id, row_losses(logits, met.labels), schema.tasks)
    return Timed(before=round(before, 4), live=round(clock.cpu, 4), rows=len(met))
