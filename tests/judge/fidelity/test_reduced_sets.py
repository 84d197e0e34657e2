"""The rows of a reduced set: how many, from where, with which labels; and sets that others made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diet_ray.distill.el2n import el2n
from diet_ray.distill.local import distil_locally
from diet_ray.errors import BadInputError
from diet_ray.judge.fidelity.config import FidelityConfig, Method
from diet_ray.judge.fidelity.plan import Bench, TrainingSet
from diet_ray.judge.fidelity.reduced_sets import examples, reference, sample, select_rows
from diet_ray.judge.fidelity.selections import SELECTIONS
from diet_ray.judge.fidelity.work import runs_of
from diet_ray.logs.blocks import Rows, open_log
from diet_ray.memory.dataset import load_memory
from diet_ray.training.student import Examples
from tests.support.small_bench import bench_config
from tests.support.synthetic import write_log

METHODS = [f"{rows}/{labels}/shared" for rows in (*SELECTIONS, "memory") for labels in ("soft", "hard")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two tasks, four blocks, all references distilled."""
    folder = tmp_path_factory.mktemp("bench")
    log = write_log(folder / "log", blocks=4, n=300, tasks=2)
    bench = Bench.open(bench_config(log, folder, methods=METHODS), folder / "cache")
    for run, stream in runs_of(bench, bench.trainings()):
        distil_locally(run, stream)
    return bench


def of(bench: Bench, method: str, **changes: Any) -> TrainingSet:
    return bench.sets(Method.model_validate(method))[0].model_copy(update=changes)


def drawn(bench: Bench, training_set: TrainingSet) -> Rows:
    if training_set.method.rows not in ("random", "last-block", "most-recent"):
        select_rows(bench, training_set)
    return sample(bench, training_set)


@pytest.mark.parametrize("rows", SELECTIONS)
def test_every_selection_takes_as_many_rows_as_the_memory_has_units(bench: Bench, rows: str) -> None:
    one = of(bench, f"{rows}/soft/shared")
    found = drawn(bench, one)
    assert len(found) == sum(bench.units(one)) == len(examples(bench, of(bench, "memory/soft/shared"))[0])
    assert len(np.unique(found.row_id)) == len(found)
    assert (np.diff(found.row_id) > 0).all()
    assert found.row_id.max() >> 32 < bench.blocks  # no row of the test block


@pytest.mark.parametrize("rows", ["top-el2n", "ccs", "grand", "herding", "k-center"])
def test_blocks_and_labels_keep_their_shares(bench: Bench, rows: str) -> None:
    one = of(bench, f"{rows}/soft/shared")
    found = drawn(bench, one)
    assert np.bincount(found.row_id >> 32).tolist() == bench.units(one)
    whole = Rows.concat([bench.log.read_block(block) for block in bench.seen(one)])
    assert np.abs(found.labels.mean(axis=0) - whole.labels.mean(axis=0)).max() < 0.2


def test_top_el2n_takes_the_hardest_rows_of_each_block(bench: Bench) -> None:
    one = of(bench, "top-el2n/soft/shared")
    found = drawn(bench, one)
    for block in bench.seen(one):
        rows = bench.log.read_block(block)
        phis = [reference(bench, one, block.index, k) for k in range(2)]
        p = torch.stack([torch.sigmoid(phi(rows.ids)) for phi in phis])
        score = el2n(p, torch.tensor(rows.labels)).numpy().max(axis=1)
        chosen = np.isin(rows.row_id, found.row_id)
        assert score[chosen].mean() > np.quantile(score, 0.85)


def test_the_choice_is_kept_and_not_made_again(bench: Bench) -> None:
    one = of(bench, "herding/soft/shared")
    path = select_rows(bench, one)
    pq.write_table(pa.table({"row_id": np.array([5, 7])}), path)
    select_rows(bench, one)
    assert sample(bench, one).row_id.tolist() == [5, 7]
    path.unlink()
    select_rows(bench, one)
    assert len(sample(bench, one)) == sum(bench.units(one))


def test_the_most_recent_rows_and_those_of_the_last_block(bench: Bench) -> None:
    whole = Rows.concat([bench.log.read_block(block) for block in bench.log.blocks[:3]])
    recent = drawn(bench, of(bench, "most-recent/soft/shared"))
    assert recent.row_id.tolist() == whole.row_id[-len(recent) :].tolist()  # the synthetic log's ids go with time
    wide = drawn(bench, of(bench, "most-recent/soft/shared", ratio=0.5))
    assert wide.row_id.tolist() == whole.row_id[-450:].tolist()
    last = drawn(bench, of(bench, "last-block/soft/shared"))
    assert set(last.row_id >> 32) == {2}
    assert not np.array_equal(last.row_id, recent.row_id)
    all_of_it = drawn(bench, of(bench, "last-block/soft/shared", ratio=0.5))
    assert len(all_of_it) == 300


