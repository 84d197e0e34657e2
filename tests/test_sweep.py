"""A sweep on a small run: the same verdicts as judging directly, and the ways in which it refuses."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import config, local_run
from synthetic import write_log

from diet_ray.blocks import open_log
from diet_ray.candidates import CandidateFile
from diet_ray.dataset import load_memory
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge import Verdict, judge, standings
from diet_ray.sweep import Leaderboard, sweep

POOL = CandidateFile.model_validate(
    {
        "candidates": [
            {"name": "net", "arch": "dnn", "params": {"hidden": [8]}, "lr_scale": 4.0},
            {"name": "without-hour", "arch": "fm", "drop_fields": ["hour"]},
        ]
    }
)


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
    board = sweep(run, POOL, out=tmp_path / "sweep", block="block-003", on_progress=lambda *pair: counted.append(pair))
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
    assert board.standings == standings(board.verdicts)

    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["leaderboard.csv", "leaderboard.json"]
    assert Leaderboard.model_validate_json((tmp_path / "sweep" / "leaderboard.json").read_bytes()) == board
    with (tmp_path / "sweep" / "leaderboard.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["candidate"] for line in lines] == [line.candidate for line in board.standings]
    for line in lines:
        verdicts = [verdict for verdict in board.verdicts if verdict.candidate == line["candidate"]]
        aucs = [verdict.metrics["label_0"]["auc"] for verdict in verdicts]
        assert float(line["label_0_auc_mean"]) == pytest.approx(np.mean(aucs))
        assert float(line["label_0_auc_sd"]) == pytest.approx(np.std(aucs, ddof=1))
    assert board.table().row_count == 2


@pytest.mark.ray
def test_one_seed_and_the_next_block_by_default(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    one = POOL.model_copy(update={"candidates": POOL.candidates[:1]})
    board = sweep(run / "stages" / "0000", one, out=tmp_path / "sweep", seeds=1)
    assert (board.block, board.stage, len(board.verdicts)) == ("block-001", 0, 1)
    raw = json.loads((tmp_path / "sweep" / "leaderboard.json").read_text())
    assert raw["standings"][0]["sd"]["label_0"]["auc"] is None  # undefined for one seed, and still JSON
    back = Leaderboard.model_validate_json((tmp_path / "sweep" / "leaderboard.json").read_bytes())
    assert math.isnan(back.standings[0].sd["label_0"]["auc"])


def test_an_undefined_metric_survives_the_trip_from_its_trial() -> None:
    metrics = {"label_0": {"auc": math.nan, "logloss": 0.5, "gauc": math.nan, "calibration": 1.0}}
    one = Verdict(
        candidate="net",
        arch="dnn",
        trained_on="memory",
        seed=0,
        metrics=metrics,
        train_seconds=1.0,
        train_wall_seconds=1.0,
        parameters=3,
    )
    back = Verdict.model_validate_json(one.model_dump_json())
    assert math.isnan(back.metrics["label_0"]["auc"])
    assert back.metrics["label_0"]["logloss"] == 0.5


def test_an_unknown_field_is_refused_before_anything_runs(run: Path, tmp_path: Path) -> None:
    pool = CandidateFile.model_validate({"candidates": [{"name": "c", "arch": "fm", "drop_fields": ["hours"]}]})
    with pytest.raises(ConfigError, match=r"candidate 'c', key 'drop_fields': the log has no field 'hours'.*'hour'"):
        sweep(run, pool, out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("block-001", "block 'block-001': the memory has learned from it; blocks to judge on: block-002, block-003"),
        ("block-009", "block 'block-009': the log has no such block"),
    ],
)
def test_only_a_later_block_judges(run: Path, tmp_path: Path, block: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sweep(run, POOL, out=tmp_path / "sweep", block=block)
    assert not (tmp_path / "sweep").exists()


def test_without_a_later_block_nothing_can_be_judged(log: Path, run: Path, tmp_path: Path) -> None:
    short = write_log(tmp_path / "short", blocks=2, n=300)
    with pytest.raises(ConfigError, match="no block after 'block-001' to judge on"):
        sweep(run, POOL, out=tmp_path / "sweep", log=short)
    other = write_log(tmp_path / "other", blocks=1, n=300)
    with pytest.raises(ConfigError, match="has no block 'block-001', which the memory has seen last"):
        sweep(run, POOL, out=tmp_path / "sweep", log=other)


def test_a_folder_without_a_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefactError, match="holds no committed stage"):
        sweep(tmp_path, POOL, out=tmp_path / "sweep")
