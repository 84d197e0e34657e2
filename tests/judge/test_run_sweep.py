"""A sweep in this process: which block judges, what is kept and not done again, and the ways in which it refuses."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import pytest

from diet_ray.candidates import CandidateFile
from diet_ray.errors import ConfigError, CorruptArtefactError, DietError
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.judge.run_sweep import judge_pool as sweep
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.sweep_plan import Inputs, judged_with
from diet_ray.judge.verdict import Verdict
from tests.support.small_run import POOL, config, local_run
from tests.support.synthetic import write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=4, n=300)


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stream = config(log).model_copy(update={"blocks": 2})
    return local_run(tmp_path_factory.mktemp("run") / "run", stream)


def files(out: Path) -> dict[str, int]:
    """When each trial that is kept was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}


def test_one_seed_and_the_next_block_by_default_on_a_stage_from_an_archive(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIET_RAY_CACHE", str(tmp_path / "cache"))
    one = POOL.model_copy(update={"candidates": POOL.candidates[:1]})
    place, said = (run / "stages" / "0000").as_uri(), list[str]()
    board = sweep(place, one, out=tmp_path / "sweep", seeds=1, on_fetch=said.append)
    assert board.memory == place
    assert said[0] == f"looking at {run.as_uri()}"
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
    with pytest.raises(ConfigError, match="has no block 'block-001', the last one that the memory has seen"):
        sweep(run, POOL, out=tmp_path / "sweep", log=other)


def test_a_folder_without_a_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefactError, match="holds no committed stage"):
        sweep(tmp_path, POOL, out=tmp_path / "sweep")


def test_what_is_kept_is_not_run_again(run: Path, tmp_path: Path) -> None:
    first = sweep(run, POOL, out=tmp_path / "sweep", seeds=1)
    before = files(tmp_path / "sweep")
    with pytest.raises(ConfigError, match="holds a sweep; continue it with --restore, or choose another folder"):
        sweep(run, POOL, out=tmp_path / "sweep")
    renamed = POOL.candidates[0].model_copy(update={"name": "other-name"})
    pool = CandidateFile(candidates=[renamed, POOL.candidates[1]])
    counted: list[tuple[int, int]] = []
    board = sweep(run, pool, out=tmp_path / "sweep", restore=True, on_progress=lambda *pair: counted.append(pair))
    assert counted == [(1, 2), (2, 2)]  # the second seed of both
    after = files(tmp_path / "sweep")
    assert len(after) == 4
    assert before == {name: when for name, when in after.items() if name in before}
    assert [(one.candidate, one.seed) for one in board.verdicts] == [
        ("other-name", 0),
        ("other-name", 1),
        ("without-hour", 0),
        ("without-hour", 1),
    ]
    assert board.verdicts[2] == first.verdicts[1]
    # Another block to judge on is another question.
    sweep(run, pool, out=tmp_path / "sweep", seeds=1, block="block-003", restore=True)
    assert len(files(tmp_path / "sweep")) == 6


def test_a_result_says_with_which_versions_it_was_made(run: Path, tmp_path: Path) -> None:
    board = sweep(run, POOL, out=tmp_path / "sweep", seeds=1)
    assert board.versions == {name: version(name) for name in ("diet_ray", "torch", "numpy", "scipy")}
    searched = {"asha": {"scheduler": "asha"}, "optuna": {"algorithm": "optuna"}}
    raw = POOL.model_dump(mode="json")
    configs = {name: SweepConfig.model_validate({**raw, "search": search}) for name, search in searched.items()}
    assert set(judged_with(configs["asha"])) - set(board.versions) == {"ray"}
    assert set(judged_with(configs["optuna"])) - set(board.versions) == {"ray", "optuna"}
    # How long a student trains is Ray Tune's decision under ASHA: another version of it is another outcome.
    kept = {
        name: Inputs.read(run, config, log=None, block=None, moments=False, on_fetch=None).identity(None).shared
        for name, config in configs.items()
    }
    assert set(kept["asha"]["versions"]) - set(kept["optuna"]["versions"]) == {"ray"}


