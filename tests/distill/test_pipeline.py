"""The stream end to end, in one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diet_ray.config import StreamConfig
from diet_ray.distill import pipeline
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import blocks_to_distil, run_stream
from diet_ray.errors import ConfigError
from diet_ray.logs.blocks import Rows, open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.memory.events import Events, read_events
from diet_ray.memory.layout import stage_folder
from diet_ray.memory.run_folder import committed_stages, open_run
from diet_ray.training import table
from diet_ray.training.holdout import held_out
from tests.support.small_run import config, local_run, stage_bytes
from tests.support.synthetic import write_log


def changed(stream: StreamConfig, **keys: Any) -> StreamConfig:
    return StreamConfig.model_validate({**stream.model_dump(), **keys})


def test_all_blocks_but_the_last_are_distilled_within_the_budget(finished: Path) -> None:
    stages = committed_stages(finished)
    assert [stage.block for stage in stages] == ["block-000", "block-001", "block-002"]
    assert [stage.rows_seen for stage in stages] == [300, 600, 900]
    assert [stage.units for stage in stages] == [15, 30, 45]  # a ratio of 0.05
    units = load_memory(finished).units
    assert np.bincount(units.block).tolist() == [15, 15, 15]
    assert (units.unit_id >> 32 == units.block).all()  # a unit comes from a row of its own block
    assert np.isfinite(units.delta).all()
    assert all(len(stage.checkpoints) == 2 and stage.refine is not None for stage in stages)


def test_the_same_run_gives_the_same_bytes_and_another_seed_does_not(finished: Path, log: Path, tmp_path: Path) -> None:
    assert stage_bytes(local_run(tmp_path / "same", config(log))) == stage_bytes(finished)
    other = stage_bytes(local_run(tmp_path / "other", changed(config(log), seed=4)))
    assert all(other[name] != value for name, value in stage_bytes(finished).items())


def test_the_last_block_is_never_read(finished: Path, log: Path, tmp_path: Path) -> None:
    shorter = write_log(tmp_path / "log", blocks=4, n=300)
    for path in (shorter / "blocks" / "block-003").glob("*.parquet"):
        path.unlink()
    stream = config(shorter)
    committed = open_run(tmp_path / "run", stream, resume=False)
    run_stream(tmp_path / "run", open_log(shorter), stream, LocalEngine(stream), Events(None), committed)
    for mine, theirs in zip(committed_stages(tmp_path / "run"), committed_stages(finished), strict=True):
        assert (mine.memory, mine.checkpoints) == (theirs.memory, theirs.checkpoints)


def test_held_out_rows_are_learned_from_one_stage_later(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[set[int]] = []
    targets: list[set[int]] = []
    train, refine = pipeline.train_pass, pipeline.refine

    def watched_train(reference: Any, parts: Any, crew: Any, *, rows: int, on_checkpoint: Any) -> float:
        whole = Rows.concat(list(parts))
        assert len(whole) == rows
        assert (np.diff(whole.time) >= 0).all()
        trained.append(set(whole.row_id.tolist()))
        return train(reference, [whole], crew, rows=rows, on_checkpoint=on_checkpoint)

    def watched_refine(units: Any, checkpoints: Any, held: Rows, *others: Any, **keys: Any) -> Any:
        targets.append(set(held.row_id.tolist()))
        return refine(units, checkpoints, held, *others, **keys)

    monkeypatch.setattr(pipeline, "train_pass", watched_train)
    monkeypatch.setattr(pipeline, "refine", watched_refine)
    stream = config(log)
    local_run(tmp_path / "run", stream)
    opened = open_log(log)
    for t in range(3):
        row_id = opened.read_block(opened.blocks[t]).row_id
        held = set(row_id[held_out(row_id, stream.reference.holdout, stream.seed)].tolist())
        assert 10 < len(held) < 60
        assert targets[t] == held
        assert trained[t] == (set(row_id.tolist()) - held) | (targets[t - 1] if t else set())


class Stop(Exception):
    pass


@pytest.mark.parametrize("step", ["train_pass", "choose", "convert", "refine", "save_tensors", "file_entry"])
@pytest.mark.parametrize("stage", [1, 2])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    finished: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, stage: int
) -> None:
    where = table if step == "save_tensors" else pipeline
    real, stream, run = getattr(where, step), config(log), tmp_path / "run"

    def stops(*values: Any, **keys: Any) -> Any:
        if len(committed_stages(run)) == stage:
            raise Stop
        return real(*values, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(where, step, stops)
        with pytest.raises(Stop):
            local_run(run, stream)
    committed = open_run(run, stream, resume=True)
    assert len(committed) == stage
    run_stream(run, open_log(log), stream, LocalEngine(stream), Events(None), committed)
    assert stage_bytes(run) == stage_bytes(finished)


def test_resuming_a_finished_run_changes_nothing(finished: Path, log: Path) -> None:
    before, stream = stage_bytes(finished), config(log)
    committed = open_run(finished, stream, resume=True)
    run_stream(finished, open_log(log), stream, LocalEngine(stream), Events(None), committed)
    assert stage_bytes(finished) == before


@pytest.mark.parametrize("other", [{"seed": 9}, {"blocks": 2}])
def test_a_run_is_not_resumed_on_another_log(finished: Path, tmp_path: Path, other: dict[str, int]) -> None:
    stream = config(write_log(tmp_path / "log", **{"blocks": 4, "n": 300, **other}))
    committed = open_run(finished, stream, resume=True)
    with pytest.raises(ConfigError, match=r"its block \d is not the 'block-00\d' that was distilled"):
        run_stream(finished, open_log(stream.log), stream, LocalEngine(stream), Events(None), committed)


def test_a_run_is_resumed_on_its_own_log_in_another_place(finished: Path, log: Path, tmp_path: Path) -> None:
    stream = config(Path(shutil.copytree(log, tmp_path / "moved")))
    committed = open_run(finished, stream, resume=True)
    run_stream(finished, open_log(stream.log), stream, LocalEngine(stream), Events(None), committed)


def test_a_cap_holds_at_every_stage(log: Path, tmp_path: Path) -> None:
    run = local_run(tmp_path / "run", changed(config(log), budget={"cap": 20}))
    assert [stage.units for stage in committed_stages(run)] == [20, 20, 20]
    blocks = np.bincount(load_memory(run).units.block, minlength=3)
    assert blocks.sum() == 20
    assert blocks[2] == 7  # a third of the rows seen


def test_without_rounds_the_units_stay_as_they_were_chosen(log: Path, tmp_path: Path) -> None:
    run = local_run(tmp_path / "run", changed(config(log), refine={"rounds": 0}, blocks=2))
    memory = load_memory(run)
    assert memory.stage.refine is None
    assert not memory.units.delta.any()


def test_a_refinement_that_diverges_is_dropped_and_the_run_can_be_resumed(log: Path, tmp_path: Path) -> None:
    wild = {**config(log).model_dump()["refine"], "delta_lr": 1e30, "logit_lr": 1e30}
    stream = changed(config(log), refine=wild, blocks=2)
    run = local_run(tmp_path / "run", stream)
    stages = open_run(run, stream, resume=True)
    reports = [stage.refine for stage in stages]
    assert [report.kept for report in reports if report] == [False, False]
    assert all(np.isnan(report.meta_loss).any() for report in reports if report)
    assert not load_memory(run).units.delta.any()


@pytest.mark.parametrize("n", [5, 99])
def test_more_blocks_than_the_log_has(log: Path, n: int) -> None:
    with pytest.raises(ConfigError, match=rf"key 'blocks': {n} of 4"):
        blocks_to_distil(open_log(log), changed(config(log), blocks=n))


def test_a_log_of_one_block_has_none_to_spare(tmp_path: Path) -> None:
    one = write_log(tmp_path / "log", blocks=1, n=50)
    with pytest.raises(ConfigError, match="key 'blocks': 0 of 1"):
        blocks_to_distil(open_log(one), config(one))
    assert len(blocks_to_distil(open_log(one), changed(config(one), blocks=1))) == 1


def test_a_net_that_lacks_a_field_is_refused_before_anything_is_written(log: Path, tmp_path: Path) -> None:
    fm = {"name": "fm", "arch": "fm"}
    stream = changed(config(log), refine={"rounds": 0, "proxies": [fm, {**fm, "drop_fields": ["usr"]}]})
    with pytest.raises(
        ConfigError, match=r"key 'refine\.proxies': candidate 'fm', key 'drop_fields': .* no field 'usr'"
    ):
        run_stream(tmp_path / "run", open_log(log), stream, LocalEngine(stream), Events(None), [])
    assert not (tmp_path / "run").exists()


def test_a_block_that_is_held_out_whole_names_the_key(tmp_path: Path) -> None:
    tiny = config(write_log(tmp_path / "log", blocks=2, n=2))
    stream = changed(tiny, reference={**tiny.model_dump()["reference"], "holdout": 0.99})
    with pytest.raises(ConfigError, match=r"key 'reference\.holdout': 0\.99 leaves no row of block 'block-000'"):
        local_run(tmp_path / "run", stream)


def test_blocks_of_one_row(tmp_path: Path) -> None:
    one = config(write_log(tmp_path / "log", blocks=5, n=1, shards=1))
    stream = changed(
        one, reference={**one.model_dump()["reference"], "holdout": 0}, refine={"rounds": 0}, budget={"ratio": 1.0}
    )
    stages = committed_stages(local_run(tmp_path / "run", stream))
    assert [(stage.rows_seen, stage.units) for stage in stages] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_blocks_too_small_for_units_of_their_own_give_none(tmp_path: Path) -> None:
    stream = changed(config(write_log(tmp_path / "log", blocks=5, n=40)), budget={"ratio": 0.01})
    stages = committed_stages(local_run(tmp_path / "run", stream))
    assert [stage.units for stage in stages] == [1, 1, 1, 2]


def test_events_tell_each_step_of_each_stage(finished: Path) -> None:
    events = read_events(finished / "events.jsonl")[0]
    steps = [(event["stage"], event["step"]) for event in events if event["kind"] == "step"]
    names = ["reference", "score", "select", "align", "fuse", "refine", "commit"]
    assert steps == [(stage, name) for stage in range(3) for name in names]
    assert [event["stage"] for event in events if event["kind"] == "committed"] == [0, 1, 2]
    assert stage_folder(finished, 2).is_dir()
