"""A race: who leaves and when, that it goes on from where candidates stand, and what it refuses."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

from diet_ray import figures
from diet_ray.candidates import CandidateSpec, Net, Shape, registry
from diet_ray.cli import app
from diet_ray.errors import ConfigError, DietError
from diet_ray.judge import launch as launch_module
from diet_ray.judge import live_trial
from diet_ray.judge.baselines import learn_blocks, own_model
from diet_ray.judge.decision import decide
from diet_ray.judge.live import distinct_rungs, go_live, rungs_of_rows
from diet_ray.judge.progressive import read_losses, row_losses
from diet_ray.judge.race_rules import RUNGS, Budget, Race, leaving, look_level
from diet_ray.judge.run_race import race, read_race
from diet_ray.judge.run_sweep import judge_pool
from diet_ray.judge.search import SweepConfig
from diet_ray.judge.start import load_start
from diet_ray.judge.trackers import Trackers
from diet_ray.logs.blocks import BlockManifest, Log, Rows, open_log
from diet_ray.settings import Settings
from tests.judge.test_decision import planted
from tests.support.small_run import bytes_of, config, local_run
from tests.support.synthetic import write_log

NET = {"name": "net", "arch": "dnn", "params": {"hidden": [8]}}
FAST = {**NET, "name": "fast", "lr_scale": 30}
SLOW = {**NET, "name": "slow", "lr_scale": 1e-4, "embedding_lr": 1e-6}
DULL = {**SLOW, "name": "dull", "arch": "fm", "params": {}}
"""Candidates that learn more than `NET`, and next to nothing."""


def pool(*candidates: dict[str, Any], **keys: Any) -> SweepConfig:
    return SweepConfig.model_validate({"candidates": list(candidates), **keys})


POOL = pool(DULL, FAST, SLOW)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks of 2000 rows; batches have 64."""
    return write_log(tmp_path_factory.mktemp("log") / "log", blocks=4)


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the four blocks of `log`, distilled."""
    return local_run(tmp_path_factory.mktemp("run") / "run", config(log).model_copy(update={"blocks": 2}))


@pytest.fixture(scope="module")
def opened(log: Path) -> Log:
    return open_log(log)


class Moody(Net):
    """A net that raises while `Moody.angry`."""

    angry = False

    class Params(Settings):
        """None."""

    def __init__(self, shape: Shape, params: Any, generator: torch.Generator) -> None:
        super().__init__(shape, params, generator)
        self.linear = nn.Linear(shape.dim, shape.n_tasks)
        nn.init.normal_(self.linear.weight, std=0.1, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        if Moody.angry:
            raise RuntimeError("out of luck")
        out: Tensor = self.linear(x.mean(dim=1))
        return out


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._REGISTRY, "moody", Moody)
    monkeypatch.setattr(Moody, "angry", False)


def without_times(result: Race) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(result.model_dump_json())
    for part in [body, *body["rungs"], *([body["confirmation"]] if body["confirmation"] else [])]:
        part.pop("cpu_seconds")
        part.pop("cost", None)
    return body


# The rules.


def test_who_is_worse_beyond_doubt_leaves_and_nobody_else() -> None:
    losses, users = planted(0.1, 0.0, 0.001, 0.2)
    decision = decide(losses, users, confidence=look_level(0.95, 4))
    gone = leaving(decision, 2)
    assert [(one.candidate, one.rung, one.how) for one in gone] == [("c0", 2, "worse"), ("c3", 2, "worse")]
    assert leaving(None, 2) == []
    assert gone[0].decided is not None
    assert gone[0].decided.low > 0
    assert gone[0].why.startswith("0.1")
    assert "nats worse than c1" in gone[0].why


def test_the_error_is_divided_over_the_looks() -> None:
    assert look_level(0.95, 4) == pytest.approx(0.9875)
    assert look_level(0.9, 1) == pytest.approx(0.9)


def test_the_best_of_equals_is_seldom_lost() -> None:
    """One candidate under eight names, three looks at growing rows: any of them leaves in at most 5 % of the races."""
    races, lost = 120, 0
    for number in range(races):
        rng = np.random.default_rng(number)
        hard = rng.gamma(1, 0.4, size=3000)
        seeds = 0.002 * rng.normal(size=(8, 2, 1))
        losses = hard + seeds + 0.1 * rng.normal(size=(8, 2, 3000))
        users = rng.integers(600, size=3000)
        for rows in (600, 1500, 3000):
            decision = decide(
                {f"c{k}": losses[k, :, :rows] for k in range(8)}, users[:rows], confidence=look_level(0.95, 3)
            )
            if leaving(decision, 1):
                lost += 1
                break
    assert lost / races <= 0.05


@pytest.mark.parametrize(("text", "amount", "unit"), [("900s", 900, "s"), ("1.5x", 1.5, "x"), (" .5x", 0.5, "x")])
def test_a_budget_is_read(text: str, amount: float, unit: str) -> None:
    assert Budget.read(text) == Budget(amount, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["900", "0s", "-1x", "x", "1e3s", "nan"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--budget .*: must be CPU seconds, such as 900s, or full trainings, such as 1\.5x"
    ):
        Budget.read(text)


# The rows of the rungs.


def test_rungs_are_whole_batches_or_whole_blocks(opened: Log) -> None:
    rungs = rungs_of_rows(opened, opened.blocks[1], [0.01, 0.5, 1, 1.5, 3], 64)
    assert [len(rung.rows) for rung in rungs] == [64, 960, 2000, 2960, 6000]
    assert [len(part) for part in rungs[-1].parts] == [64, 896, 1040, 960, 1040, 2000]
    assert [block.index for block in rungs[-1].blocks] == [1, 1, 1, 2, 2, 3]
    assert rungs[3].sizes == {"block-001": 2000, "block-002": 2000}
    whole = np.concatenate([opened.read_block(block).row_id for block in opened.blocks[1:]])
    for rung in rungs:
        assert np.array_equal(rung.rows.row_id, whole[: len(rung.rows)])


@pytest.mark.parametrize(
    ("batch", "left"), [(10, [0.02, 0.1, 0.25, 1]), (150, [0.1, 0.25, 1]), (256, [0.25, 1]), (4000, [1])]
)
def test_default_rungs_on_a_block_of_a_few_batches(opened: Log, batch: int, left: list[float]) -> None:
    assert distinct_rungs(opened, opened.blocks[1], RUNGS, batch) == left
    assert len(rungs_of_rows(opened, opened.blocks[1], left, batch)) == len(left)


def test_rungs_that_are_one_or_beyond_the_log_are_refused(opened: Log) -> None:
    with pytest.raises(
        ConfigError, match=r"the rung 0\.03 ends after 64 rows of block 'block-001', as the rung before it does"
    ):
        rungs_of_rows(opened, opened.blocks[1], [0.001, 0.03], 64)
    with pytest.raises(ConfigError, match=r"--rungs 2\.5: the log has 2 blocks from 'block-002' on"):
        rungs_of_rows(opened, opened.blocks[2], [1, 2.5], 64)


# Whole races.


def test_a_race_ends_at_a_winner_and_everything_is_written(run: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    out = tmp_path / "race"
    result = race(run, POOL, out=out, rungs=[0.1, 1, 2], confidence=0.8, on_line=lines.append)
    assert (result.ended, result.winner, result.standing) == ("winner", "fast", ["fast"])
    assert {one.candidate for one in result.left} == {"slow", "dull"}
    assert [rung.rows for rung in result.rungs] == [192, 2000, 4000][: len(result.rungs)]
    assert lines[0].startswith("rung 1/3, 192 rows: ")
    assert any("slow left, worse: " in line and "nats worse than fast" in line for line in lines)
    launched = 3 * 2 * 200 * 256
    new_rows = [192, 1808, 2000]
    expected = [2 * rung.entered * n for rung, n in zip(result.rungs, new_rows, strict=False)]
    assert [rung.examples for rung in result.rungs] == [launched + expected[0], *expected[1:]]
    assert result.full_trainings == pytest.approx((launched + sum(expected)) / 4000, abs=1e-4)
    assert result.sentence == (
        "fast wins (80 % over 3 looks); 3 candidates with 2 seeds cost what "
        f"{result.full_trainings:.1f} full trainings cost, which is more than training all: the log is short"
    )
    assert result.cost is not None
    assert result.cost.trainings == len(result.candidates) * result.seeds
    # All candidates over all rows, in the CPU time of an example of the race.
    of_race = result.full_trainings * result.rows_of_log / result.cpu_seconds
    rows = result.cost.trainings * (result.rows_of_log + result.rungs[-1].rows)
    assert result.cost.full == pytest.approx(rows / of_race, rel=0.01, abs=0.005)
    assert result.cost.sentence() in result.remarks()
    with Console(width=80, file=io.StringIO()) as console:
        console.print(result.table())
    rows = console.file.getvalue().splitlines()
    assert max(map(len, rows)) <= 80
    last = result.left[-1]
    assert next(row for row in rows if last.candidate in row).split()[-2:] == ["rung", str(last.rung)]
    assert next(row for row in rows if "fast" in row).split()[2:] == [
        "best",
        figures.number(result.lines()[0].decided.best, 2),
    ]
    assert read_race(out) == result
    table = pq.read_table(out / "race.parquet").to_pylist()
    assert [row["candidate"] for row in table] == ["fast", *(one.candidate for one in result.left)]
    assert table[0]["difference"] == 0
    assert all(row["low"] > 0 for row in table[1:])
    assert (out / "race.csv").read_text().count("\n") == 4
    page = (out / "race.html").read_text()
    assert result.sentence in page
    assert "Places, rung by rung" in page
    assert not (out / "live").exists()  # the tables of those that raced


def test_the_losses_are_those_of_a_sweep_and_a_candidate_is_launched_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race only decides who goes on: what a candidate meets and learns is that of a sweep over all rows."""
    steps: list[int] = []
    learn = launch_module.Launching._learn
    monkeypatch.setattr(
        launch_module.Launching,
        "_learn",
        lambda self, begin, end: (steps.extend(range(begin, end)), learn(self, begin, end))[1],
    )
    result = race(run, pool(NET, FAST), out=tmp_path / "race", rungs=[0.1, 1, 1.5])
    assert len(steps) == 2 * 2 * 200
    board = judge_pool(run, pool(NET, FAST), out=tmp_path / "sweep", live=1.5)
    last = tmp_path / "race" / f"rung-{len(result.rungs)}" / "losses"
    rows = result.rungs[-1].rows
    raced = [read_losses(path, ["label_0"]) for path in sorted(last.iterdir())]
    assert all(len(row_id) == rows for row_id, _ in raced)
    swept = [read_losses(path, ["label_0"]) for path in sorted((tmp_path / "sweep" / "losses").iterdir())]
    in_sweep = {losses[:rows].tobytes() for _, losses in swept}
    assert {losses.tobytes() for _, losses in raced} <= in_sweep
    assert board.decision is not None


