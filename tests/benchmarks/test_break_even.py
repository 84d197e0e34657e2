"""After how many candidates a memory pays: the arithmetic, the committed figures, and the estimates of the product that rest on them."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import pytest

from benchmarks.common.machine import cpu_of_family
from benchmarks.speed import break_even
from benchmarks.speed.break_even import WAYS, BreakEven, BreakEvenResult, Candidate, Making
from benchmarks.speed.speed_table import of_break_even
from diet_ray.report import cost
from diet_ray.settings import parse_json


def figures(memory: float) -> BreakEven:
    return BreakEven(
        log="made-up",
        machine=break_even.Machine.here(),
        rows=1000,
        units=10,
        makings=[Making(way=WAYS[0], cpu=30.0, steps={"reference": 20.0, "score": 5.0})],
        candidates=[Candidate(candidate=name, memory=memory, full=full) for name, full in (("fm", 4.0), ("dnn", 8.0))],
        sweep=9.0,
        pass_rows=100,
        control=1.0,
    )


def test_a_memory_pays_when_what_candidates_save_has_paid_for_it() -> None:
    one = figures(memory=1.0)
    assert one.pays_after(one.makings[0], 1) == pytest.approx(30 / (6 - 1))
    assert one.pays_after(one.makings[0], 2) == pytest.approx(30 / (2 * (6 - 1)))
    assert figures(memory=6.0).pays_after(one.makings[0], 2) == math.inf
    result = BreakEvenResult(logs=[one])
    (claim,) = of_break_even(result)
    assert (claim.measured, claim.aim) == ("made-up 3.0 (6.0)", "<= 3")
    for columns, rows in (break_even.table(result), break_even.step_table(result)):
        assert {len(row) for row in rows} == {len(columns)}
    assert break_even.step_table(result)[1][0][-1] == "5.0"  # starts


def test_the_processes_of_a_command_are_counted_with_those_that_they_start() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = subprocess.Popen([sys.executable, "-c", code])
    with cpu_of_family(process.pid, seconds=0.02) as seconds:
        while process.poll() is None:
            time.sleep(0.01)
    assert sum(seconds.values()) > 0.3


@pytest.mark.skipif(not break_even.RESULT.exists(), reason="not measured yet: python -m benchmarks.speed.break_even")
def test_the_estimates_before_judging_are_those_that_were_measured() -> None:
    """`diet-ray distill` and `diet-ray cost` estimate from the reference's pass; a candidate's measured cost may be a factor 1.5 off."""
    logs = parse_json(BreakEvenResult, break_even.RESULT).logs
    assert {one.log for one in logs} == set(break_even.LOGS)
    for one in logs:
        steps = one.makings[0].steps
        made = cost.Making(seconds=sum(steps.values()), reference=steps["reference"], rows=one.rows, measured=True)
        ahead = cost.cost_ahead(made, blocks=break_even.BLOCKS - 1, seeds=1)
        assert 1 / 1.5 < ahead.full / one.full < 1.5
        assert 1 / 2 < ahead.judged / one.memory < 2
