"""A sweep on a small run: the same verdicts as judging directly, and the ways in which it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from diet_ray.candidates import CandidateSpec
from diet_ray.cli import app
from diet_ray.engine.sweep_driver import Leaderboard, sweep
from diet_ray.errors import ResourceError
from diet_ray.judge.run_sweep import judge_pool
from diet_ray.judge.search import SearchConfig, SweepConfig
from diet_ray.judge.standings import rank
from diet_ray.judge.verdict import judge
from diet_ray.logs.blocks import open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.settings import load_yaml
from tests.support.small_run import POOL, config, local_run
from tests.support.synthetic import write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=4, n=300)


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stream = config(log).model_copy(update={"blocks": 2})
    return local_run(tmp_path_factory.mktemp("run") / "run", stream)


@pytest.mark.ray
def test_trials_are_what_judging_directly_gives(ray_cluster: int, log: Path, run: Path, tmp_path: Path) -> None:
    counted: list[tuple[int, int]] = []
    # Two at a time: a trial's process takes far longer to start than a trial.
    pool = SweepConfig.of(POOL).model_copy(update={"search": SearchConfig(concurrent=2)})
    board = sweep(
        run, pool, out=tmp_path / "sweep", block="block-003", live=0, on_progress=lambda *pair: counted.append(pair)
    )
    assert counted == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (board.block, board.rows, board.units, board.stage) == ("block-003", 300, 30, 1)

    torch.set_num_threads(1)
    memory, opened = load_memory(run), open_log(log)
    rows, student = opened.read_block(opened.blocks[3]), memory.stage.config.student
    expected = [
        judge(
            spec, memory.examples(), memory.table, rows, opened.schema, student, seed=seed, trained_on="memory"
        ).model_dump(exclude={"train_seconds", "train_wall_seconds"})
        for spec in POOL.candidates
        for seed in range(2)
    ]
    assert [
        verdict.model_dump(exclude={"train_seconds", "train_wall_seconds"}) for verdict in board.verdicts
    ] == expected
    assert board.standings == rank(board.verdicts)
    here = judge_pool(run, POOL, out=tmp_path / "here", block="block-003", live=0)  # what `--local` does
    assert without_times(here) == without_times(board)
    assert sorted(files(tmp_path / "here")) == sorted(files(tmp_path / "sweep"))

    written = sorted(path.name for path in (tmp_path / "sweep").iterdir())
    assert [name for name in written if not name.endswith(".svg")] == [
        "leaderboard.csv",
        "leaderboard.html",
        "leaderboard.json",
        "leaderboard.parquet",
        "trials",
        "verdicts.csv",
        "verdicts.parquet",
    ]
    kept = Leaderboard.model_validate_json((tmp_path / "sweep" / "leaderboard.json").read_bytes())
    assert kept.model_dump_json() == board.model_dump_json()  # nan is not itself
    with (tmp_path / "sweep" / "leaderboard.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["candidate"] for line in lines] == [line.candidate for line in board.standings]
    for line in lines:
        verdicts = [verdict for verdict in board.verdicts if verdict.candidate == line["candidate"]]
        aucs = [verdict.metrics["label_0"]["auc"] for verdict in verdicts]
        assert float(line["label_0_auc_mean"]) == pytest.approx(np.mean(aucs))
        assert float(line["label_0_auc_sd"]) == pytest.approx(np.std(aucs, ddof=1))
    for name in ("leaderboard", "verdicts"):
        frame = pd.read_parquet(tmp_path / "sweep" / f"{name}.parquet")
        pd.testing.assert_frame_equal(frame, pd.read_csv(tmp_path / "sweep" / f"{name}.csv"), check_dtype=False)
    assert frame["label_0_logloss"].tolist() == [one.metrics["label_0"]["logloss"] for one in board.verdicts]
    assert json.loads(frame["spec"][3]) == POOL.candidates[1].model_dump(mode="json")
    (table,) = board.tables()
    assert table.row_count == 4  # with the reference and a constant
    assert [line.split(":")[0] for line in board.remarks()] == ["Cost", "No fidelity run"]


def without_times(board: Leaderboard) -> list[dict[str, Any]]:
    return [one.model_dump(exclude={"train_seconds", "train_wall_seconds"}) for one in board.verdicts]


def files(out: Path) -> dict[str, int]:
    """When each trial that is kept was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}