def test_seeds_draw_other_rows(bench: Bench) -> None:
    for rows in ("random", "last-block"):
        one, other = (of(bench, f"{rows}/soft/shared", seed=seed) for seed in (3, 4))
        assert not np.array_equal(drawn(bench, one).row_id, drawn(bench, other).row_id)


def test_an_earlier_stage_sees_its_own_blocks_and_reference(bench: Bench) -> None:
    early, late = of(bench, "random/soft/shared", blocks=1, judged=1), of(bench, "random/soft/shared")
    assert drawn(bench, early).row_id.max() >> 32 == 0
    assert not torch.equal(reference(bench, early).table, reference(bench, late).table)
    assert len(examples(bench, of(bench, "memory/soft/shared", blocks=1, judged=1))[0]) == bench.units(early)[0]


def test_labels_are_the_rows_own_or_the_references(bench: Bench) -> None:
    soft, hard = (examples(bench, of(bench, f"random/{labels}/shared"))[0] for labels in ("soft", "hard"))
    rows, phi = drawn(bench, of(bench, "random/hard/shared")), reference(bench, of(bench, "random/hard/shared"))
    assert torch.equal(torch.sigmoid(hard.logit), torch.tensor(rows.labels, dtype=torch.float32))
    assert torch.equal(soft.logit, phi(rows.ids))
    assert torch.equal(soft.x, hard.x)


def test_the_memory_is_the_runs_own(bench: Bench) -> None:
    one = of(bench, "memory/soft/shared")
    memory = load_memory(bench.keys.run_folder(bench.distillation(one)))
    found, table = examples(bench, one)
    assert torch.equal(found.x, memory.x)
    assert torch.equal(found.logit, memory.logit)
    assert torch.equal(table, memory.table)
    hard = examples(bench, of(bench, "memory/hard/shared"))[0]
    assert torch.equal(torch.sigmoid(hard.logit), torch.tensor(memory.units.label, dtype=torch.float32))


class TestGiven:
    """Reduced sets that were made elsewhere."""

    @staticmethod
    def given(bench: Bench, path: Path, table: dict[str, Any]) -> tuple[Bench, TrainingSet]:
        pq.write_table(pa.table(table), path)
        raw = bench.config.model_dump(mode="json") | {"given": {"mine": str(path)}, "methods": ["mine/hard/shared"]}
        config = FidelityConfig.model_validate(raw)
        other = Bench.open(config, bench.cache)
        return other, of(other, "mine/hard/shared")

    def test_rows_keep_the_logs_labels_unless_the_file_has_its_own(self, bench: Bench, tmp_path: Path) -> None:
        ids = [(1 << 32) + 3, 8, 2]
        other, one = self.given(bench, tmp_path / "a.parquet", {"row_id": ids, "label_1": [0.75, 0.5, 0.25]})
        found = sample(other, one)
        assert found.row_id.tolist() == sorted(ids)
        assert found.labels[:, 1].tolist() == [0.25, 0.5, 0.75]
        first = open_log(bench.config.stream.log).read_block(bench.log.blocks[0])
        assert found.labels[:2, 0].tolist() == first.labels[[2, 8], 0].tolist()
        seen: Examples = examples(other, one)[0]
        assert torch.sigmoid(seen.logit)[:, 1].tolist() == pytest.approx([0.25, 0.5, 0.75])

    @pytest.mark.parametrize(
        ("table", "says"),
        [
            ({"id": [1]}, "column 'row_id': missing"),
            ({"row_id": [1, 1]}, "2 rows are given, 1 distinct"),
            ({"row_id": [3 << 32]}, "no row of a test block"),
            ({"row_id": [1], "label_0": [1.5]}, r"not within \[0, 1\]"),
            ({"row_id": [1], "label_0": [float("nan")]}, r"not within \[0, 1\]"),
        ],
    )
    def test_a_bad_file_is_refused_by_name(self, bench: Bench, tmp_path: Path, table: dict, says: str) -> None:
        other, one = self.given(bench, tmp_path / "bad.parquet", table)
        with pytest.raises(BadInputError, match=rf"bad\.parquet.*{says}"):
            sample(other, one)

    def test_no_parquet_file_is_refused(self, bench: Bench, tmp_path: Path) -> None:
        other, one = self.given(bench, tmp_path / "x.parquet", {"row_id": [1]})
        (tmp_path / "x.parquet").write_text("hello")
        with pytest.raises(BadInputError, match="not a readable Parquet file"):
            sample(other, one)
