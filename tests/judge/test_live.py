"""Candidates live: which rows they meet, and that each row is predicted before it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.config import ReferenceConfig
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge import live as live_module
from diet_ray.judge.live import LiveRows, go_live, live_rows
from diet_ray.judge.live_state import LiveState
from diet_ray.logs.blocks import Log, Rows, open_log
from diet_ray.storage.tensors import load_tensors
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


class Killed(Exception):
    pass


def test_who_is_killed_between_blocks_goes_on_from_there(
    opened: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes as in one go, and no block is met twice."""
    met = live_rows(opened, opened.blocks[1], 2.5)
    whole = new(opened, 0)
    expected = go_live(whole, met)
    passes: list[int] = []

    def counted(model: Reference, parts: list[Rows], *arguments: Any, **keys: Any) -> float:
        passes.append(len(parts[0]))
        if len(passes) == 3:
            raise Killed
        return train_pass(model, parts, *arguments, **keys)

    monkeypatch.setattr(live_module, "train_pass", counted)
    state = LiveState(tmp_path / "states" / "a.safetensors")
    with pytest.raises(Killed):
        go_live(new(opened, 0), met, state)
    assert [path.name for path in state.path.parent.iterdir()] == ["a.safetensors"]
    again = new(opened, 0)
    assert np.array_equal(go_live(again, met, state), expected)
    assert passes == [300, 300, 150, 150]
    for mine, one_go in ((again.checkpoint(), whole.checkpoint()), (again.optimiser_state(), whole.optimiser_state())):
        assert mine.keys() == one_go.keys()
        assert all(torch.equal(value, one_go[name]) for name, value in mine.items())
    state.remove()
    state.remove()
    assert not state.path.exists()


def test_only_what_was_met_is_kept(opened: Log, tmp_path: Path) -> None:
    """The state of a candidate that has learned some ids before: the same bytes from rows of the table alone."""
    before, met = opened.read_block(opened.blocks[0]).take(np.arange(5)), live_rows(opened, opened.blocks[1], 1.5)

    def begun(*, learned: bool) -> Reference:
        model = new(opened, 0)
        if learned:
            train_pass(model, [before], Solo(), rows=len(before))
        return model

    whole = begun(learned=True)
    expected = go_live(whole, met)
    ids = torch.tensor(before.ids, dtype=torch.int64)
    state = LiveState(tmp_path / "few.safetensors", ids)
    first = LiveRows(met.blocks[:1], [met.parts[0].take(np.arange(5))], met.known_ids)
    go_live(begun(learned=True), first, state, keep=True)
    kept = load_tensors(state.path)
    known = np.unique(np.concatenate([before.ids.ravel(), first.rows.ids.ravel()]))
    assert np.array_equal(kept["ids"].numpy(), known)
    assert len(kept["model/table"]) == len(known) < opened.blocks[0].n_ids
    state.remove()
    go_live(begun(learned=True), LiveRows(met.blocks[:1], met.parts[:1], met.known_ids), state, keep=True)
    again = begun(learned=False)  # the rows of the file are put into a table that has learned nothing
    assert np.array_equal(go_live(again, met, state), expected)
    for mine, one_go in ((again.checkpoint(), whole.checkpoint()), (again.optimiser_state(), whole.optimiser_state())):
        assert mine.keys() == one_go.keys()
        assert all(torch.equal(value, one_go[name]) for name, value in mine.items())


def test_a_state_that_is_damaged_or_of_another_candidate_is_named(opened: Log, tmp_path: Path) -> None:
    met, state = live_rows(opened, opened.blocks[1], 1.5), LiveState(tmp_path / "a.safetensors")
    model = new(opened, 0)
    go_live(model, met, state)
    assert state.path.exists()  # after the first of two blocks
    other = Reference(
        opened.schema,
        [NET.model_copy(update={"params": {"hidden": [4]}})],
        CONFIG,
        n_ids=opened.blocks[0].n_ids,
        seed=5,
    )
    with pytest.raises(CorruptArtefactError, match=r"a\.safetensors: not the state of this candidate"):
        state.restore(other)
    state.path.write_bytes(state.path.read_bytes()[:200])
    with pytest.raises(CorruptArtefactError, match=r"a\.safetensors: not a readable safetensors file"):
        state.restore(new(opened, 0))
