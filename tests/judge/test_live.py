"""Candidates live: which rows they meet, and that each row is predicted before it is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig
from diet_ray.errors import ConfigError
from diet_ray.judge.live import go_live, live_rows
from diet_ray.logs.blocks import Log, open_log
from diet_ray.training.reference import Reference, train_pass
from diet_ray.training.workers import Solo

NET = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]}, adapter=False)
CONFIG = ReferenceConfig(nets=[NET], dim=4, batch_size=64)


@pytest.fixture(scope="module")
def opened(log: Path) -> Log:
    return open_log(log)


def new(log: Log, block: int) -> Reference:
    return Reference(log.schema, [NET], CONFIG, n_ids=log.blocks[block].n_ids, seed=5)


@pytest.mark.parametrize(
    ("share", "rows"),
    [(0.1, [30]), (0.0001, [1]), (1, [300]), (1.5, [300, 150]), (3, [300, 300, 300])],
)
def test_a_share_is_in_blocks(opened: Log, share: float, rows: list[int]) -> None:
    live = live_rows(opened, opened.blocks[1], share)
    assert [len(part) for part in live.parts] == rows
    assert list(live.sizes.items()) == [(f"block-{1 + index:03d}", 300) for index in range(len(rows))]
    whole = np.concatenate([opened.read_block(block).row_id for block in opened.blocks[1:]])
    assert np.array_equal(live.rows.row_id, whole[: sum(rows)])
    assert live.known_ids == opened.blocks[0].n_ids


def test_a_share_beyond_the_log_is_refused(opened: Log) -> None:
    with pytest.raises(ConfigError, match=r"--live 2\.5: the log has 2 blocks from 'block-002' on; lower it"):
        live_rows(opened, opened.blocks[2], 2.5)


def test_it_learns_what_a_pass_learns_and_predicts_before(opened: Log) -> None:
    live, passed = new(opened, 0), new(opened, 0)
    met = live_rows(opened, opened.blocks[1], 1.5)
    logits = go_live(live, met)
    assert logits.shape == (450, 1)
    assert logits.dtype == np.float32
    first = new(opened, 0).eval()(torch.tensor(met.rows.ids[:64]))[0]
    assert np.array_equal(logits[:64], first.detach().numpy())  # before anything was learned
    for part in met.parts:
        train_pass(passed, [part], Solo(), rows=len(part))
    assert all(torch.equal(value, passed.checkpoint()[name]) for name, value in live.checkpoint().items())
    assert np.array_equal(go_live(new(opened, 0), met), logits)  # and the same again


def test_new_ids_grow_the_table(opened: Log) -> None:
    model, met = new(opened, 0), live_rows(opened, opened.blocks[1], 0.5)
    grown = met.blocks[0].model_copy(update={"n_ids": met.blocks[0].n_ids + 7})
    met.parts[0].ids[0, 1] = grown.n_ids - 1
    go_live(model, type(met)([grown], met.parts, met.known_ids))
    assert model.embedding.n_ids == grown.n_ids
