"""The bench as an instrument: it finds a cheat and a fraud, and it ends alike whether or not it was interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from diet_ray.engine.bench_driver import fidelity
from diet_ray.errors import BadInputError, CorruptArtefactError
from diet_ray.judge.fidelity.assemble import assemble, costs
from diet_ray.judge.fidelity.page import write_report
from diet_ray.judge.fidelity.plan import Bench
from diet_ray.judge.fidelity.result import CEILING, FidelityResult
from diet_ray.judge.fidelity.verdicts import read_verdict
from diet_ray.logs.blocks import Rows, open_log
from tests.support.small_bench import bench_config, do_all_here
from tests.support.small_run import STREAM
from tests.support.synthetic import write_log

COMMAND = Path(sysconfig.get_path("scripts")) / "diet-ray"
FIELDS = ("user", "item", "kind", "hour")
SOME_METHODS = [
    "random/hard/own",
    "random/soft/own",
    "grand/soft/shared",
    "memory/drawn/shared",
    "refined/drawn/shared",
    "full/hard/shared+adapter",
]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> FidelityResult:
    """A bench on a log whose candidates differ widely, with all of the log as a reduced set, rightly labelled and with labels shuffled."""
    folder = tmp_path_factory.mktemp("planted")
    log = open_log(write_log(folder / "log", blocks=3, n=3000))
    whole = Rows.concat([log.read_block(block) for block in log.blocks[:2]])
    shuffled = np.random.default_rng(0).permutation(whole.labels[:, 0])
    for name, labels in (("cheat", whole.labels[:, 0]), ("fraud", shuffled)):
        pq.write_table(
            pa.table({"row_id": whole.row_id, "label_0": labels.astype(np.float32)}), folder / f"{name}.parquet"
        )
    reference = {**STREAM["reference"], "lr": 5e-3, "embedding_lr": 0.02}
    dropped = [{"name": f"no-{field}", "arch": "lr", "drop_fields": [field]} for field in FIELDS]
    only = [{"name": f"only-{f}", "arch": "lr", "drop_fields": [o for o in FIELDS if o != f]} for f in FIELDS]
    config = bench_config(
        log.path,
        folder,
        # As many steps as one pass has, so that the cheat learns from every row as often as the full log's training.
        stream={"log": log.path, **STREAM, "reference": reference, "student": {"steps": 94, "batch_size": 64}},
        given={"cheat": folder / "cheat.parquet", "fraud": folder / "fraud.parquet"},
        methods=["cheat/hard/own", "fraud/hard/own"],
        more_candidates=dropped + only,
        seeds=3,
        replicates=500,
    )
    bench = Bench.open(config, folder / "cache")
    do_all_here(bench)
    return assemble(bench)


def figures(result: FidelityResult, name: str) -> dict[str, Any]:
    [found] = [result_set for result_set in result.sets if result_set.name == name]
    return found.fidelity["label_0"]["all"]


def test_the_full_log_under_another_name_reaches_the_noise_ceiling(planted: FidelityResult) -> None:
    ceiling, cheat = figures(planted, CEILING), figures(planted, "cheat/hard/own")
    assert ceiling["spearman"].value > 0.9
    assert cheat["spearman"].value > ceiling["spearman"].value - 0.05
    assert cheat["pairs_right"].value > ceiling["pairs_right"].value - 0.03
    assert cheat["auc_gap_mean"].value < ceiling["auc_gap_mean"].value + 0.005
    assert ceiling["pairs"].value > 40  # of 66: there is something to decide


def test_shuffled_labels_fall_to_nothing(planted: FidelityResult) -> None:
    fraud = figures(planted, "fraud/hard/own")
    assert fraud["spearman"].low < 0 < fraud["spearman"].high
    assert abs(fraud["pairs_right"].value - 0.5) < 0.25
    assert fraud["auc_gap_mean"].value > 0.1  # down to .5, which those that see little never left
    scores = [score for score in planted.scores if score.set == "fraud/hard/own"]
    assert abs(np.mean([value for score in scores for value in score.values["label_0"]["auc"]]) - 0.5) < 0.03


def test_units_of_given_sets_and_of_the_ceiling(planted: FidelityResult) -> None:
    units = {result_set.name: result_set.units for result_set in planted.sets}
    assert units == {CEILING: 6000, "cheat/hard/own": 6000, "fraud/hard/own": 6000}


def test_on_ray_as_in_one_process(ray_cluster: int, log: Path, tmp_path: Path) -> None:
    """Distilled, selected and trained by Ray; the same figures, and nothing is done twice."""
    keys = {
        "methods": SOME_METHODS,
        "students": 2,
        "curve": {"ratios": [0.1], "methods": ["random/soft/shared"]},
        "stages": {"candidates": ["lr"], "methods": ["memory/drawn/shared"]},
    }
    config = bench_config(log, tmp_path, **keys)
    seen: list[tuple[str, int, int]] = []
    result, cost = fidelity(config, tmp_path / "out", lambda *what: seen.append(what))
    write_report(tmp_path / "out", (result, cost))
    here = Bench.open(config, tmp_path / "here")
    do_all_here(here)
    assert result == assemble(here)
    assert (tmp_path / "out" / "fidelity.json").read_text() == result.model_dump_json(indent=2) + "\n"
    assert (tmp_path / "out" / "fidelity.html").stat().st_size > 10_000
    assert {what: (done, total) for what, done, total in seen} == {
        "distillations": (4, 4),
        "selections": (2, 2),
        "trainings": (len(here.trainings()), len(here.trainings())),
    }

    # Per candidate: twice 2 seeds of the full log, 2 of its frozen twin; 6 sets, 2 seeds, 2 students.
    assert [len(one.values["label_0"]["auc"]) for one in result.full] == [2] * 4
    assert [point.stage for point in result.stages] == [1, 2, 3]
    assert [result_set.name for result_set in result.sets] == [CEILING, *SOME_METHODS, "random/soft/shared @ 10.00%"]
    assert [(difference.first, difference.second) for difference in result.differences] == []
    assert {candidate.candidate for candidate in cost.candidates} == {"lr", "fm", "net", "blind"}
    assert all(candidate.full_cpu > 0 and candidate.memory_wall > 0 for candidate in cost.candidates)
    [memory, refined] = cost.distillations
    assert 0 < memory.reference_seconds < memory.seconds < refined.seconds
    assert memory.bytes < refined.bytes

    # A new candidate and a new method: only those are trained.
    seen.clear()
    more = {
        "methods": [*SOME_METHODS, "last-block/soft/shared"],
        "more_candidates": [{"name": "no-hour", "arch": "lr", "drop_fields": ["hour"]}],
    }
    fidelity(bench_config(log, tmp_path, **keys | more), tmp_path / "out", lambda *what: seen.append(what))
    old, new = (
        len(here.trainings()),
        len(Bench.open(bench_config(log, tmp_path, **keys | more), tmp_path / "x").trainings()),
    )
    assert seen[-1] == ("trainings", new - old, new - old)
    assert {what for what, _, _ in seen} == {"trainings"}  # nothing else was missing


def test_a_given_set_that_is_wrong_stops_the_bench_by_name(ray_cluster: int, log: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"row_id": [1, 2], "label_0": [0.5, 7.0]}), tmp_path / "bad.parquet")
    config = bench_config(
        log, tmp_path, given={"mine": tmp_path / "bad.parquet"}, methods=["mine/hard/shared"], candidates=1
    )
    with pytest.raises(BadInputError, match=r"bad\.parquet.*within \[0, 1\]"):
        fidelity(config, tmp_path / "out", lambda *what: None)
    assert not (tmp_path / "out" / "fidelity.json").exists()


def test_a_damaged_verdict_is_never_taken_for_a_result(log: Path, tmp_path: Path) -> None:
    bench = Bench.open(bench_config(log, tmp_path, methods=["random/hard/own"]), tmp_path / "cache")
    do_all_here(bench)
    path = bench.keys.verdict_path(bench.trainings()[0])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptArtefactError, match=path.name):
        assemble(bench)


def test_costs_are_means_of_what_was_measured(log: Path, tmp_path: Path) -> None:
    config = bench_config(log, tmp_path, methods=["random/soft/shared"], students=2)
    bench = Bench.open(config, tmp_path / "cache")
    do_all_here(bench)
    cost = costs(bench, config.memory_set)
    assert cost.memory_set == "random/soft/shared"
    assert cost.distillations == []
    work = [training for training in bench.trainings() if training.candidate.name == "net"]
    full = [read_verdict(bench, one).train_seconds for one in work if one.set.ratio is None and one.set.seed < 5]
    small = [read_verdict(bench, one).train_wall_seconds for one in work if one.set.ratio]
    [net] = [candidate for candidate in cost.candidates if candidate.candidate == "net"]
    assert len(full) == 2
    assert len(small) == 4
    assert net.full_cpu == pytest.approx(np.mean(full), abs=1e-4)
    assert net.memory_wall == pytest.approx(np.mean(small), abs=1e-4)
    assert net.parameters == 4 * 4 * 8 + 8 + 8 + 1


KILLED = """
import os, signal, sys
from pathlib import Path
from diet_ray.judge.fidelity.bench import measure_fidelity
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.settings import load_yaml

