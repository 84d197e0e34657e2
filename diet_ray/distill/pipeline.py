"""The stream: one stage per block, each as DIET describes it. No Ray here; what is distributed stands behind `Engine`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from torch import Tensor

from diet_ray.config import StreamConfig
from diet_ray.distill.convert import convert
from diet_ray.distill.fuse import quota
from diet_ray.distill.refine import refine
from diet_ray.distill.select import Sketch, choose
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.errors import ConfigError
from diet_ray.logs.blocks import BlockManifest, Log, Rows, block_sha256
from diet_ray.memory.events import Events
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.run_folder import StageDraft, read_stage
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.storage.entries import check_file, file_entry
from diet_ray.storage.hashes import sha256
from diet_ray.storage.tensors import load_tensors, save_tensors
from diet_ray.training.device import torch_threads
from diet_ray.training.holdout import held_out
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.workers import Crew


class Engine(Protocol):
    """Where the work of a stage is done: in this process (`LocalEngine`) or on a Ray cluster (`RayEngine`)."""

    crew: Crew
    memory: ShardedMemory

    def score(
        self, log: Log, block: BlockManifest, checkpoints: list[Path], config: StreamConfig, keep: int, seed: int
    ) -> Sketch:
        """Score every row of the block under the K checkpoints and sketch the result for selection; called by the leader."""
        ...


@dataclass
class Stream:
    """A run in progress, as each worker holds it."""

    run: Path
    log: Log
    config: StreamConfig
    engine: Engine
    events: Events
    reference: Reference
    last: StageManifest | None = None
    """The last committed stage."""
    held: Rows | None = None
    """The rows that it held out, which the reference learns from next."""

    @property
    def leads(self) -> bool:
        """Whether this worker does what is done once."""
        return self.engine.crew.rank == 0


def blocks_to_distil(log: Log, config: StreamConfig) -> list[BlockManifest]:
    """The blocks of a run. Raises ConfigError where the log has fewer than asked for, or none to spare."""
    n = len(log.blocks) - 1 if config.blocks is None else config.blocks
    if not 1 <= n <= len(log.blocks):
        raise ConfigError(
            f"key 'blocks': {n} of {len(log.blocks)} blocks of {log.path} cannot be distilled; ingest more or ask for fewer"
        )
    return log.blocks[:n]


def check_nets(schema: Schema, config: StreamConfig) -> None:
    """Raise ConfigError where a net of the reference or of the proxies cannot see what it needs among a log's fields."""
    for key, nets in (("reference.nets", config.reference.nets), ("refine.proxies", config.refine.proxies)):
        for net in nets:
            try:
                net.kept_fields(schema.field_names)
            except ConfigError as error:
                raise ConfigError(f"key '{key}': {error}") from error


def run_stream(
    run: Path, log: Log, config: StreamConfig, engine: Engine, events: Events, committed: list[StageManifest]
) -> None:
    """Distil block after block, from behind the last committed stage on. Raises ConfigError where log and config do not fit."""
    check_nets(log.schema, config)
    with torch_threads(config.cluster.threads_per_worker):
        stream = begin(run, log, config, engine, events, committed)
        for block in blocks_to_distil(log, config)[len(committed) :]:
            run_stage(stream, block)


def begin(
    run: Path, log: Log, config: StreamConfig, engine: Engine, events: Events, committed: list[StageManifest]
) -> Stream:
    """The state before the next stage: new, or exactly as the last committed stage left it.

    Raises:
        ConfigError: the log is not the one whose blocks the committed stages took in.
        CorruptArtefactError: a file of the last stage is damaged.
    """
    check_blocks(log, committed)
    reference = Reference(
        log.schema,
        config.reference.nets,
        config.reference,
        n_ids=log.blocks[0].n_ids,
        seed=derive_seed(config.seed, "reference"),
    )
    stream = Stream(run, log, config, engine, events, reference)
    if stream.leads:
        engine.memory.begin(log.schema, config)
    if committed:
        last = committed[-1]
        folder = stage_folder(run, last.index)
        weights = load_tensors(check_file(folder, last.checkpoints[-1]))
        reference.load(weights, load_tensors(check_file(folder, last.optimiser)))
        if stream.leads:
            engine.memory.load(folder, last.memory)
        stream.last = last
        stream.held = held_rows(stream, log.blocks[last.index])
    engine.crew.barrier()
    return stream


def check_blocks(log: Log, committed: list[StageManifest]) -> None:
    """Raise ConfigError where a committed stage did not come from the block of `log` in its place."""
    for stage in committed:
        block = log.blocks[stage.index] if stage.index < len(log.blocks) else None
        if block is None or block.name != stage.block or block_sha256(log, block) != stage.block_sha256:
            raise ConfigError(
                f"key 'log': block {stage.index} of {log.path} is not the {stage.block!r} that the run has distilled; "
                "resume with the run's own log or start a new run"
            )


