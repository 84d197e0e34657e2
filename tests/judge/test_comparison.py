"""The other ways of training: what Ray tasks give is what this process gives, on the rows that are claimed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diet_ray.candidates import CandidateSpec
from diet_ray.engine.data import fan_out
from diet_ray.judge.baselines import FULL, HARD, HARD_OWN, SOFT
from diet_ray.judge.comparison import compare, compression, train_otherwise
from diet_ray.logs.blocks import open_log
from tests.support.small_run import config, local_run
from tests.support.synthetic import write_log

SPEC = CandidateSpec(name="net", arch="dnn", params={"hidden": [8]})
METHODS = [FULL, SOFT, HARD, HARD_OWN]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=3, n=300)


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return local_run(tmp_path_factory.mktemp("run") / "run", config(log))


@pytest.mark.ray
def test_tasks_give_what_this_process_gives(ray_cluster: int, run: Path) -> None:
    counted: list[tuple[int, int]] = []
    found = compare(run, [SPEC], METHODS, seeds=1, on_progress=lambda *pair: counted.append(pair), each=fan_out)
    assert counted == [(done, 4) for done in range(1, 5)]
    assert [(one.trained_on, one.seed) for one in found] == [(method, 0) for method in METHODS]
    torch.set_num_threads(1)
    expected = [train_otherwise(run, SPEC, method, 0) for method in METHODS]
    assert [one.model_dump(exclude={"train_seconds", "train_wall_seconds"}) for one in found] == [
        one.model_dump(exclude={"train_seconds", "train_wall_seconds"}) for one in expected
    ]
    # Different trainings of the same candidate: no two may agree.
    assert len({one.metrics["label_0"]["logloss"] for one in found}) == 4


def test_compression_counts_what_is_on_disk(log: Path, run: Path) -> None:
    found = compression(run, open_log(log))
    seen = [log / "blocks" / name for name in ("block-000", "block-001")]
    assert (found.rows, found.units) == (600, 30)
    assert found.log_bytes == sum(path.stat().st_size for block in seen for path in block.glob("*.parquet"))
    assert found.memory_bytes == sum(path.stat().st_size for path in (run / "stages" / "0001").glob("memory-*"))
    assert found.table_bytes == open_log(log).blocks[1].n_ids * 4 * 4
    assert found.table().row_count == 3
