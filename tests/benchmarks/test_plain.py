"""The plain script at a tiny size: it needs no Ray, its figures are what it says, and parts of a result are kept apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.speed import plain
from diet_ray.logs.blocks import Log, open_log
from diet_ray.memory.dataset import load_memory
from tests.support.small_run import STREAM
from tests.support.synthetic import write_log


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, Path]:
    """A log of three blocks, and the run that the script has made of two in a process of its own, which asserts that it has no Ray."""
    folder = tmp_path_factory.mktemp("plain")
    log = write_log(folder / "log", blocks=3, n=400)
    config = {"log": str(log), "blocks": 2, **STREAM, "refine": {"rounds": 0}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    call = ["-m", "benchmarks.speed.plain", "one", "--config", folder / "run.yaml", "--work", folder / "run"]
    subprocess.run([sys.executable, *call], check=True)
    return open_log(log), folder / "run"


def test_a_run_is_timed_step_by_step(made: tuple[Log, Path]) -> None:
    timing = plain.timing("plain", 99.0, made[1], made[1])
    assert set(timing.steps) == set(plain.STEPS)
    assert 0 < sum(timing.steps.values()) <= timing.stages < timing.wall == 99.0
    assert timing.same_bytes
    assert timing.difference == 0


def test_memories_are_told_apart(made: tuple[Log, Path]) -> None:
    units = load_memory(made[1]).units
    assert plain.difference(units, units.updated(logit=units.logit + np.float32(0.25))) == pytest.approx(0.25)
    assert plain.difference(units, units.take(np.arange(len(units) - 1))) == float("inf")
    assert plain.difference(units, units.updated(ids=units.ids + 1)) == float("inf")


def test_candidates_cost_what_their_steps_cost(made: tuple[Log, Path]) -> None:
    threads = torch.get_num_threads()
    try:
        found = plain.costs(*made, horizons=(2, 100), seeds=1)
    finally:
        torch.set_num_threads(threads)
    assert [(one.candidate, one.steps) for one in found] == [(s.name, n) for s in plain.CANDIDATES for n in (2, 100)]
    short, long = found[::2], found[1::2]
    assert sum(one.memory_cpu for one in short) < sum(one.memory_cpu for one in long)
    for one, other in zip(short, long, strict=True):
        assert one.full_cpu == other.full_cpu > 0
        assert 0.4 < one.full_auc == other.full_auc < 1
    columns, rows = plain.cost_table(found)
    assert {len(row) for row in rows} == {len(columns)}


def timings(*walls: float) -> list[Any]:
    steps = dict.fromkeys(plain.STEPS, 1.0)
    return [
        plain.Timing(way=way, wall=wall, steps=steps, stages=8.0, same_bytes=True, difference=0.0)
        for way, wall in zip(plain.WAYS, walls, strict=True)
    ]


def test_ray_is_held_against_the_plain_way() -> None:
    case = plain.Case(case="default", rows=1000, units=10, timings=timings(10.0, 11.0, 18.0))
    assert [case.ratio(one) for one in case.timings] == pytest.approx([1.0, 1.1, 1.8])
    columns, rows = plain.case_table(case)
    assert [len(row) for row in rows] == [len(columns)] * 3
    assert rows[0][columns.index("between")] == "1.0"  # 8 s of stages, 7 steps of 1 s
    assert rows[-1][columns.index("start, end")] == "10.0"


def test_one_part_leaves_the_other(tmp_path: Path) -> None:
    case = plain.Case(case="default", rows=1000, units=10, timings=timings(10.0, 11.0, 18.0))
    cost = plain.Cost(candidate="fm", steps=20, full_cpu=6.0, memory_cpu=0.1, full_auc=0.8, memory_auc=0.7)
    machine = plain.Machine.here()
    plain.keep(tmp_path / "plain.json", machine, cases=[case])
    plain.keep(tmp_path / "plain.json", machine, costs=[cost])
    kept = plain.parse_json(plain.PlainResult, tmp_path / "plain.json")
    assert (kept.cases, kept.costs, set(kept.machines)) == ([case], [cost], {"cases", "costs"})
    assert cost.ratio() == pytest.approx(60)