def run_stage(stream: Stream, block: BlockManifest) -> None:
    """One stage: take in a block, leave M_t and phi_t committed."""
    config, engine, events, crew, t = stream.config, stream.engine, stream.events, stream.engine.crew, block.index
    draft = StageDraft(stream.run, t)
    rows_before = stream.last.rows_seen if stream.last else 0
    units_before = stream.last.units if stream.last else 0
    n_fresh = quota(config.budget, block_rows=block.rows, rows_before=rows_before, units_before=units_before)
    events.emit("stage", stage=t, block=block.name, rows=block.rows)

    if stream.leads:
        draft.begin()
    crew.barrier()

    with events.step(t, "reference", rows=block.rows):
        held = held_rows(stream, block)
        logloss, checkpoints, paths = train_reference(stream, block, held, draft.folder)
    crew.barrier()

    if stream.leads:
        with events.step(t, "score", rows=block.rows):
            seed = derive_seed(config.seed, "stage", t)
            sketch = engine.score(stream.log, block, paths, config, n_fresh, seed)
        with events.step(t, "select"):
            selected = choose(sketch, config.select, n=n_fresh)
            fresh = convert(selected, block=t, n_fields=stream.log.schema.n_fields, dim=config.reference.dim)
        with events.step(t, "align"):
            engine.memory.align(last_checkpoint(stream), paths[-1], config.align)
        with events.step(t, "fuse"):
            engine.memory.fuse(fresh, config.budget)
    crew.barrier()

    with events.step(t, "refine", rounds=config.refine.rounds):
        engine.memory.open()
        report = refine(
            engine.memory,
            checkpoints,
            held,
            stream.log.schema,
            config,
            crew,
            seed=derive_seed(config.seed, "refine", t),
            on_round=lambda done: events.progress(t, "refine", done, config.refine.rounds),
        )

    if stream.leads:
        with events.step(t, "commit"):
            save_tensors(draft.folder / "optimiser.safetensors", stream.reference.optimiser_state())
            manifest = StageManifest(
                index=t,
                block=block.name,
                block_sha256=block_sha256(stream.log, block),
                parent_sha256=sha256(stage_folder(stream.run, t - 1) / "manifest.json") if stream.last else None,
                rows_seen=rows_before + block.rows,
                n_ids=block.n_ids,
                units=len(engine.memory),
                config=config,
                log_schema=stream.log.schema,
                reference_logloss=logloss,
                refine=report,
                memory=engine.memory.write(draft.folder),
                checkpoints=[file_entry(path) for path in paths],
                optimiser=file_entry(draft.folder / "optimiser.safetensors"),
            )
            draft.commit(manifest)
        events.emit("committed", stage=t, block=block.name, units=len(engine.memory), rows_seen=manifest.rows_seen)
    crew.barrier()
    stream.last = read_stage(stream.run, t)
    stream.held = held


def train_reference(
    stream: Stream, block: BlockManifest, held: Rows, folder: Path
) -> tuple[float, list[Predictor], list[Path]]:
    """Step 1: phi_t from phi_{t-1}, by one pass over the rows that the last stage held out and then the block's without `held`.

    Returns the loss along the way, the K checkpoints and the files in which the leader has saved them. Raises ConfigError where
    so small a block is held out whole.
    """
    config, schema = stream.config, stream.log.schema
    checkpoints: list[Predictor] = []
    paths = [folder / f"checkpoint-{k}.safetensors" for k in range(config.reference.checkpoints)]

    def keep(k: int, weights: dict[str, Tensor]) -> None:
        checkpoints.append(Predictor(schema, config.reference.nets, weights))
        if stream.leads:
            save_tensors(paths[k], weights)

    share, seed = config.reference.holdout, config.seed
    before = [stream.held] if stream.held is not None and len(stream.held) else []
    n_rows = sum(len(rows) for rows in before) + block.rows - len(held)
    if not n_rows:
        raise ConfigError(
            f"key 'reference.holdout': {share} leaves no row of block {block.name!r} ({block.rows} rows) to learn from; "
            "lower it or ingest larger blocks"
        )
    parts = (rows.take(~held_out(rows.row_id, share, seed)) for rows in stream.log.iter_block(block))
    stream.reference.grow(block.n_ids)
    logloss = train_pass(
        stream.reference,
        chain(before, parts),
        stream.engine.crew,
        rows=n_rows,
        on_checkpoint=keep,
    )
    return logloss, checkpoints, paths


def held_rows(stream: Stream, block: BlockManifest) -> Rows:
    """The rows of a block that its own stage's reference does not learn from, in time order."""
    share, seed = stream.config.reference.holdout, stream.config.seed
    return Rows.concat([rows.take(held_out(rows.row_id, share, seed)) for rows in stream.log.iter_block(block)])


def last_checkpoint(stream: Stream) -> Path | None:
    """The file of phi_{t-1}, in whose space the memory is; None before the first stage."""
    last = stream.last
    return stage_folder(stream.run, last.index) / last.checkpoints[-1].path if last else None
