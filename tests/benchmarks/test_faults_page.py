"""The tables of docs/faults.md are those of the committed results, and what tells a leak from noise does so."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.machine import Machine
from benchmarks.common.tables import parsed
from benchmarks.faults import chaos, leaks, many_stages

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_results() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert text == chaos.page(leaks.page(many_stages.page(text)))
    assert text.count("<!-- end of figures -->") == 3


def test_a_hundred_kills_hit_everybody_and_every_run_was_whole_in_the_end() -> None:
    if not chaos.RESULT.exists():
        pytest.skip("not measured yet")
    found = json.loads(chaos.RESULT.read_text(encoding="utf-8"))
    assert chaos.made(found) >= 100
    assert {kill["target"] for run in found["runs"] for kill in run["kills"]} == set(chaos.WEIGHTS)
    assert all(run["exit_codes"][-1] == 0 and set(run["exit_codes"]) <= {0, 2, -9} for run in found["runs"])


def test_nothing_grew_in_two_hundred_stages_of_which_nearly_all_were_measured() -> None:
    if not leaks.RESULT.exists():
        pytest.skip("not measured yet")
    found = json.loads(leaks.RESULT.read_text(encoding="utf-8"))
    assert found["stages"] >= 200
    assert len(found["samples"]) >= 0.9 * found["stages"]
    assert leaks.leaking(found) == []


def test_a_command_costs_the_same_per_stage_at_a_thousand_stages() -> None:
    found = parsed(many_stages.ManyStages, many_stages.RESULT)
    if found is None:
        pytest.skip("not measured yet")
    assert set(found.commands) == set(many_stages.COMMANDS)
    assert all(figures[-1].stages >= 1000 for figures in found.commands.values())
    assert many_stages.growing(found) == []


def test_growth_per_stage_is_told_from_the_cost_of_a_start() -> None:
    def figures(seconds: Callable[[int], float], mb: Callable[[int], float]) -> list[many_stages.Figure]:
        return [many_stages.Figure(stages=n, cpu=2 + seconds(n), wall=9, peak=300 + mb(n)) for n in (1, 100, 1000)]

    flat = figures(lambda n: n / 100, lambda n: 0.1 * n)
    result = many_stages.ManyStages(
        machine=Machine.here(),
        commands={
            "flat": flat,
            "slower": figures(lambda n: n * n / 1000, lambda n: 0),
            "larger": figures(lambda n: 0, lambda n: n * n / 1000),
        },
    )
    assert many_stages.growing(result) == ["slower", "larger"]
    assert many_stages.per_stage(flat, 1) == pytest.approx((0.01, 0.1))
    assert "slower, larger takes more at 1,000 stages than at 100" in many_stages.document(result)
    assert "| `flat` | 2.0 | 3.0 | 12.0 | 10.0 | 10.0 | 300 | 310 | 400 | 100 | 100 |" in many_stages.document(result)


def test_kills_are_counted_by_what_the_run_was_doing(tmp_path: Path) -> None:
    kills = [
        {"target": "worker", "during": "0 refine", "seconds": 12.0},
        {"target": "worker", "during": "3 refine", "seconds": 8.0},
        {"target": "worker", "during": "5 commit", "seconds": None},  # the last stage was committed all the same
        {"target": "driver", "during": "2 begin", "seconds": 30.4},
    ]
    runs = [
        {"kills": kills[:3], "exit_codes": [2, 2, 0], "seconds": 60.0},
        {"kills": kills[3:], "exit_codes": [-9, 0], "seconds": 50.0},
    ]
    path = tmp_path / "chaos.json"
    path.write_text(json.dumps({"seed": 0, "blocks": 6, "cores": 2, "runs": runs}), encoding="utf-8")
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    page = chaos.page(text, path)
    assert "4 kills in 2 runs of 6 stages each" in page
    assert "2 finished, 2 stopped with one line and exit code 2, and 1 were killed themselves" in page
    assert "| worker |  |  |  |  |  |  | 2 | 1 | 3 | 12 (12) |" in page
    assert "| driver | 1 |  |  |  |  |  |  |  | 1 | 30 (30) |" in page
    assert chaos.page(page, tmp_path / "none.json") == chaos.page(text, tmp_path / "none.json")


def measured(**growth: float) -> dict[str, Any]:
    """Two hundred stages in which quantities grow so much per stage, beside much noise and a jump while caches fill."""
    rng = np.random.default_rng(0)
    samples = [
        {
            "stage": t,
            **{
                name.replace("_", " "): 100 + 30 * min(t / 40, 1) + slope * t + rng.normal(0, 2)
                for name, slope in growth.items()
            },
        }
        for t in range(200)
    ]
    return {"stages": 200, "cores": 1, "seconds": 1, "samples": samples}


def test_a_leak_is_told_from_noise() -> None:
    found = measured(driver_MB=0.0, worker_MB=0.1, owners_descriptors=0.1, Ray_actors=0.0, GCS_MB=1.0)
    assert leaks.leaking(found) == ["worker MB", "owners descriptors"]
    assert leaks.slopes(found)["GCS MB"][2] == pytest.approx(1.0, abs=0.01)
    assert "worker MB, owners descriptors grow by more" in leaks.document(found)
    found["samples"][-1]["driver MB"] = 1e4  # one outlier is no growth
    assert "driver MB" not in leaks.leaking(found)


def test_the_draws_of_a_chaos_run_hit_everybody_everywhere() -> None:
    rng = random.Random("0-0")
    kills = [chaos.draw(rng) for _ in range(1000)]
    assert {kill.target for kill in kills} == set(chaos.WEIGHTS)
    assert {kill.step for kill in kills} == {*chaos.STEPS, ""}
