"""The stream: one stage of DIET per block. `Engine` is the interface to everything that is distributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diet_ray.config import CheckpointsConfig, StreamConfig
from diet_ray.distill.convert import convert
from diet_ray.distill.fuse import quota
from diet_ray.distill.refine import refine
from diet_ray.distill.score import ScoreJob
from diet_ray.distill.select import Scored, Sketch, choose
from diet_ray.distill.sharded_memory import ShardedMemory
from diet_ray.errors import ConfigError
from diet_ray.logs.block_rows import BlockRows
from diet_ray.logs.blocks import BlockManifest, Log, Rows, block_sha256, open_log
from diet_ray.memory.events import Events
from diet_ray.memory.facts import RefineReport
from diet_ray.memory.layout import checkpoint, optimiser, stage_folder, stage_manifest
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.pruning import prune
from diet_ray.memory.run_folder import StageDraft, policy, read_stage
from diet_ray.memory.same_bytes import check_same_bytes, made_here, processor
from diet_ray.memory.same_log import check_same_log
from diet_ray.memory.table_chain import ROWS, ChangedRows, builds_on
from diet_ray.memory.table_reader import LinkFile, TableReader
from diet_ray.memory.tables import load_checkpoint, load_optimiser, save_rows
from diet_ray.memory.units import Units
from diet_ray.schema import Schema
from diet_ray.seeds import derive_seed
from diet_ray.storage.entries import file_entry
from diet_ray.storage.hashes import content_hash, sha256
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.device import torch_threads
from diet_ray.training.holdout import held_out, held_rows
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.room import check_room
from diet_ray.training.sharded_table import ShardedTable
from diet_ray.training.workers import Crew


class Engine(Protocol):
    """Executes the work of a stage: in this process (`LocalEngine`) or on a Ray cluster (`RayEngine`)."""

    crew: Crew
    memory: ShardedMemory

    def score(self, job: ScoreJob, rows: BlockRows) -> Sketch:
        """Score every row of the job's block and sketch the result for selection; only the leader calls it, with the block's `rows`."""
        ...


@dataclass
class Stream:
    """The state of a run in progress; each worker has one."""

    run: Path
    log: Log
    config: StreamConfig
    engine: Engine
    events: Events
    reference: Reference
    kept: CheckpointsConfig
    """What stays of the reference in the run folder."""
    last: StageManifest | None = None
    """The last committed stage."""
    held: Rows | None = None
    """The rows that the last stage held out; the reference trains on them next."""
    pruned: int = 0
    """Stages from whose folders it was removed."""

    @property
    def leads(self) -> bool:
        """Whether this worker is the leader, who does the work that is done only once."""
        return self.engine.crew.rank == 0

    def prune(self) -> None:
        """Remove what is not kept of the reference from the stages before the last ones. Only the leader does that."""
        if self.leads and self.last is not None:
            self.pruned = prune(self.run, keep=self.kept.keep, committed=self.last.index + 1, start=self.pruned)


def blocks_to_distil(log: Log, config: StreamConfig) -> list[BlockManifest]:
    """The blocks to distil. Raises ConfigError where the log has fewer than the config requests, or only one and no number is requested."""
    n = len(log.blocks) - 1 if config.blocks is None else config.blocks
    if not 1 <= n <= len(log.blocks):
        raise ConfigError(
            f"key 'blocks': {n} of {len(log.blocks)} blocks of {log.path} cannot be distilled; ingest more blocks or ask for fewer"
        )
    return log.blocks[:n]


def open_for(config: StreamConfig) -> tuple[StreamConfig, Log, int]:
    """Check the config of a run against its log, before anything is written.

    Returns:
        The config with the absolute path of its log, the log, and the number of blocks to distil.

    Raises:
        ConfigError: log and config do not fit.
        CorruptArtefactError: the log is missing or damaged.
    """
    config = config.model_copy(update={"log": config.log.resolve()})
    log = open_log(config.log)
    check_nets(log.schema, config)
    return config, log, len(blocks_to_distil(log, config))


def check_nets(schema: Schema, config: StreamConfig) -> None:
    """Raise ConfigError where a log lacks a field that a net of the reference or a proxy needs."""
    for key, nets in (("reference.nets", config.reference.nets), ("refine.proxies", config.refine.proxies)):
        for net in nets:
            try:
                net.kept_fields(schema.field_names)
            except ConfigError as error:
                raise ConfigError(f"key '{key}': {error}") from error


def run_stream(
    run: Path, log: Log, config: StreamConfig, engine: Engine, events: Events, committed: list[StageManifest]
) -> None:
    """Distil the blocks after the last committed stage, one after the other. Raises ConfigError where log and config do not fit."""
    check_nets(log.schema, config)
    with torch_threads(config.cluster.threads_per_worker):
        stream = begin(run, log, config, engine, events, committed)
        for block in blocks_to_distil(log, config)[len(committed) :]:
            run_stage(stream, block)


def begin(
    run: Path, log: Log, config: StreamConfig, engine: Engine, events: Events, committed: list[StageManifest]
) -> Stream:
    """The state before the next stage: new, or restored exactly from the last committed stage.

    Raises:
        ConfigError: the log is not the one from which the committed stages were made.
        CorruptArtefactError: a file of the last stage is damaged.
        ResourceError: the table, its moments and its checkpoints are larger than this machine's memory.
    """
    check_log(log, committed)
    _check_crew(log, engine.crew)
    most_ids = blocks_to_distil(log, config)[-1].n_ids
    check_room(f"log {log.path}", most_ids, config.reference, engine.crew.size, run)
    shards, table = None, config.reference.table
    if table.split(engine.crew.size):
        keys = config.reference
        shards = ShardedTable(engine.crew, keys.dim, keys.embedding_lr, most_ids=most_ids, on=table.on, folder=run)
    reference = Reference(
        log.schema,
        config.reference.nets,
        config.reference,
        n_ids=log.blocks[0].n_ids,
        seed=derive_seed(config.seed, "reference"),
        shards=shards,
    )
    stream = Stream(run, log, config, engine, events, reference, policy(run, config))
    if stream.leads:
        engine.memory.begin(log.schema, config)
    if committed:
        last = committed[-1]
        folder = stage_folder(run, last.index)
        if shards is None:
            reference.load(load_checkpoint(folder, last), load_optimiser(folder, last))
        else:
            reference.load_shard(TableReader.open(folder, last), TableReader.open(folder, last, moments=True))
        if stream.leads:
            engine.memory.load(folder, last.memory)
        stream.last = last
        stream.prune()
        stream.held = held_rows(log.iter_block(log.blocks[last.index]), config.reference.holdout, config.seed)
    engine.crew.barrier()
    return stream


def finish(run: Path, log: Log, config: StreamConfig, committed: list[StageManifest]) -> None:
    """What a resume does where all blocks are distilled already: it compares the log, and prunes what a process did not that was killed.

    Raises ConfigError where the log is not the one from which the stages were made.
    """
    check_log(log, committed)
    prune(run, keep=policy(run, config).keep, committed=len(committed))


def check_log(log: Log, committed: list[StageManifest]) -> None:
    """Raise ConfigError where committed stages of a run were made from another log."""
    check_same_log(log, committed, remedy="resume with the run's own log or start a new run")


def check_processor(run: Path, committed: list[StageManifest], device: torch.device) -> None:
    """Raise ConfigError where this process, as the first worker, computes in another way than that of the last committed stage did."""
    if committed:
        check_same_bytes(str(run), processor(committed[-1].made_with), processor(made_here(device)))


def _check_crew(log: Log, crew: Crew) -> None:
    """Raise ConfigError where the workers have opened different logs: one that changes while they start, or differs from node to node."""
    own = torch.tensor([int(content_hash(log.checksums)[:8], 16)])
    if int(crew.sum(own.clone())) != crew.size * int(own):
        raise ConfigError(
            f"log {log.path}: the workers see different blocks; let nobody write to it, and put it where all nodes see it"
        )


def run_stage(stream: Stream, block: BlockManifest) -> None:
    """One stage: distil a block and commit M_t and phi_t. docs/method.md has a diagram of it."""
    stage = Stage(stream, block)
    stage.reference()
    if stream.leads:
        selected = stage.select(stage.score())
        fresh = stage.convert(selected)
        stage.align()
        stage.fuse(fresh)
    stream.engine.crew.barrier()
    report = stage.refine()
    stage.commit(report)


class Stage:
    """The state of a stage in progress; each worker has one. It has a method per step and the results that steps share."""

    def __init__(self, stream: Stream, block: BlockManifest) -> None:
        self.stream, self.block, self.index = stream, block, block.index
        self.draft = StageDraft(stream.run, self.index)
        self.rows = BlockRows(stream.log, block)
        self.rows_before = stream.last.rows_seen if stream.last else 0
        self.n_fresh = quota(
            stream.config.budget,
            block_rows=block.rows,
            rows_before=self.rows_before,
            units_before=stream.last.units if stream.last else 0,
        )
        n_checkpoints = stream.config.reference.checkpoints
        self.paths = [checkpoint(self.draft.folder, k) for k in range(n_checkpoints)]
        """Files of the K checkpoints, saved by the leader."""
        self.changed = ChangedRows(stream.last.n_ids if stream.last else 0, block.n_ids)
        """The rows of the table that the pass of step 1 changes."""
        self.checkpoints: list[Predictor] = []
        """The K checkpoints, where there is refinement."""
        self.held: Rows | None = None
        """The held-out rows, on which the reference did not train."""
        stream.events.emit("stage", stage=self.index, block=block.name, rows=block.rows)
        if stream.leads:
            self.draft.begin()
        stream.engine.crew.barrier()

    def reference(self) -> None:
        """Step 1: train phi_{t-1} to phi_t by one pass over the rows that the last stage held out, then the block's rows not held out.

        Raises ConfigError where all rows of a small block are held out.
        """
        with self._step("reference", rows=self.block.rows):
            self.logloss = self._train()
        if not self.stream.leads:
            self.rows.release()  # only the leader scores them
        self.stream.engine.crew.barrier()

    def score(self) -> Sketch:
        """Step 2: EL2N of every row under the checkpoints, sketched for selection."""
        stream = self.stream
        job = ScoreJob.of(
            stream.log,
            self.block,
            self.paths,
            stream.config,
            keep=self.n_fresh,
            seed=derive_seed(stream.config.seed, "stage", self.index),
        )
        with self._step("score", rows=self.block.rows):
            sketch = stream.engine.score(job, self.rows)
        self.rows.release()
        return sketch

    def select(self, sketch: Sketch) -> Scored:
        """Step 3: select the block's rows that become units, per (task, label) cell."""
        with self._step("select"):
            return choose(sketch, self.stream.config.select, n=self.n_fresh)

    def convert(self, selected: Scored) -> Units:
        """Step 4: make units of those rows."""
        schema, dim = self.stream.log.schema, self.stream.config.reference.dim
        return convert(selected, block=self.index, n_fields=schema.n_fields, dim=dim)

    def align(self) -> None:
        """Step 5: move the memory from the space of phi_{t-1} to that of phi_t."""
        with self._step("align"):
            self.stream.engine.memory.align(self._previous(), self.paths[-1], self.stream.config.align)

    def fuse(self, fresh: Units) -> None:
        """Step 6: add the fresh units to the memory, within the budget."""
        with self._step("fuse"):
            self.stream.engine.memory.fuse(fresh, self.stream.config.budget)

    def refine(self) -> RefineReport | None:
        """Step 7: bi-level rounds on the held-out rows; returns their report, None where there were no rounds."""
        stream, rounds = self.stream, self.stream.config.refine.rounds
        assert self.held is not None, "the reference comes first"
        with self._step("refine", rounds=rounds):
            stream.engine.memory.open()
            return refine(
                stream.engine.memory,
                self.checkpoints,
                self.held,
                stream.log.schema,
                stream.config,
                stream.engine.crew,
                seed=derive_seed(stream.config.seed, "refine", self.index),
                on_round=lambda done: stream.events.progress(self.index, "refine", done, rounds),
            )

    def commit(self, report: RefineReport | None) -> None:
        """Step 8: the leader writes the last files and makes the stage visible; all workers continue from it."""
        stream = self.stream
        with self._step("commit"):
            rows = self.changed.rows()
            whole = builds_on(stream.last, stream.kept, rows, self.block.n_ids)
            moments, crew = optimiser(self.draft.folder), stream.engine.crew
            if whole is None:
                stream.reference.save_moments(moments, crew)
            else:
                stream.reference.save_moments(moments, crew, rows, **{ROWS: torch.from_numpy(rows)})
            if stream.leads:
                manifest = self._manifest(report, whole, rows)
                self.draft.commit(manifest)
        if stream.leads:
            units, rows_seen = manifest.units, manifest.rows_seen
            stream.events.emit("committed", stage=self.index, block=self.block.name, units=units, rows_seen=rows_seen)
        stream.engine.crew.barrier()
        stream.last = read_stage(stream.run, self.index)
        stream.prune()
        stream.held = self.held

    def _train(self) -> float:
        """The pass of step 1; returns the mean loss of the rows before the reference trained on them."""
        stream, reference = self.stream, self.stream.config.reference
        share, seed = reference.holdout, stream.config.seed
        before = [stream.held] if stream.held is not None and len(stream.held) else []
        n_held = int(held_out(self.rows.row_ids(), share, seed).sum())
        n_rows = sum(len(rows) for rows in before) + self.block.rows - n_held
        if not n_rows:
            raise ConfigError(
                f"key 'reference.holdout': {share} leaves no row of block {self.block.name!r} ({self.block.rows} rows) to train on; "
                "lower the key or ingest larger blocks"
            )
        held: list[Rows] = []
        nets: list[dict[str, Tensor]] = []
        for rows in before:
            self.changed.note(rows.ids)

        def training_rows() -> Iterator[Rows]:
            for rows in self.rows:
                out = held_out(rows.row_id, share, seed)
                held.append(rows.take(out))
                trained = rows.take(~out)
                self.changed.note(trained.ids)
                yield trained

        def keep(k: int) -> None:
            stream.reference.save(self.paths[k], stream.engine.crew)
            nets.append(stream.reference.nets())

        stream.reference.grow(self.block.n_ids)
        logloss = train_pass(
            stream.reference, chain(before, training_rows()), stream.engine.crew, rows=n_rows, on_checkpoint=keep
        )
        self.held = Rows.concat(held)
        if stream.config.refine.rounds:
            # Refinement reads the nets of all checkpoints, and of the last one's table, which is the reference's now, the rows held out.
            rows_held = np.unique(np.append(self.held.ids.ravel(), 0))
            table = stream.reference.table.take(rows_held)
            self.checkpoints = [
                Predictor(stream.log.schema, reference.nets, {"table": table, **weights}, rows=rows_held)
                for weights in nets
            ]
        return logloss

    def _manifest(self, report: RefineReport | None, whole: int | None, rows: np.ndarray) -> StageManifest:
        """Write the last files of the stage, whose table builds on the stage `whole` and then has only `rows`; returns its manifest."""
        stream, block = self.stream, self.block
        if stream.kept.keep != "all":  # the checkpoints along the pass are needed only to score its block
            for path in self.paths[:-1]:
                path.unlink()
            del self.paths[:-1]
        if whole is not None:  # it was whole for those who score and align
            save_rows(self.paths[-1], load_tensors(self.paths[-1]), rows)
        return StageManifest(
            index=self.index,
            block=block.name,
            block_sha256=block_sha256(stream.log, block),
            parent_sha256=sha256(stage_manifest(stream.run, self.index - 1)) if stream.last else None,
            rows_seen=self.rows_before + block.rows,
            n_ids=block.n_ids,
            units=len(stream.engine.memory),
            config=stream.config,
            log_schema=stream.log.schema,
            reference_logloss=self.logloss,
            refine=report,
            memory=stream.engine.memory.write(self.draft.folder),
            checkpoints=[file_entry(path) for path in self.paths],
            optimiser=file_entry(optimiser(self.draft.folder)),
            whole=whole,
            made_with=made_here(stream.engine.crew.device),
        )

    def _previous(self) -> list[LinkFile] | None:
        """The files of phi_{t-1}, to whose space the memory belongs; None before the first stage."""
        last = self.stream.last
        if last is None:
            return None
        folder = stage_folder(self.stream.run, last.index)
        if last.whole is None or self.stream.config.align.method == "reembed":  # which reads only the table of phi_t
            return [LinkFile(folder / last.checkpoints[-1].path, last.n_ids)]
        return TableReader.open(folder, last).files

    def _step(self, name: str, **values: Any) -> AbstractContextManager[None]:
        return self.stream.events.step(self.index, name, **values)
