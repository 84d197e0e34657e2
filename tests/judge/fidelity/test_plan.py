"""What the bench plans: names of methods, what is refused, and content hashes that change with what matters and with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diet_ray.candidates import CandidateSpec
from diet_ray.errors import ConfigError
from diet_ray.judge.fidelity.config import DEFAULT_METHODS, FULL, FidelityConfig, Method
from diet_ray.judge.fidelity.plan import Bench, Training, TrainingSet
from diet_ray.judge.fidelity.work import groups_of, runs_of
from diet_ray.settings import parse
from tests.support.small_bench import POOL, bench_config
from tests.support.small_run import STREAM
from tests.support.synthetic import write_log


def open_bench(log: Path, folder: Path, **keys: Any) -> Bench:
    return Bench.open(bench_config(log, folder, **keys), folder / "cache")


def test_a_method_is_written_as_it_is_read() -> None:
    for name in ("random/hard/own", "k-center/soft/shared", "memory/drawn/shared+adapter"):
        method = Method.model_validate(name)
        assert str(method) == name
        assert method.model_dump() == name
    assert Method.model_validate("memory/drawn/shared+adapter").adapter
    assert len({str(method) for method in DEFAULT_METHODS}) == len(DEFAULT_METHODS)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("random/medium/own", "must be written"),
        ("random/hard/own+adapter", "can learn any map"),
        ("memory/soft/own", "reference's space"),
        ("full/soft/shared", "use hard"),
        ("random/drawn/own", "use hard or soft"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(log: Path, tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        bench_config(log, tmp_path, methods=[name])


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"methods": ["herdin/soft/shared"]}, "unknown rows 'herdin'"),
        ({"methods": ["full/hard/own"]}, "always there"),
        ({"methods": []}, "at least 1"),
        ({"differences": [["random/soft/shared", "herding/hard/own"]]}, "not among the methods"),
        ({"curve": {"ratios": [0.1], "methods": ["full/hard/shared"]}}, "has no ratio"),
        ({"stages": {"candidates": [], "methods": ["nowhere/hard/own"]}}, "unknown rows"),
        ({"test_block": 2}, "did you mean 'test_blocks'"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(log: Path, tmp_path: Path, keys: dict, says: str) -> None:
    raw = {"stream": {"log": log, **STREAM}}
    with pytest.raises(ConfigError, match=says):
        parse(FidelityConfig, raw | keys, where="x.yaml")


def test_refined_without_rounds_and_a_cap_are_refused(log: Path, tmp_path: Path) -> None:
    stream = {"log": log, **STREAM, "refine": {"rounds": 0}}
    with pytest.raises(ValueError, match=r"refined needs stream\.refine\.rounds"):
        bench_config(log, tmp_path, stream=stream, methods=["refined/soft/shared"])
    with pytest.raises(ValueError, match="give ratio"):
        bench_config(log, tmp_path, stream={"log": log, **STREAM, "budget": {"cap": 10}})


def test_a_log_too_short_and_unknown_names_are_refused(log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"4 blocks to learn from and 1 to judge on.*has 4"):
        open_bench(log, tmp_path, stream={"log": log, **STREAM, "blocks": 4})
    with pytest.raises(ConfigError, match=r"stages\.candidates.*'nobody'"):
        open_bench(log, tmp_path, stages={"candidates": ["nobody"], "methods": []})
    with pytest.raises(ConfigError, match="no field 'usr'"):
        open_bench(log, tmp_path, more_candidates=[{"name": "x", "arch": "lr", "drop_fields": ["usr"]}])
    proxies = {"rounds": 1, "window": 4, "proxies": [{"name": "x", "arch": "lr", "drop_fields": ["usr"]}]}
    with pytest.raises(ConfigError, match=r"key 'refine\.proxies': candidate 'x'.*no field 'usr'"):
        open_bench(log, tmp_path, stream={"log": log, **STREAM, "refine": proxies})
    with pytest.raises(ConfigError, match="'lr' is given twice"):
        open_bench(log, tmp_path, more_candidates=[{"name": "lr", "arch": "lr"}])


def test_everything_is_planned_once(log: Path, tmp_path: Path) -> None:
    bench = open_bench(
        log,
        tmp_path,
        students=2,
        curve={"ratios": [0.1], "methods": ["random/soft/shared"]},
        stages={"candidates": ["lr"], "methods": ["full/hard/own", "memory/drawn/shared"]},
    )
    work = bench.trainings()
    keys = [bench.keys.of(training) for training in work]
    assert len(keys) == len(set(keys))
    full = [training for training in work if training.set.method == FULL]
    whole = [training for training in full if training.set.blocks == 3]
    assert {(training.set.seed, training.candidate.name) for training in whole} == {
        (seed, spec["name"]) for seed in (3, 4, 5, 6) for spec in POOL
    }
    # Along the stream: lr after 1 and 2 blocks; after 3 it is judged on the test block, which is planned already.
    assert sorted((t.set.blocks, t.set.seed) for t in full if t.set.blocks < 3) == [(1, 3), (1, 4), (2, 3), (2, 4)]
    # 2 methods and one curve point, 4 candidates, 2 seeds, 2 students; lr on the memory after 1 and 2 blocks.
    assert len(work) - len(full) == 3 * 4 * 2 * 2 + 2 * 2 * 2


def test_the_full_log_goes_first_one_candidate_to_a_trial(log: Path, tmp_path: Path) -> None:
    bench = open_bench(log, tmp_path)
    groups = groups_of(bench.trainings())
    kinds = [group[0].set.method.rows == "full" for group in groups]
    assert kinds == sorted(kinds, reverse=True)
    assert all(len(group) == 1 for group, full in zip(groups, kinds, strict=True) if full)
    assert [len(group) for group, full in zip(groups, kinds, strict=True) if not full] == [4] * 4
    assert all(len({training.set for training in map(_hashable, group)}) == 1 for group in groups)


def _hashable(training: Training) -> Any:
    return type("T", (), {"set": training.set.model_dump_json()})


def test_units_are_those_of_the_stream(log: Path, tmp_path: Path, finished: Path) -> None:
    from diet_ray.memory.run_folder import committed_stages

    bench = open_bench(log, tmp_path)
    [one, _] = bench.sets(Method.model_validate("memory/soft/shared"))
    stages = committed_stages(finished)
    assert [sum(bench.units(one)[: t + 1]) for t in range(3)] == [stage.units for stage in stages]


class TestKeys:
    """One training of each kind; what moves its hash."""

    @pytest.fixture
    def bench(self, log: Path, tmp_path: Path) -> Bench:
        return open_bench(log, tmp_path, methods=[str(method) for method in DEFAULT_METHODS])

    @staticmethod
    def training(bench: Bench, method: str, **spec: Any) -> Training:
        candidate = CandidateSpec(**{"name": "lr", "arch": "lr"} | spec)
        return Training(set=bench.sets(Method.model_validate(method))[0], candidate=candidate)

    def keys(self, bench: Bench) -> dict[str, str]:
        return {name: bench.keys.of(self.training(bench, name)) for name in map(str, [FULL, *DEFAULT_METHODS])}

    def changed(self, before: Bench, after: Bench) -> set[str]:
        one, other = self.keys(before), self.keys(after)
        return {name for name in one if one[name] != other[name]}

    def stream(self, bench: Bench, **update: Any) -> Bench:
        raw = bench.config.stream.model_dump(mode="json")
        for key, value in update.items():
            raw[key] = raw[key] | value if isinstance(value, dict) else value
        config = bench.config.model_copy(update={"stream": type(bench.config.stream).model_validate(raw)})
        return Bench.open(config, bench.cache)

    def test_all_methods_differ(self, bench: Bench) -> None:
        keys = self.keys(bench)
        assert len(set(keys.values())) == len(keys)

    def test_refinement_moves_the_refined_memory_alone(self, bench: Bench) -> None:
        after = self.stream(bench, refine={"logit_lr": 0.5})
        assert self.changed(bench, after) == {name for name in self.keys(bench) if name.startswith("refined/")}

    def test_the_students_horizon_moves_all_but_the_full_log(self, bench: Bench) -> None:
        after = self.stream(bench, student={"steps": 11})
        assert self.changed(bench, after) == {name for name in self.keys(bench) if not name.startswith("full/")}

    def test_the_drawn_share_moves_drawn_labels_alone(self, bench: Bench) -> None:
        after = self.stream(bench, student={"draw": 0.5})
        assert self.changed(bench, after) == {
            name for name in self.keys(bench) if "/drawn/" in name or name.startswith("refined/")
        }

    def test_the_reference_net_moves_all_but_full_log_training(self, bench: Bench) -> None:
        after = self.stream(bench, reference={"checkpoints": 3})
        assert self.changed(bench, after) == set(self.keys(bench)) - {str(FULL)}

    def test_the_passes_learning_rate_moves_everything(self, bench: Bench) -> None:
        after = self.stream(bench, reference={"lr": 0.5})
        assert self.changed(bench, after) == set(self.keys(bench))

    def test_what_does_not_matter_moves_nothing(self, bench: Bench) -> None:
        config = bench.config.model_copy(
            update={"seeds": 5, "replicates": 200, "students": 4, "methods": bench.config.methods[:3]}
        )
        assert not self.changed(bench, Bench.open(config, bench.cache))
        assert not self.changed(bench, self.stream(bench, cluster={"workers": 4}))
        same = self.training(bench, "random/soft/shared", name="other", adapter=False)
        assert bench.keys.of(same) == bench.keys.of(self.training(bench, "random/soft/shared"))
        filled = self.training(bench, "random/soft/shared", arch="dnn", params={"hidden": [256, 128]})
        assert bench.keys.of(filled) == bench.keys.of(self.training(bench, "random/soft/shared", arch="dnn"))

    def test_the_candidate_and_the_seed_move_everything(self, bench: Bench) -> None:
        before = self.training(bench, "random/soft/shared", arch="dnn")
        for change in ({"params": {"hidden": [8]}}, {"drop_fields": ["user"]}, {"lr_scale": 2.0}):
            assert bench.keys.of(self.training(bench, "random/soft/shared", arch="dnn", **change)) != bench.keys.of(
                before
            )
        other = before.model_copy(update={"set": before.set.model_copy(update={"seed": 99})})
        assert bench.keys.of(other) != bench.keys.of(before)

    def test_other_rows_move_everything(self, bench: Bench, tmp_path: Path) -> None:
        other = write_log(tmp_path / "other", blocks=4, n=300, seed=1)
        config = bench.config.model_copy(update={"stream": bench.config.stream.model_copy(update={"log": other})})
        assert self.changed(bench, Bench.open(config, bench.cache)) == set(self.keys(bench))

    def test_the_same_rows_elsewhere_move_nothing(self, bench: Bench, tmp_path: Path) -> None:
        other = write_log(tmp_path / "other", blocks=4, n=300)
        config = bench.config.model_copy(update={"stream": bench.config.stream.model_copy(update={"log": other})})
        assert not self.changed(bench, Bench.open(config, bench.cache))

    def test_a_longer_log_moves_nothing(self, bench: Bench, tmp_path: Path) -> None:
        longer = write_log(tmp_path / "longer", blocks=5, n=300)
        stream = bench.config.stream.model_copy(update={"log": longer, "blocks": 3})
        config = bench.config.model_copy(update={"stream": stream})
        assert not self.changed(bench, Bench.open(config, bench.cache))


def test_refined_runs_go_first_and_a_reference_serves_all(log: Path, tmp_path: Path) -> None:
    bench = open_bench(
        log,
        tmp_path,
        methods=["random/soft/shared", "herding/hard/shared", "memory/soft/shared", "refined/soft/shared"],
    )
    runs = runs_of(bench, bench.trainings())
    assert [(stream.refine.rounds, stream.seed) for _, stream in runs] == [(3, 3), (3, 4), (0, 3), (0, 4)]


def test_rows_do_not_depend_on_labels_or_embeddings(log: Path, tmp_path: Path) -> None:
    bench = open_bench(log, tmp_path, methods=["herding/soft/shared", "herding/hard/own", "grand/hard/own"])

    def path(name: str) -> Path:
        one: TrainingSet = bench.sets(Method.model_validate(name))[0]
        return bench.keys.rows_path(one)

    assert path("herding/soft/shared") == path("herding/hard/own") != path("grand/hard/own")
