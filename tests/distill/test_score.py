"""Scoring a shard against the formula."""

from pathlib import Path

import numpy as np

from diet_ray.distill.score import ScoreJob, Scorer
from diet_ray.logs.blocks import open_log
from diet_ray.storage.tensors import load_tensors, save_tensors
from diet_ray.training.predictor import Predictor
from diet_ray.training.reference import Reference
from tests.support.small_run import config
from tests.support.synthetic import write_log


def test_scores_are_el2n_over_the_checkpoints_and_sketches_see_every_row(tmp_path: Path) -> None:
    log = open_log(write_log(tmp_path / "log", blocks=1, n=300, tasks=2))
    stream, block = config(tmp_path / "log"), log.blocks[0]
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for seed, path in enumerate(paths):
        net = Reference(log.schema, stream.reference.nets, stream.reference, n_ids=block.n_ids, seed=seed)
        save_tensors(path, {name: 5 * value for name, value in net.checkpoint().items()})
    scorer = Scorer(ScoreJob.of(log, block, paths, stream, keep=10, seed=0))
    rows = log.read_block(block)
    scored = scorer.score(rows)
    logits = [Predictor(log.schema, stream.reference.nets, load_tensors(path))(rows.ids).numpy() for path in paths]
    p = 1 / (1 + np.exp(-np.stack(logits).astype(np.float64)))
    np.testing.assert_allclose(scored.score, np.sqrt(2) * np.abs(p - rows.labels).mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(scored.probability, p.mean(axis=0), rtol=0, atol=1e-6)
    assert p.std(axis=0).max() > 1e-3  # the checkpoints differ, or the mean would not be tested
    sketches = [scorer.sketch_shard(shard) for shard in block.shards]
    positives = rows.labels.sum(axis=0)
    expected = [300 - positives[0], positives[0], 300 - positives[1], positives[1]]
    assert sum(sketch.counts for sketch in sketches).sum(axis=1).tolist() == expected
