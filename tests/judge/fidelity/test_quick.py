"""The quick bench: how many trainings it takes, that it says so before, what it may say; and how a sweep knows whether it speaks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from diet_ray.cli import app
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.estimate import estimate
from diet_ray.judge.fidelity.live.bench import measure_live
from diet_ray.judge.fidelity.live.plan import LivePlan
from diet_ray.judge.fidelity.live.result import BLIND, SAME_ROWS, LiveResult
from diet_ray.judge.fidelity.order import UNPROVEN, order_lines
from diet_ray.judge.fidelity.plan import Bench
from diet_ray.judge.fidelity.proof import verdicts_for
from diet_ray.judge.launch import LaunchRecipe
from diet_ray.logs.blocks import open_log
from diet_ray.memory.run_folder import read_stage
from diet_ray.settings import parse, parse_json, write_json
from tests.support.small_bench import POOL, bench_config
from tests.support.synthetic import write_log

INLINE: list[dict[str, Any]] = [*POOL, {"name": "wide", "arch": "dnn", "params": {"hidden": [12]}}]
RECIPE = {"student": {"steps": 4, "batch_size": 32, "lr": 0.01}}


def quick_config(log: Path, folder: Path, **keys: Any) -> FidelityConfig:
    raw = bench_config(log, folder, live={"recipe": RECIPE}, **keys).model_dump()
    return FidelityConfig.model_validate(raw | {"candidates": INLINE}).quick()


def test_candidates_are_written_inline_as_in_a_pool(log: Path, tmp_path: Path) -> None:
    config = FidelityConfig.model_validate(bench_config(log, tmp_path).model_dump() | {"candidates": INLINE})
    assert [spec.name for spec in Bench.open(config, tmp_path).pool] == [raw["name"] for raw in INLINE]
    assert FidelityConfig.model_validate_json(config.absolute().model_dump_json()) == config  # as workers get it
    (tmp_path / "all.yaml").write_text(json.dumps({"candidates": INLINE}))
    from_file = config.model_copy(update={"candidates": tmp_path / "all.yaml"})
    assert Bench.open(from_file, tmp_path).pool == Bench.open(config, tmp_path).pool


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ([{"name": "a", "arch": "dnnn"}], "candidate 'a': unknown arch 'dnnn' .did you mean 'dnn'.*known: [^;]*$"),
        ([{"name": "a", "arch": "lr"}] * 2, "candidate 'a' is given twice"),
        ([], "at least 1"),
        ([{"name": "a", "arch": "lr", "parms": {}}], r"unknown key 'candidates\.0\.parms' \(did you mean 'params'"),
    ],
)
def test_a_wrong_inline_candidate_is_named(log: Path, pool: list[Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(FidelityConfig, {"stream": {"log": log}, "candidates": pool}, where="x.yaml")


@pytest.mark.parametrize("rounds", [0, 3])
def test_it_takes_three_trainings_per_candidate_and_four_where_the_stream_refines(
    log: Path, tmp_path: Path, rounds: int
) -> None:
    stream = bench_config(log, tmp_path).stream.model_dump(mode="json")
    stream["refine"]["rounds"] = rounds
    keys = {"methods": ["random/soft/shared"]} if not rounds else {}
    config = quick_config(log, tmp_path, stream=stream, **keys)
    work = estimate(config, tmp_path / "out")
    assert (work.candidates, work.trainings, work.on_full_log) == (5, 20 if rounds else 15, 5)
    assert work.distillations == (2 if rounds else 1)
    assert work.seconds > 0
    assert work.sentence.startswith(
        f"To do: {work.trainings} trainings (5 on the full log) and {work.distillations} distill"
    )
    assert work.trainings == sum(map(len, LivePlan.open(config, tmp_path / "x").trainings()))


def test_the_estimate_counts_both_protocols(log: Path, tmp_path: Path) -> None:
    config = bench_config(log, tmp_path)
    frozen, live = (
        estimate(config.model_copy(update={"protocols": [name]}), tmp_path / "out") for name in ("frozen", "live")
    )
    both = estimate(config, tmp_path / "out")
    assert frozen.trainings == len(Bench.open(config, tmp_path / "x").trainings())
    assert both.trainings == frozen.trainings + live.trainings
    assert both.distillations == len(config.methods[1:]) * config.seeds  # of both, the same


@pytest.fixture(scope="module")
def done(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveResult, Path]:
    folder = tmp_path_factory.mktemp("quick")
    result, _ = measure_live(quick_config(log, folder), folder / "out", lambda *_: None)
    assert estimate(quick_config(log, folder), folder / "out").sentence == "Nothing is left to train"
    return result, folder / "out"


def test_it_has_the_ceiling_the_rival_and_chance_and_never_trusts_an_order(done: tuple[LiveResult, Path]) -> None:
    result, out = done
    names = [start.name for start in result.starts]
    assert {SAME_ROWS, "memory", "refined", "random", BLIND} <= {*names}
    assert (result.seeds, len(result.blocks), len(result.shares)) == (1, 1, 1)
    assert [verdict.order for verdict in result.verdicts] != ["trusted"]
    assert parse_json(LiveResult, out / "live.json").verdicts == result.verdicts
    assert next(iter(json.loads((out / "live.json").read_text()))) == "verdicts"


def test_a_sweep_believes_a_bench_of_its_log_and_memory_alone(
    done: tuple[LiveResult, Path], finished: Path, log: Path, tmp_path: Path
) -> None:
    result, _ = done
    stream, opened = read_stage(finished, 2).config, open_log(log)

    def given(**changes: Any) -> Path:
        write_json(tmp_path / "live.json", result.model_copy(update={"recipe": LaunchRecipe(), **changes}))
        return tmp_path

    verdicts = verdicts_for(given(), stream, opened, live=0.1)
    assert verdicts == result.verdicts
    assert order_lines(verdicts) == [result.verdicts[0].sentence]
    assert order_lines([]) == [UNPROVEN]
    assert result.made_of is not None
    other = open_log(write_log(tmp_path / "other", blocks=4, n=100))
    stripped = result.made_of.model_copy(update={"stream": result.made_of.stream | {"refine": {"rounds": 0}}})
    budget = stream.model_copy(update={"budget": stream.budget.model_copy(update={"ratio": 0.3})})
    for changes, config, of, live, says in (
        ({"recipe": result.recipe}, stream, opened, 0.1, r"'live\.recipe' is not that of a sweep"),
        ({}, stream, other, 0.1, "is of another log than .*other"),
        ({}, budget, opened, 0.1, r"key 'stream\.budget' differs"),
        ({"made_of": stripped}, stream, opened, 0.1, r"add 'refined' to its key 'live\.starts'"),
        ({"made_of": None}, stream, opened, 0.1, "does not say of which log"),
        ({}, stream, opened, 0.02, r"is about 0\.1 of a block and more, here candidates meet 0\.02"),
        ({}, stream, opened, 0, r"has no fidelity\.json"),
    ):
        with pytest.raises(ConfigError, match=says):
            verdicts_for(given(**changes), config, of, live=live)
    (tmp_path / "live.json").write_text('{"log": ')
    with pytest.raises(CorruptArtefactError, match=r"live\.json"):
        verdicts_for(tmp_path, stream, opened, live=0.1)


def test_the_command_says_the_cost_and_too_few_candidates_before_it_trains(log: Path, tmp_path: Path) -> None:
    def run(pool: list[dict[str, Any]]) -> Any:
        config = bench_config(log, tmp_path, live={"recipe": RECIPE}).model_copy(update={"candidates": None})
        raw = json.loads(config.model_dump_json()) | {"candidates": pool}
        (tmp_path / "bench.json").write_text(json.dumps(raw))
        words = [
            "--local",
            "fidelity",
            "--config",
            str(tmp_path / "bench.json"),
            "--out",
            str(tmp_path / "out"),
            "--quick",
        ]
        return CliRunner().invoke(app, words)

    few = run(INLINE[:4])
    assert few.exit_code == 2
    assert "key 'candidates': 4 are too few to judge an order" in few.stderr
    assert not (tmp_path / "out").exists()
    ran = run(INLINE)
    assert ran.exit_code == 0, ran.output
    said = [
        ran.stderr.index(text)
        for text in ("5 candidates are few: only an order", "Quick: three trainings", "To do: 20 trainings")
    ]
    assert said == sorted(said)
    assert ran.stdout.startswith("Order of label_0, live: ")