def test_a_killed_race_goes_on_with_the_same_bytes(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = race(run, POOL, out=tmp_path / "whole", rungs=[0.1, 0.5])
    out, calls = tmp_path / "killed", 0

    def killed(*arguments: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:  # six trials in the first rung
            signal.raise_signal(signal.SIGINT)
        return go_live(*arguments, **keys)

    monkeypatch.setattr(live_trial, "go_live", killed)
    with pytest.raises(KeyboardInterrupt):
        race(run, POOL, out=out, rungs=[0.1, 0.5])
    monkeypatch.setattr(live_trial, "go_live", go_live)
    with pytest.raises(ConfigError, match="holds a race; continue it with --restore"):
        race(run, POOL, out=out, rungs=[0.1, 0.5])
    again = race(run, POOL, out=out, rungs=[0.1, 0.5], restore=True)
    assert without_times(again) == without_times(whole)
    for number in range(1, len(whole.rungs) + 1):
        kept = f"rung-{number}/losses"
        assert bytes_of(out / kept) == bytes_of(tmp_path / "whole" / kept)


def test_a_budget_ends_it_and_a_larger_one_goes_on(run: Path, tmp_path: Path) -> None:
    two = pool(NET, {**NET, "name": "again", "lr_scale": 1.01})
    first = 2 * 2 * (200 * 256 + 192) / 4000
    out = tmp_path / "race"
    short = race(run, two, out=out, rungs=[0.1, 2], budget=Budget(first + 0.5, "x"))
    assert (short.ended, len(short.rungs)) == ("budget", 1)
    assert any("because the next rung would have cost more than the budget of" in line for line in short.remarks())
    assert short.remarks()[-1] == (
        f"To decide among the best 2 by full backfills: --restore --confirm 2, for {4 * (1 + 192 / 4000):.1f} full trainings more"
    )
    assert (out / "live").exists()
    longer = race(run, two, out=out, rungs=[0.1, 2], budget=Budget(first + 10, "x"), restore=True)
    assert longer.rungs[0] == short.rungs[0]
    assert (longer.ended, len(longer.rungs)) == ("rungs", 2)
    in_seconds = race(run, two, out=tmp_path / "seconds", rungs=[0.1, 2], budget=Budget(0.001, "s"))
    assert in_seconds.ended == "budget"
    with pytest.raises(
        ConfigError, match=r"--budget 1x: 2 launches with 2 seeds and the first rung cost what 51\.4 full trainings"
    ):
        race(run, two, out=tmp_path / "none", rungs=[0.1, 2], budget=Budget(1, "x"))
    assert not (tmp_path / "none").exists()


def test_full_backfills_confirm_the_last(run: Path, log: Path, tmp_path: Path) -> None:
    result = race(run, POOL, out=tmp_path / "race", rungs=[0.1, 0.5], confirm=2)
    confirmed = result.confirmation
    assert confirmed is not None
    assert confirmed.decision is not None
    names = [part.candidate for part in confirmed.decision.candidates]
    assert len(names) == 2
    assert "fast" in names
    assert (confirmed.rows, confirmed.examples) == (960, 2 * 2 * (4000 + 960))
    assert result.winner == names[0]
    assert "after full backfills of the last 2" in result.sentence
    assert result.full_trainings == pytest.approx(
        (sum(rung.examples for rung in result.rungs) + confirmed.examples) / 4000, abs=1e-4
    )
    assert "Full backfills of the last candidates" in (tmp_path / "race" / "race.html").read_text()
    # A backfill is what `full_log` learns, and live rows follow.
    opened, spec = open_log(log), CandidateSpec.model_validate(result.candidates["fast"])
    model = own_model(spec, opened.schema, load_start(run).reference, n_ids=opened.blocks[0].n_ids, seed=0)
    learn_blocks(model, opened, opened.blocks[:2])
    (rows,) = rungs_of_rows(opened, opened.blocks[2], [0.5], 64)
    expected = row_losses(go_live(model, rows), rows.rows.labels)
    kept = [read_losses(path, ["label_0"])[1] for path in (tmp_path / "race" / "confirmed" / "losses").iterdir()]
    assert any(np.allclose(part, expected, atol=1e-6) for part in kept)


def test_a_candidate_that_raises_midway_leaves_and_the_race_goes_on(moody: None, run: Path, tmp_path: Path) -> None:
    three = pool(NET, {"name": "ill", "arch": "moody", "embedding_lr": 0.001}, {"name": "twin", "arch": "fm"})
    keys: dict[str, Any] = {
        "out": tmp_path / "race",
        "rungs": [0.1, 0.999],
        "confidence": 0.999999,
    }  # nobody leaves early

    def after(line: str) -> None:
        Moody.angry = line.startswith("rung 1/")

    result = race(run, three, on_line=after, **keys)
    assert [(one.candidate, one.rung, one.how) for one in result.left] == [("ill", 2, "failed")]
    assert result.left[0].why.startswith("RuntimeError: out of luck (test_race.py, line ")
    assert {*result.standing} == {"net", "twin"}
    assert (result.ended, result.rungs[-1].rows) == ("rungs", 1984)
    with pytest.raises(DietError, match=r"1 candidate failed, the others raced on; candidate 'ill': RuntimeError"):
        result.check()
    Moody.angry = False
    mended = race(run, three, restore=True, **keys)
    assert {*mended.standing} == {"net", "twin", "ill"}
    assert without_times(mended) == without_times(race(run, three, **{**keys, "out": tmp_path / "whole"}))


def test_a_candidate_that_diverges_leaves(run: Path, tmp_path: Path) -> None:
    wild = {"name": "wild", "arch": "dnn", "params": {"hidden": [8]}, "lr_scale": 1e30, "embedding_lr": 1e30}
    result = race(run, pool(NET, wild), out=tmp_path / "race", rungs=[0.25, 1])
    assert [(one.candidate, one.rung, one.how) for one in result.left] == [("wild", 1, "diverged")]
    assert (result.ended, result.winner, len(result.rungs)) == ("winner", "net", 1)
    result.check()
    assert "wild diverged: its loss is not finite" in result.remarks()
    with pytest.raises(DietError, match=r"rung 1: no candidate is left; wild diverged: its loss is not finite"):
        race(run, pool(wild, {**wild, "name": "wild2"}), out=tmp_path / "all", rungs=[0.25, 1])


def test_rows_of_one_class_are_judged(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Log.read_block

    def constant(self: Log, block: BlockManifest) -> Rows:
        rows = read(self, block)
        return replace(rows, labels=np.zeros_like(rows.labels)) if block.index == 2 else rows

    monkeypatch.setattr(Log, "read_block", constant)
    result = race(run, pool(NET, SLOW), out=tmp_path / "race", rungs=[0.1, 0.5])
    assert result.rungs[0].decision is not None
    assert result.winner in ("net", "slow")
    verdict = json.loads(next((tmp_path / "race" / "rung-1" / "trials").glob("*.json")).read_text())["verdicts"][0]
    assert verdict["undefined"]["label_0"]["auc"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rungs": []}, r"--rungs : must be numbers of blocks above 0, each larger than the one before"),
        ({"rungs": [0.5, 0.1]}, r"--rungs 0\.5,0\.1: must be numbers of blocks above 0"),
        ({"rungs": [0.1, 0.1]}, r"--rungs 0\.1,0\.1: must be"),
        ({"rungs": [0, 1]}, r"--rungs 0,1: must be"),
        ({"rungs": [float("nan")]}, r"--rungs nan: must be"),
        ({"rungs": [0.5, 7]}, r"--rungs 7: the log has 2 blocks from 'block-002' on"),
        ({"confidence": 1.0}, r"--confidence 1: must be at least 0\.5 and less than 1"),
        ({"seeds": 1}, r"--seeds 1: a race needs 2 or more"),
        ({"confirm": 1}, r"--confirm 1: must be 0, or 2 or more candidates"),
        ({"block": "block-001"}, r"block 'block-001': the memory has learned from it"),
    ],
)
def test_what_is_out_of_range_is_refused(run: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        race(run, POOL, out=tmp_path / "race", **keys)
    assert not (tmp_path / "race").exists()


def test_one_candidate_cannot_race(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"candidates: net alone cannot race; name two or more, or use `diet-ray sweep`"
    ):
        race(run, pool(NET), out=tmp_path / "race")
    with pytest.raises(ConfigError, match=r"key 'resources\.gpus': live candidates use the CPU; set it to 0"):
        race(run, pool(NET, SLOW, resources={"gpus": 0.5}), out=tmp_path / "race")


def test_trackers_see_one_run_per_trial(run: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    keys = {"trackers": {"tensorboard": str(board)}}
    race(run, pool(NET, SLOW, FAST, **keys), out=tmp_path / "race", rungs=[0.1, 0.5])
    assert sorted(path.name for path in board.iterdir()) == sorted(
        f"{name}-seed{seed}" for name in ("net", "slow", "fast") for seed in (0, 1)
    )
    assert all(len(list(folder.iterdir())) == 1 for folder in board.iterdir())


class Recorder:
    """A tracker that keeps what it is told of the ends of trials."""

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}

    def begin(self, trial: str, params: dict[str, Any]) -> None:
        pass

    def log(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        pass

    def end(self, trial: str, status: str) -> None:
        assert trial not in self.ends
        self.ends[trial] = status


@pytest.mark.parametrize("budget", [None, Budget(0.001, "s")])
def test_who_is_left_has_finished_however_the_race_ends(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget | None
) -> None:
    recorder = Recorder()
    monkeypatch.setattr("diet_ray.judge.run_race.open_trackers", lambda *_: Trackers({"recorder": recorder}))
    result = race(run, pool(NET, FAST), out=tmp_path / "race", rungs=[0.05, 0.1], confidence=0.999999, budget=budget)
    assert result.ended == ("budget" if budget else "rungs")
    assert recorder.ends == {f"{name}-seed{seed}": "finished" for name in ("net", "fast") for seed in (0, 1)}


def test_on_the_command_line(run: Path, tmp_path: Path) -> None:
    candidates = tmp_path / "pool.json"
    candidates.write_text(POOL.model_dump_json())
    words = ["race", "--memory", str(run), "--candidates", str(candidates), "--rungs", "0.1,0.5"]
    done = CliRunner().invoke(app, ["--local", "--json", *words, "--out", str(tmp_path / "race")])
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["winner"] == "fast"
    assert body["sentence"].startswith(body["winner"])
    shown = CliRunner().invoke(
        app, ["--local", *words, "--out", str(tmp_path / "race"), "--restore", "--budget", "99999x"]
    )
    assert shown.exit_code == 0, shown.output
    assert body["sentence"] in " ".join(shown.stdout.split())
    assert "rung 1/2, 192 rows" in shown.stderr
    bad = CliRunner().invoke(app, ["--local", *words[:-1], "a,b", "--out", str(tmp_path / "no")])
    assert bad.exit_code == 2
    assert "error: --rungs a,b: must be numbers of blocks" in bad.stderr


@pytest.mark.ray
def test_on_ray_it_gives_the_same(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    from diet_ray.engine.sweep_driver import race as on_ray

    two = pool(DULL, FAST, resources={"cpus": 2})  # two processes at a time, which take longer to start than to race
    here = race(run, two, out=tmp_path / "here", rungs=[0.1, 0.5], confirm=2)
    there = on_ray(run, two, out=tmp_path / "there", rungs=[0.1, 0.5], confirm=2)
    assert without_times(there) == without_times(here)
    for folder in ["confirmed", *(f"rung-{number}" for number in range(1, len(here.rungs) + 1))]:
        assert bytes_of(tmp_path / "there" / folder / "losses") == bytes_of(tmp_path / "here" / folder / "losses")


@pytest.mark.ray
def test_a_search_races_all_that_it_launched(ray_cluster: int, run: Path, tmp_path: Path) -> None:
    from diet_ray.engine.sweep_driver import race as on_ray

    pytest.importorskip("optuna")
    searched = {
        "name": "s",
        "arch": "dnn",
        "params": {"hidden": [8]},
        "lr_scale": {"loguniform": [0.1, 10]},
        "samples": 3,
    }
    keys = {"search": {"algorithm": "optuna", "concurrent": 1, "seed": 1}}
    result = on_ray(run, pool(searched, **keys), out=tmp_path / "race", rungs=[0.1, 0.5])
    assert len(result.candidates) == 3
    assert {"optuna", "ray", "scipy"} < set(result.versions)
    assert len({str(spec["lr_scale"]) for spec in result.candidates.values()}) == 3
    again = on_ray(run, pool(searched, **keys), out=tmp_path / "race", rungs=[0.1, 0.5], restore=True)
    assert without_times(again) == without_times(result)