def die_at_a_third(what, done, total):
    if what == "trainings" and done >= total // 3:
        os.kill(os.getpid(), signal.SIGKILL)

measure_fidelity(load_yaml(FidelityConfig, sys.argv[1]), Path(sys.argv[2]), die_at_a_third)
"""


@pytest.mark.ray
def test_a_killed_bench_goes_on_and_ends_alike(ray_cluster: int, log: Path, tmp_path: Path) -> None:
    """Killed without warning with a third of the trainings done, and run again, now on Ray: the same bytes as in one go."""
    more = {"stages": {"candidates": ["lr"], "methods": ["full/hard/own"]}, "candidates": 2}
    config = bench_config(log, tmp_path, **more)
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    bench = Bench.open(config.absolute(), tmp_path / "killed" / "cache")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "bench.yaml"), str(tmp_path / "killed")])
    assert done.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in map(bench.keys.verdict_path, bench.trainings()) if path.is_file()}
    assert len(kept) == len(bench.trainings()) // 3
    assert not (tmp_path / "killed" / "fidelity.json").exists()
    fidelity(config, tmp_path / "killed", lambda *what: None)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was done is not done again
    here = Bench.open(config.absolute(), tmp_path / "here")
    do_all_here(here)
    assert (tmp_path / "killed" / "fidelity.json").read_text() == assemble(here).model_dump_json(indent=2) + "\n"


def test_the_command_says_what_is_wrong_with_its_config(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(json.dumps({"stream": {"log": "nowhere"}, "methods": ["randm/soft/shared"]}))
    done = subprocess.run(
        [str(COMMAND), "fidelity", "--config", str(tmp_path / "bench.yaml"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "unknown rows 'randm'" in done.stderr
    assert done.stderr.count("\n") == 1
