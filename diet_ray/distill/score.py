"""Stage step 2: score the rows of a block under the K checkpoints, and sketch them for selection."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from diet_ray.config import StreamConfig
from diet_ray.distill.el2n import el2n, mean_probability
from diet_ray.distill.select import Scored, Sketch, merge_as_they_come, sketch
from diet_ray.logs.blocks import BlockManifest, Log, LogShard, Rows
from diet_ray.schema import Schema
from diet_ray.settings import Settings
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.device import CPU
from diet_ray.training.predictor import Predictor


class ScoreJob(Settings):
    """The block to score, and the settings of the scoring; sent to scorers as JSON."""

    log: Path
    """Folder of the log."""
    log_schema: Schema
    block: BlockManifest
    """The block whose rows are scored."""
    checkpoints: list[Path]
    """Files of the K checkpoints, oldest first."""
    config: StreamConfig
    """The config of the run."""
    keep: int
    """Rows that a sketch keeps per cell and stratum: the number of units to make from the block."""
    seed: int
    """The seed of the stage, for the draws of selection."""

    @staticmethod
    def of(
        log: Log, block: BlockManifest, checkpoints: list[Path], config: StreamConfig, *, keep: int, seed: int
    ) -> ScoreJob:
        """The job of a block of an open log."""
        return ScoreJob(
            log=log.path,
            log_schema=log.schema,
            block=block,
            checkpoints=checkpoints,
            config=config,
            keep=keep,
            seed=seed,
        )


class Scorer:
    """Holds the K checkpoints of a job on a device and scores rows."""

    def __init__(self, job: ScoreJob, *, device: torch.device = CPU) -> None:
        self.job = job
        self.log = Log(job.log, job.log_schema, [job.block])
        nets, precision = job.config.reference.nets, job.config.cluster.precision
        self.predictors = [
            Predictor(job.log_schema, nets, load_tensors(path), device=device, precision=precision)
            for path in job.checkpoints
        ]

    def score(self, rows: Rows) -> Scored:
        """EL2N and mean probability of each row."""
        probabilities = torch.stack([torch.sigmoid(predictor(rows.ids)) for predictor in self.predictors]).cpu()
        score = el2n(probabilities, torch.tensor(rows.labels))
        return Scored(rows, score.numpy(), mean_probability(probabilities).numpy())

    def sketch(self, rows: Rows) -> Sketch:
        """The sketch of some rows, for selection."""
        return sketch(self.score(rows), self.job.config.select, keep=self.job.keep, seed=self.job.seed)

    def sketch_shard(self, shard: LogShard) -> Sketch:
        """Read a shard and sketch it. Raises CorruptArtefactError where its file or its rows are damaged."""
        return self.sketch(self.log.read_shard(self.job.block, shard))


def score_rows(job: ScoreJob, parts: Iterable[Rows], *, device: torch.device = CPU) -> Sketch:
    """The sketch of the job's block, made in this process on `device` from its rows part by part; at most two sketches are in memory."""
    scorer = Scorer(job, device=device)
    return merge_as_they_come((scorer.sketch(rows) for rows in parts), keep=job.keep)
