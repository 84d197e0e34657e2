"""A sweep with `--live`: launched, live, ranked by progressive validation; the same on Ray, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from diet_ray.candidates import CandidateSpec
from diet_ray.cli import app
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge.launch import launch
from diet_ray.judge.live import go_live, live_rows
from diet_ray.judge.metrics import evaluate
from diet_ray.judge.progressive import read_losses, row_losses
from diet_ray.judge.run_sweep import judge_pool
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.start import load_start
from diet_ray.judge.sweep_plan import Inputs, live_context, trial_context
from diet_ray.judge.trial import held_score, run_trial
from diet_ray.logs.blocks import open_log
from diet_ray.memory.layout import OPTIMISER, stage_folder
from tests.support.small_run import bytes_of, config, local_run
from tests.support.synthetic import write_log

POOL = SweepConfig.model_validate(
    {
        "candidates": [
            {"name": "net", "arch": "dnn", "params": {"hidden": [8]}},
            {"name": "narrow", "arch": "fm", "embedding_dim": 2, "embedding_lr": 0.02},
        ],
        "search": {"concurrent": 1},
    }
)


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the four blocks of `log`, distilled."""
    stream = config(log).model_copy(update={"blocks": 2})
    return local_run(tmp_path_factory.mktemp("run") / "run", stream)


def without_times(value: Any) -> Any:
    drop = ("train_seconds", "train_wall_seconds", "untracked", "cost")
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in drop}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def test_candidates_are_launched_and_judged_live(run: Path, log: Path, tmp_path: Path) -> None:
    board = judge_pool(run, POOL, out=tmp_path / "sweep", live=1.5, slices=["kind"], seeds=2)
    assert (board.block, board.rows, board.live) == ("block-002", 450, 1.5)
    opened, start = open_log(log), load_start(run)
    rows = live_rows(opened, opened.blocks[2], 1.5)
    assert len(board.verdicts) == 4
    for verdict in board.verdicts:
        spec = CandidateSpec.model_validate(board.candidates[verdict.candidate])
        logits = go_live(launch(start, spec, seed=verdict.seed), rows)
        labels, users = rows.rows.labels, rows.rows.user
        assert verdict.metrics == evaluate(logits, labels, users, ["label_0"])
        assert verdict.trained_on == "memory, then live"
        assert verdict.live is not None
        measured = verdict.live.progressive
        assert measured.whole.metrics == verdict.metrics
        assert {name: len(parts) for name, parts in measured.tenths.items()} == {"block-002": 10, "block-003": 5}
        assert {part.field for part in measured.slices} == {"kind"}
        row_id, losses = read_losses(tmp_path / "sweep" / verdict.live.losses, ["label_0"])
        assert np.array_equal(row_id, rows.rows.row_id)
        assert np.array_equal(losses, row_losses(logits, labels))
        assert float(losses.mean()) == pytest.approx(verdict.metrics["label_0"]["logloss"], rel=1e-5)
    means = [line.mean["label_0"]["logloss"] for line in board.standings]
    assert means == sorted(means)  # by LogLoss, where frozen students are ranked by AUC
    assert board.decision is not None
    assert [part.candidate for part in board.decision.candidates] == [line.candidate for line in board.standings]
    assert [part.mean for part in board.decision.candidates] == pytest.approx(means, rel=1e-5)
    assert board.decision.rows == 450
    assert board.remarks()[0].startswith(f"{board.standings[0].candidate} has the smallest loss")
    table = pq.read_table(tmp_path / "sweep" / "leaderboard.parquet")
    assert table["difference"].to_pylist() == [part.difference for part in board.decision.candidates]
    assert table["group"].to_pylist() == [part.group for part in board.decision.candidates]
    assert "nats to the best" in str(board.tables()[1].columns[-2].header)

    reference, constant = board.yardsticks
    assert constant.mean["label_0"]["auc"] == 0.5
    last = opened.blocks[1]
    share = last.positives[0] / last.rows / rows.rows.labels.mean()
    assert constant.mean["label_0"]["calibration"] == pytest.approx(share, rel=1e-5)
    assert reference.mean["label_0"]["auc"] > 0.5
    assert board.cost is not None
    assert board.cost.trainings == len(board.verdicts)

    kept = bytes_of(tmp_path / "sweep" / "losses")
    again = judge_pool(run, POOL, out=tmp_path / "sweep", live=1.5, slices=["kind"], seeds=2, restore=True)
    assert again.model_dump_json() == board.model_dump_json()  # nothing was done twice, times and all
    judge_pool(run, POOL, out=tmp_path / "other", live=1.5, slices=["kind"], seeds=2)
    assert bytes_of(tmp_path / "other" / "losses") == kept
    shorter = judge_pool(run, POOL, out=tmp_path / "sweep", live=0.5, seeds=1, restore=True)
    assert shorter.rows == 150  # another share is another trial


