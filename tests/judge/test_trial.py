"""A trial: the same student however often it pauses, and held-out rows that nothing has learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from diet_ray.candidates import CandidateSpec
from diet_ray.errors import ConfigError
from diet_ray.judge.trial import TrialContext, held_rows, held_score, run_trial
from diet_ray.judge.verdict import judge
from diet_ray.logs.blocks import open_log
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.training.holdout import held_out
from tests.support.small_run import config, local_run
from tests.support.synthetic import write_log

CPU = torch.device("cpu")
DROPOUT = CandidateSpec(name="a", arch="dnn", params={"hidden": [8], "dropout": 0.4}, lr_scale=2.0)


def task(memory: Memory, log: Path, steps: list[int], *, held: bool) -> TrialContext:
    opened = open_log(log)
    return TrialContext(
        memory.examples(),
        memory.table,
        opened.read_block(opened.blocks[3]),
        held_rows(memory, opened) if held else None,
        opened.schema,
        memory.stage.config.student,
        steps,
    )


def test_pauses_and_neighbours_change_nothing(log: Path, finished: Path) -> None:
    torch.set_num_threads(1)
    memory = load_memory(finished)
    whole = task(memory, log, [10], held=False)
    expected = [
        judge(
            DROPOUT,
            whole.examples,
            whole.table,
            whole.rows,
            whole.schema,
            whole.student,
            seed=seed,
            trained_on="memory",
        )
        for seed in (0, 5)
    ]
    reports = list(run_trial(DROPOUT, [0, 5], task(memory, log, [2, 4, 10], held=True), CPU, key="t"))
    assert [(report.step, len(report.verdicts)) for report in reports] == [(2, 0), (4, 0), (10, 2)]
    times = {"train_seconds", "train_wall_seconds"}
    assert [verdict.model_dump(exclude=times) for verdict in reports[-1].verdicts] == [
        one.model_dump(exclude=times) for one in expected
    ]
    assert all(verdict.train_seconds > 0 for verdict in reports[-1].verdicts)
    assert all(0 < report.score < 1 for report in reports)
    (plain,) = run_trial(DROPOUT, [5], whole, CPU, key="t")
    assert np.isnan(plain.score)
    assert plain.verdicts[0].metrics == expected[1].metrics


def test_the_score_is_the_mean_auc_of_the_tasks_that_have_one() -> None:
    from tests.support.synthetic import rows

    some = rows(50, tasks=3)
    some.labels[:, 1] = 0
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    expected = np.mean([roc_auc_score(some.labels[:, t], logits[:, t]) for t in (0, 2)])
    assert held_score(logits, some) == pytest.approx(expected)
    logits[3, 1] = np.nan
    assert held_score(logits, some) == 0.0


@pytest.mark.parametrize("rounds", [3, 0])
def test_held_rows_are_those_that_nothing_has_learned_from(log: Path, tmp_path: Path, rounds: int) -> None:
    stream = config(log)
    stream = stream.model_copy(update={"refine": stream.refine.model_copy(update={"rounds": rounds}), "blocks": 2})
    memory, opened = load_memory(local_run(tmp_path / "run", stream)), open_log(log)
    block = opened.read_block(opened.blocks[1])
    kept_back = [int(row) for row in block.row_id if held_out(np.array([row]), 0.1, stream.seed)[0]]
    assert len(kept_back) > 15
    if rounds:
        kept_back = kept_back[-(len(kept_back) // 3) :]  # what is before it were targets
    units = set(memory.units.unit_id.tolist())
    assert held_rows(memory, opened).row_id.tolist() == [row for row in kept_back if row not in units]


def test_where_nothing_was_held_out_the_latest_rows_score(log: Path, tmp_path: Path) -> None:
    stream = config(log)
    update = {
        "refine": stream.refine.model_copy(update={"rounds": 0}),
        "reference": stream.reference.model_copy(update={"holdout": 0.0}),
        "blocks": 1,
    }
    memory, opened = load_memory(local_run(tmp_path / "run", stream.model_copy(update=update))), open_log(log)
    block = opened.read_block(opened.blocks[0])
    units = set(memory.units.unit_id.tolist())
    assert held_rows(memory, opened).row_id.tolist() == [row for row in block.row_id[-30:].tolist() if row not in units]


def test_another_log_or_too_few_rows_are_refused(log: Path, finished: Path, tmp_path: Path) -> None:
    memory = load_memory(finished)
    other = open_log(write_log(tmp_path / "other", blocks=4, n=300, seed=1))
    with pytest.raises(ConfigError, match="its block 2 is not the 'block-002' that was distilled"):
        held_rows(memory, other)
    tiny = write_log(tmp_path / "tiny", blocks=2, n=12)
    stream = config(tiny)
    update = {
        "refine": stream.refine.model_copy(update={"rounds": 0}),
        "reference": stream.reference.model_copy(update={"holdout": 1e-6}),
        "blocks": 1,
    }
    memory = load_memory(local_run(tmp_path / "run", stream.model_copy(update=update)))
    with pytest.raises(ConfigError, match=r"key 'search': 0 rows of block 'block-000' are left to score candidates on"):
        held_rows(memory, open_log(tiny))