def test_where_all_fail_there_is_no_leaderboard(run: Path, tmp_path: Path) -> None:
    # 100 is no multiple of 3 heads; that is only known when they are drawn together.
    raw = {
        "name": "odd",
        "arch": "finalmlp",
        "params": {"second_hidden": {"choice": [[100]]}, "heads": 3},
        "samples": 1,
    }
    config = SweepConfig.model_validate({"candidates": [raw]})
    with pytest.raises(DietError, match=r"no trial finished; candidate 'odd\.000': drawn: .*heads \(3\) must divide"):
        sweep(run, config, out=tmp_path / "sweep", seeds=1)
    assert not (tmp_path / "sweep" / "leaderboard.json").exists()
    assert not (tmp_path / "sweep" / "lock.json").exists()


NET = """
import torch
import diet_ray
from width_of_my_net import scale

class Params(diet_ray.Settings):
    pass

@diet_ray.register_candidate("with-helper")
class Mine(diet_ray.Net):
    Params = Params

    def __init__(self, shape, params, generator):
        super().__init__(shape, params, generator)
        self.weight = torch.nn.Parameter(torch.randn(shape.width, shape.n_tasks, generator=generator) * scale)

    def forward(self, x):
        return x.flatten(1) @ self.weight
"""


def test_an_outcome_is_not_believed_where_a_helper_of_its_net_has_changed(run: Path, user_code: Path) -> None:
    (user_code / "my_net_with_helper.py").write_text(NET)
    (user_code / "width_of_my_net.py").write_text("scale = 0.1")
    pool = {"candidates": [{"name": "mine", "arch": "with-helper"}, {"name": "fm", "arch": "fm"}]}
    config = SweepConfig.model_validate({"modules": ["my_net_with_helper"], **pool})

    def ran() -> int:
        counted: list[tuple[int, int]] = []
        out = user_code / "sweep"
        sweep(run, config, out=out, live=0, seeds=1, restore=True, on_progress=lambda *pair: counted.append(pair))
        return len(counted)

    assert ran() == 2
    assert ran() == 0
    (user_code / "width_of_my_net.py").write_text("scale = 0.2")
    assert ran() == 1  # its own alone


@pytest.fixture(scope="module")
def other_seed(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stream = config(log).model_copy(update={"blocks": 2, "seed": 4})
    return local_run(tmp_path_factory.mktemp("run") / "run", stream)


def test_several_memories_are_judged_side_by_side(run: Path, other_seed: Path, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    board = sweep([run, other_seed], POOL, out=tmp_path / "two", on_progress=lambda *counts: said.append(counts))
    assert said == [(done, 8) for done in range(1, 9)]
    assert board.memories == [str(run), str(other_seed)]
    assert sorted((one.candidate, one.memory, one.seed) for one in board.verdicts) == sorted(
        (spec.name, memory, seed) for spec in POOL.candidates for memory in (0, 1) for seed in (0, 1)
    )
    assert {(line.seeds, line.memories) for line in board.standings} == {(2, 2)}
    assert board.decision is not None
    assert board.decision.memories == 2
    assert board.cost is not None
    assert (board.cost.memories, board.cost.trainings, board.cost.candidates) == (2, 8, 2)
    # On each memory the trials are those of a sweep on it alone.
    for number, memory in enumerate((run, other_seed)):
        alone = sweep(memory, POOL, out=tmp_path / f"one-{number}")
        ours = {(one.candidate, one.seed): one.metrics for one in board.verdicts if one.memory == number}
        assert {(one.candidate, one.seed): one.metrics for one in alone.verdicts} == ours
        assert alone.memories == []


def test_memories_that_differ_in_more_than_their_seed_are_refused(
    log: Path, run: Path, other_seed: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--memory .*: it has the same seed, 3 .*differ in their key 'seed' alone"):
        sweep([run, run], POOL, out=tmp_path / "sweep")
    with pytest.raises(ConfigError, match=r"--memory .*stages/0000: it is not of the log and the blocks of"):
        sweep([run, other_seed / "stages" / "0000"], POOL, out=tmp_path / "sweep")
    more = config(log).model_copy(update={"blocks": 2, "seed": 5})
    longer = more.model_copy(update={"student": more.student.model_copy(update={"steps": 11})})
    with pytest.raises(ConfigError, match=r"--memory .*: key 'student' of its config differs"):
        sweep([run, local_run(tmp_path / "run", longer)], POOL, out=tmp_path / "sweep")
    guided = SweepConfig.of(POOL).model_copy(
        update={"search": SweepConfig.of(POOL).search.model_copy(update={"scheduler": "asha"})}
    )
    with pytest.raises(ConfigError, match=r"key 'search': a search that decides by scores takes one --memory"):
        sweep([run, other_seed], guided, out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
