"""The whole sum, in one place for distill, sweep, race and demo: what counts, what was measured, and after how many candidates it pays."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.errors import CorruptArtefactError
from diet_ray.judge import estimate as estimates
from diet_ray.judge.launch import LaunchRecipe
from diet_ray.memory.events import Events
from diet_ray.memory.layout import events_file
from diet_ray.report.cost import EXAMPLES, OF_REFERENCE, Cost, Making, cost_ahead, cost_of, full_by_examples, making

ONE = {"workers": 1, "threads_per_worker": 1, "scorers": 0}


@pytest.mark.parametrize(
    ("memory", "rows", "pays", "words"),
    [
        (
            100.0,
            50_000,
            100 / 16,
            "Cost: making the memory 100 CPU s, once; judging 2 candidates in 4 trainings 8.0 CPU s; training all on the full log about "
            "40 CPU s (estimated). The memory pays after about 7 candidates",
        ),
        (100.0, 5_000, None, "(estimated). The memory never pays here, because the log is short"),
        (None, 50_000, None, "about 40 CPU s (estimated); what making the memory took is not known"),
    ],
)
def test_the_whole_sum(memory: float | None, rows: int, pays: float | None, words: str) -> None:
    full = full_by_examples(8.0, trainings=4, examples=40_000, rows=rows)
    cost = cost_of(8.0, full, trainings=4, candidates=2, memory=memory)
    assert (cost.judged, cost.full, cost.trainings) == (8.0, 8.0 * rows / 10_000, 4)
    assert cost.pays_after == pays
    assert words in cost.sentence()
    assert Cost.model_validate_json(cost.model_dump_json()) == cost


@pytest.mark.parametrize(("memory", "after"), [(9.9, "1 candidate"), (10.1, "2 candidates")])
def test_the_memory_pays_after_whole_candidates(memory: float, after: str) -> None:
    cost = cost_of(4.0, 44.0, trainings=4, candidates=4, memory=memory, full_is="measured")
    assert cost.sentence().endswith(f"training all on the full log 44 CPU s (measured). The memory pays after {after}")


def test_a_file_of_an_earlier_release_says_nothing_of_what_it_does_not_know() -> None:
    old = Cost.model_validate_json('{"memory": 10.0, "judged": 4.0, "full": 44.0, "trainings": 4}')
    assert old.sentence().endswith("about 44 CPU s (estimated)")


def test_before_judging_the_sum_is_an_estimate_by_the_defaults_of_sweep() -> None:
    assert LaunchRecipe().student.steps * LaunchRecipe().student.batch_size == EXAMPLES
    cost = cost_ahead(Making(seconds=30.0, reference=20.0, rows=200_000, measured=True), blocks=10)
    assert cost.trainings == 2
    assert cost.full == pytest.approx(2 * 20.0 * 202_000 / 200_000)
    assert cost.judged == pytest.approx(2 * 20.0 * (51_200 + 2_000) / 200_000)
    assert cost.pays_after == pytest.approx(30 / (40.4 - 10.64), abs=1e-3)
    assert cost.sentence() == (
        "Cost: making the memory 30 CPU s, once. Estimated for each candidate of 2 seeds: judging 11 CPU s, training on the full log "
        "40 CPU s. The memory pays after about 2 candidates"
    )


def events(run: Path, *, cpu: bool, stages: int = 2) -> Path:
    run.mkdir()
    log = Events(events_file(run))
    for stage in range(stages):
        log.emit("stage", stage=stage, block="b", rows=10)
        log.emit("step", stage=stage, step="reference", seconds=99.0)  # of an attempt that broke off
        log.emit("stage", stage=stage, block="b", rows=10)
        for step, seconds in (("reference", 4.0), ("score", 2.0), ("refine", 1.0)):
            rows = {"rows": 10} if step == "reference" else {}
            log.emit("step", stage=stage, step=step, seconds=seconds, **rows, **({"cpu": seconds / 2} if cpu else {}))
        log.emit("committed", stage=stage, block="b", units=1, rows_seen=10)
    return run


@pytest.mark.parametrize(
    ("cpu", "cluster", "expected"),
    [
        (True, {}, (7.0, 4.0)),  # the CPU seconds of the last attempts
        (
            True,
            {"workers": 3, "threads_per_worker": 2},
            (17.0, 12.0),
        ),  # every worker does the pass and refinement, one scores
        (True, {"scorers": 2}, (15.0, 4.0)),  # each scorer for as long as scoring took
        (False, {}, (14.0, 8.0)),  # a run of an earlier release: wall time
        (False, {"threads_per_worker": 2}, (28.0, 16.0)),
    ],
)
def test_what_making_took(cpu: bool, cluster: dict[str, int], expected: tuple[float, float], tmp_path: Path) -> None:
    made = making(events(tmp_path / "run", cpu=cpu), 1, ONE | cluster)
    assert made is not None
    assert ((made.seconds, made.reference), made.rows, made.measured) == (expected, 20, cpu)


def test_what_making_took_is_not_known_where_a_stage_is_missing(tmp_path: Path) -> None:
    assert making(tmp_path, 0, ONE) is None
    assert making(events(tmp_path / "run", cpu=True), 2, ONE) is None


def test_a_step_tells_its_cpu_seconds(tmp_path: Path) -> None:
    log = Events(events_file(tmp_path))
    log.emit("stage", stage=0, block="b", rows=1)
    with log.step(0, "reference", rows=1):
        sum(range(2_000_000))
    log.emit("committed", stage=0, block="b", units=1, rows_seen=1)
    made = making(tmp_path, 0, ONE)
    assert made is not None
    assert made.measured
    assert 0 < made.seconds < 60


def test_an_estimate_for_a_log_that_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of 1,000 rows per CPU second, whose making takes half as much again."""
    monkeypatch.setattr(estimates, "probe", lambda: Making(seconds=15.0, reference=10.0, rows=10_000, measured=True))
    found = estimates.estimate(100_000, 10, candidates=24, seeds=2)
    assert (found.rows, found.rows_per_second, found.source) == (1_000_000, 1_000 / OF_REFERENCE, "simulated log")
    assert found.cost.memory == pytest.approx(1_500)
    assert found.cost.full == pytest.approx(48 * 1_010 * OF_REFERENCE)
    assert found.cost.judged == pytest.approx(48 * 61.2 * OF_REFERENCE)
    faster = estimates.estimate(100_000, 10, candidates=24, seeds=2, rows_per_second=2 * found.rows_per_second)
    assert faster.cost.memory == pytest.approx(750)
    assert faster.cost.pays_after == found.cost.pays_after
    with pytest.raises(CorruptArtefactError, match="has no record of the time that its stages took; name another run"):
        estimates.estimate(None, 10, candidates=24, seeds=2, run=tmp_path)