@pytest.mark.ray
def test_on_ray_it_gives_the_same(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    from diet_ray.engine.sweep_driver import sweep

    here = judge_pool(run, POOL, out=tmp_path / "here", live=0.5, seeds=1)
    there = sweep(run, POOL, out=tmp_path / "there", live=0.5, seeds=1)
    assert without_times(json.loads(there.model_dump_json())) == without_times(json.loads(here.model_dump_json()))
    assert bytes_of(tmp_path / "there" / "losses") == bytes_of(tmp_path / "here" / "losses")


def test_on_the_command_line(run: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.json"
    pool.write_text(POOL.model_dump_json())
    words = [
        "--local",
        "--json",
        "sweep",
        "--memory",
        str(run),
        "--candidates",
        str(pool),
        "--out",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(app, [*words, "--live", "0.1", "--slice", "kind", "--slice", "hour", "--seeds", "1"])
    assert done.exit_code == 0, done.output
    board = json.loads(done.stdout)
    assert (board["rows"], board["live"]) == (30, 0.1)
    assert {part["field"] for part in board["verdicts"][0]["live"]["progressive"]["slices"]} == {"kind", "hour"}
    assert len(list((tmp_path / "o" / "losses").glob("*.parquet"))) == 2
    shown = CliRunner().invoke(app, [*words[:1], *words[2:-1], str(tmp_path / "p"), "--live", "0.1", "--seeds", "1"])
    assert "judged live on 30 rows" in " ".join(shown.stdout.split())


def test_a_launch_is_scored_on_held_out_rows_and_pauses_change_nothing(run: Path, log: Path, tmp_path: Path) -> None:
    """What a search needs: scores before the horizon, and at it the verdict of an undisturbed launch."""
    config = SweepConfig.model_validate({**POOL.model_dump(mode="json"), "search": {"scheduler": "asha"}})
    inputs = Inputs.read(run, config, log=log, block=None, moments=True, on_fetch=None)
    met = live_context(inputs, share=0.1, slices=[], out=tmp_path)
    assert met is not None
    context = trial_context(inputs, met)
    assert context.steps[-1] == 200
    assert context.held is not None
    spec = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]})
    reports = list(run_trial(spec, [0, 1], context, torch.device("cpu"), key="t"))
    assert [report.step for report in reports] == context.steps
    assert [len(report.verdicts) for report in reports] == [0] * (len(context.steps) - 1) + [2]
    board = judge_pool(run, SweepConfig(candidates=[config.candidates[0]]), out=tmp_path / "sweep")
    assert [one.metrics for one in reports[-1].verdicts] == [one.metrics for one in board.verdicts]
    assert (board.rows, board.live) == (30, 0.1)  # the default
    models = [launch(met.start, spec, seed=seed) for seed in (0, 1)]
    logits = [model.predict(torch.tensor(context.held.ids))[0].numpy() for model in models]
    assert reports[-1].score == pytest.approx(np.mean([held_score(one, context.held) for one in logits]))


@pytest.mark.parametrize(
    ("pool", "options", "message"),
    [
        ({}, {"live": 2.5}, r"--live 2\.5: the log has 2 blocks from 'block-002' on"),
        ({}, {"live": -1}, r"--live -1: must be a number of blocks"),
        ({}, {"live": float("nan")}, r"--live nan: must be a number of blocks"),
        (
            {},
            {"live": 0.1, "slices": ["knd"]},
            r"--slice knd: the log has no such field; fields: user, item, kind, hour",
        ),
        ({}, {"live": 0}, r"candidate 'narrow', key 'embedding_lr': a frozen student has no table of its own"),
        ({"candidates": [{"name": "a", "arch": "fm"}]}, {"live": 0, "slices": ["kind"]}, r"--slice: only live rows"),
        ({"resources": {"gpus": 1}}, {}, r"key 'resources.gpus': live candidates use the CPU"),
        ({}, {"live": 0.1, "block": "block-001"}, r"block 'block-001': the memory has learned from it"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, pool: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    config = SweepConfig.model_validate({**POOL.model_dump(mode="json"), **pool})
    with pytest.raises(ConfigError, match=message):
        judge_pool(run, config, out=tmp_path / "sweep", runner=Anything(), **options)
    assert not (tmp_path / "sweep").exists()


class Anything:
    """A runner that can do all, and must not be asked to."""

    def check(self, config: SweepConfig) -> None:
        pass

    def run(self, *arguments: Any) -> Any:
        pytest.fail("asked to run trials")


def test_a_memory_without_moments_and_another_log_are_refused(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (stage_folder(copy, 1) / OPTIMISER).unlink()
    with pytest.raises(CorruptArtefactError, match=rf"{OPTIMISER}: missing"):
        judge_pool(copy, POOL, out=tmp_path / "sweep", live=0.1)
    other = write_log(tmp_path / "other", blocks=4, n=300, seed=1)
    with pytest.raises(ConfigError, match="its block 0 is not the 'block-000' that was distilled"):
        judge_pool(run, POOL, out=tmp_path / "sweep", log=other, live=0.1)
    assert not (tmp_path / "sweep").exists()


def test_a_candidate_that_diverges_comes_last_and_stops_nobody(run: Path, tmp_path: Path) -> None:
    wild = {"name": "a-wild", "arch": "dnn", "params": {"hidden": [8]}, "lr_scale": 1e30}
    pool = SweepConfig.model_validate({"candidates": [wild, *POOL.model_dump(mode="json")["candidates"]]})
    board = judge_pool(run, pool, out=tmp_path / "sweep", live=0.5, seeds=1)
    assert [line.candidate for line in board.standings][-1] == "a-wild"
    assert board.standings[-1].undefined["label_0"]["logloss"] == "predictions are not finite"
    assert board.decision is not None
    assert board.decision.diverged == ["a-wild"]
    assert board.failed == []