@pytest.mark.ray
def test_an_interrupted_sweep_keeps_what_is_done(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    def press_ctrl_c(done: int, total: int) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    pool = SweepConfig.of(POOL).model_copy(update={"search": SearchConfig(concurrent=1)})
    with pytest.raises(KeyboardInterrupt):
        sweep(run, pool, out=tmp_path / "sweep", seeds=3, on_progress=press_ctrl_c)
    before = files(tmp_path / "sweep")
    assert 1 <= len(before) < 6
    assert not (tmp_path / "sweep" / "leaderboard.json").exists()
    counted: list[tuple[int, int]] = []
    board = sweep(
        run, pool, out=tmp_path / "sweep", seeds=3, restore=True, on_progress=lambda *pair: counted.append(pair)
    )
    assert counted[-1] == (6 - len(before),) * 2
    assert without_times(board) == without_times(judge_pool(run, POOL, out=tmp_path / "whole", seeds=3))
    assert {name: files(tmp_path / "sweep")[name] for name in before} == before


NETS = """
import torch
from torch import nn
import diet_ray

class Params(diet_ray.Settings):
    width: int = 3

@diet_ray.register_candidate("users-own")
class Own(diet_ray.Net):
    Params = Params

    def __init__(self, shape, params, generator):
        super().__init__(shape, params, generator)
        self.weight = nn.Parameter(torch.randn(shape.width, shape.n_tasks, generator=generator) * 0.1)
        self.narrow = params.width < 2

    def forward(self, x):
        if self.narrow:
            {problem}
        return x.flatten(1) @ self.weight
"""


@pytest.mark.ray
def test_user_code_is_judged_and_its_failure_stops_nobody(ray_cluster: int, run: Path, user_code: Path) -> None:
    module = user_code / "nets_for_sweep.py"
    module.write_text(NETS.format(problem="raise ArithmeticError('too narrow')"))
    pool = user_code / "pool.yaml"
    pool.write_text(
        "modules: [nets_for_sweep]\n"
        "search: {concurrent: 1}\n"
        "candidates:\n"
        "- {name: wide, arch: users-own, params: {width: {choice: [4, 5]}}, samples: 1}\n"
        "- {name: narrow, arch: users-own, params: {width: 1}}\n"
        "- {name: fm, arch: fm}\n"
    )
    command = ["--json", "sweep", "--memory", str(run), "--candidates", str(pool), "--out", "out", "--seeds", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "error: 1 trials failed, the others are done; candidate 'narrow': ArithmeticError: too narrow" in done.stderr
    board = json.loads(done.stdout)
    assert [one["candidate"] for one in board["verdicts"]] == ["wide.000", "fm"]
    (failed,) = board["failed"]
    assert failed["candidate"] == "narrow"
    assert failed["why"].startswith("ArithmeticError: too narrow (nets_for_sweep.py, line 20)")
    kept = files(user_code / "out")
    assert len(kept) == 2

    # Mended, it and the other one of the same module are run again, and nothing else. (A worker keeps the module that it has imported.)
    mended = NETS.format(problem="pass")
    module.write_text(mended)
    pool.write_text(pool.read_text().replace("width: 1", "width: 2"))
    done = CliRunner().invoke(app, [*command, "--restore"])
    assert done.exit_code == 0, done.stderr
    board = json.loads(done.stdout)
    assert {one["candidate"] for one in board["standings"]} == {"wide.000", "narrow", "fm"}
    assert board["failed"] == []
    assert len(files(user_code / "out").keys() - kept.keys()) == 2


def searched(samples: int, **search: Any) -> SweepConfig:
    space = {"params": {"hidden": {"choice": [[4], [8]]}}, "lr_scale": {"loguniform": [0.001, 30]}}
    raw = {"name": "net", "arch": "dnn", "samples": samples, **space}
    return SweepConfig.model_validate(
        {"candidates": [raw, {"name": "fm", "arch": "fm"}], "search": {"concurrent": 1, **search}}
    )


@pytest.mark.ray
def test_asha_gives_up_the_weak_and_a_restored_sweep_is_the_same(
    ray_cluster: int, log: Path, run: Path, tmp_path: Path
) -> None:
    config = searched(7, scheduler="asha")
    board = sweep(run, config, out=tmp_path / "sweep", live=0, seeds=2)
    ended = {standing.candidate for standing in board.standings}
    assert len(ended) + len(board.stopped) == 8
    assert "net.000" in ended  # nothing to measure the first by
    assert board.stopped
    assert {one.step for one in board.stopped} <= {2, 4}
    assert set(board.scores) == ended
    # Who came to the end is judged as ever.
    torch.set_num_threads(1)
    memory, opened = load_memory(run), open_log(log)
    spec = CandidateSpec.model_validate(board.candidates["net.000"])
    rows = opened.read_block(opened.blocks[2])
    expected = judge(
        spec,
        memory.examples(),
        memory.table,
        rows,
        opened.schema,
        memory.stage.config.student,
        seed=1,
        trained_on="memory",
    )
    assert board.verdicts[1].metrics == expected.metrics

    before = files(tmp_path / "sweep")
    again = sweep(run, config, out=tmp_path / "sweep", live=0, seeds=2, restore=True)
    assert again.model_dump_json() == board.model_dump_json()
    assert files(tmp_path / "sweep") == before
    for name in sorted(before)[:3]:
        (tmp_path / "sweep" / "trials" / name).unlink()
    again = sweep(run, config, out=tmp_path / "sweep", live=0, seeds=2, restore=True)
    assert without_times(again) == without_times(board)
    assert (again.stopped, again.scores) == (board.stopped, board.scores)


@pytest.mark.ray
def test_optuna_repeats_itself_and_goes_on_where_it_was(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    config = searched(5, algorithm="optuna")
    board = sweep(run, config, out=tmp_path / "one", seeds=1)
    assert without_times(sweep(run, config, out=tmp_path / "two", seeds=1)) == without_times(board)
    assert list(board.candidates) == ["fm", *(f"net.00{number}" for number in range(5))]
    drawn = [spec["lr_scale"] for name, spec in board.candidates.items() if name != "fm"]
    assert len(set(drawn)) == 5
    assert all(0.001 <= value <= 30 for value in drawn)
    assert set(board.scores) == set(board.candidates)
    assert {"optuna", "ray"} < set(board.versions)
    assert any(line.startswith("Best on held-out rows: ") for line in board.remarks())

    # Interrupted after three: those are given again and not trained again, the others are new.
    suggested = tmp_path / "one" / "suggested.json"
    raw = json.loads(suggested.read_text())
    suggested.write_text(json.dumps({**raw, "points": raw["points"][:3]}))
    before = files(tmp_path / "one")
    again = sweep(run, config, out=tmp_path / "one", seeds=1, restore=True)
    assert list(again.candidates.values())[:3] == list(board.candidates.values())[:3]
    assert without_times(again)[:3] == without_times(board)[:3]
    values = [spec["lr_scale"] for name, spec in again.candidates.items() if name != "fm"]
    assert len(set(values)) == 5
    after = files(tmp_path / "one")
    assert before == {name: when for name, when in after.items() if name in before}
    assert len(after) == 9


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused_before_anything_runs(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    for resources, said in (
        ({"gpus": 0.5}, r"key 'resources\.gpus': a trial asks for 0\.5, the cluster has 0"),
        ({"cpus": 5}, r"key 'resources\.cpus': a trial asks for 5, the cluster has 4"),
    ):
        config = SweepConfig.model_validate({"candidates": [{"name": "fm", "arch": "fm"}], "resources": resources})
        with pytest.raises(ResourceError, match=said):
            sweep(run, config, out=tmp_path / "sweep", live=0)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(("name", "candidates"), [("candidates", 6), ("search", 10)])
def test_the_examples_of_jobs_are_sweeps(name: str, candidates: int) -> None:
    config = load_yaml(SweepConfig, Path(__file__).parents[2] / "jobs" / "configs" / f"{name}.yaml")
    assert sum(len(spec.names()) for spec in config.candidates) == candidates


@pytest.mark.ray
def test_who_hangs_is_ended_and_the_others_are_judged(ray_cluster: int, run: Path, user_code: Path) -> None:
    (user_code / "nets_that_hang.py").write_text(NETS.format(problem="import time; time.sleep(600)"))
    own = {"arch": "users-own"}
    config = SweepConfig.model_validate(
        {
            "modules": ["nets_that_hang"],
            "resources": {"timeout": 4},
            "candidates": [
                {"name": "narrow", **own, "params": {"width": 1}},
                {"name": "wide", **own, "params": {"width": 4}},
            ],
        }
    )
    board = sweep(run, config, out=user_code / "out", live=0, seeds=1)
    assert [one.candidate for one in board.verdicts] == ["wide"]
    (failed,) = board.failed
    assert failed.why == "hangs, or is too slow: not done after 4 s (key 'resources.timeout')"
