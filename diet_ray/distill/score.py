"""Stage step 2 over one shard: read, score under the K checkpoints, sketch for selection. No Ray here."""

from __future__ import annotations

from pathlib import Path

import torch

from diet_ray.config import StreamConfig
from diet_ray.distill.el2n import el2n, mean_probability
from diet_ray.distill.select import Scored, Sketch, merge_as_they_come, sketch
from diet_ray.logs.blocks import BlockManifest, Log, Rows, Shard, read_shard
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.device import CPU
from diet_ray.training.predictor import Predictor


class ShardScorer:
    """Holds the K checkpoints on a device and scores shard after shard."""

    def __init__(
        self,
        log: Log,
        checkpoints: list[Path],
        config: StreamConfig,
        *,
        keep: int,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        self.log, self.config, self.keep, self.seed = log, config, keep, seed
        nets, precision = config.reference.nets, config.cluster.precision
        self.predictors = [
            Predictor(log.schema, nets, load_tensors(path), device=device, precision=precision) for path in checkpoints
        ]

    def score(self, rows: Rows) -> Scored:
        """EL2N and mean probability of each row."""
        probabilities = torch.stack([torch.sigmoid(predictor(rows.ids)) for predictor in self.predictors]).cpu()
        score = el2n(probabilities, torch.tensor(rows.labels))
        return Scored(rows, score.numpy(), mean_probability(probabilities).numpy())

    def sketch(self, block: BlockManifest, shard: Shard) -> Sketch:
        """What selection needs to know of a shard."""
        rows = read_shard(self.log.shard_path(block, shard), shard, self.log.schema)
        return sketch(self.score(rows), self.config.select, keep=self.keep, seed=self.seed)


def score_alone(
    log: Log,
    block: BlockManifest,
    checkpoints: list[Path],
    config: StreamConfig,
    keep: int,
    seed: int,
    *,
    device: torch.device = CPU,
) -> Sketch:
    """`Engine.score` in this process and on its device, a shard after the other; two sketches are held at most."""
    scorer = ShardScorer(log, checkpoints, config, keep=keep, seed=seed, device=device)
    return merge_as_they_come((scorer.sketch(block, shard) for shard in block.shards), keep=keep)
