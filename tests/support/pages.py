"""Every kind of page that a command writes, from figures made by hand; none of them needs a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diet_ray import demo
from diet_ray.config import StudentConfig
from diet_ray.demo import DemoResult, write_demo
from diet_ray.judge.baselines import FULL, HARD, SOFT
from diet_ray.judge.comparison import Compression
from diet_ray.judge.decision import Decision, decide
from diet_ray.judge.fidelity.live.result import LiveCost, LiveResult
from diet_ray.judge.fidelity.page import write_report
from diet_ray.judge.leaderboard import Leaderboard
from diet_ray.judge.leaderboard_page import write_leaderboard
from diet_ray.judge.race_page import write_race
from diet_ray.judge.race_rules import Race, Rung, leaving, sentence
from diet_ray.judge.standings import Standing
from diet_ray.report.cost import Cost
from diet_ray.report.inspection import BlockPart, FieldPart, Inspection, LabelPart, UnitLine, spread
from diet_ray.report.inspection_page import write_inspection
from diet_ray.report.page import Source
from diet_ray.report.status import RunStatus
from diet_ray.report.summary import RunSummary, StageSummary
from diet_ray.report.timeline import write_timeline

SOURCE = Source("shop", "7", "memory runs/shop, stage 2")
STEPS = ("reference", "score", "select", "align", "fuse", "refine", "commit")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def standing(candidate: str, trained_on: str = "memory", *, auc: float = 0.7, sd: float = 0.01) -> Standing:
    tasks = ["click", "like"]
    return Standing(
        candidate=candidate,
        arch="dnn",
        trained_on=trained_on,
        seeds=2,
        mean={task: {"auc": auc, "logloss": 1.2 - auc, "gauc": 0.6, "calibration": 1.0} for task in tasks},
        sd={task: {"auc": sd, "logloss": 0.001, "gauc": sd, "calibration": 0.1} for task in tasks},
        train_seconds=1.234,
        parameters=10,
    )


def summary() -> RunSummary:
    stages = [
        StageSummary(
            stage=t,
            block=f"day-{t}",
            rows=10,
            rows_seen=10 * (t + 1),
            units=t + 1,
            memory_bytes=100,
            reference_logloss=0.6 - 0.1 * t,
            guard_before=None,
            guard_after=None,
            refined=None,
            steps=dict.fromkeys(STEPS[: 2 * t + 1], 1.0) | ({"score": 2.0} if t else {}),
            seconds=3.0,
        )
        for t in range(2)
    ]
    return RunSummary(run="r", stages=stages, rows=20, units=2, memory_bytes=100, table_bytes=5, seconds=6.0)


def decision(names: list[str]) -> Decision:
    """The first is best, the second cannot be told from it, the others are worse."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(1, 0.4, size=1000)
    losses = {
        name: np.stack([hard + (place > 1) * 0.05 * place + 0.02 * rng.normal(size=1000) for _ in range(2)])
        for place, name in enumerate(names)
    }
    found = decide(losses, rng.integers(300, size=1000))
    assert found is not None
    return found


def board(**keys: Any) -> Leaderboard:
    """The longest names that the default pool has, and more of them than the demo."""
    names = ["deepfm", "dcnv2-deep", "gdcn-stacked", "wukong-large", "dnn-dropout", "xdeepfm", "finalmlp", "fm", "lr"]
    lines = [standing(name, auc=0.87 - 0.001 * place - 0.1 * (place > 5)) for place, name in enumerate(names)]
    facts = {
        "memory": "runs/shop", "units": 1040, "stage": 2, "log": "logs/shop", "block": "2024-01-04", "rows": 5000,
        "tasks": ["click", "like"], "student": StudentConfig(), "standings": lines, "verdicts": [],
        "yardsticks": [standing("(reference)", "-", auc=0.86), standing("(constant)", "-", auc=0.5)],
        "cost": Cost(memory=20, judged=30, full=90, trainings=18),
    }  # fmt: skip
    return Leaderboard.model_validate(facts | keys)


def write_frozen_leaderboard(out: Path) -> Path:
    write_leaderboard(out, board(), SOURCE)
    return out / "leaderboard.html"


def write_live_leaderboard(out: Path) -> Path:
    found = board(live=0.1, tasks=["click"])
    names = [line.candidate for line in found.standings]
    write_leaderboard(out, found.model_copy(update={"decision": decision(names)}), SOURCE)
    return out / "leaderboard.html"


def race() -> Race:
    names = ["deepfm", "dcnv2-deep", "gdcn-stacked", "wukong-large", "fm"]
    rungs, entered = [], names
    for number, share in enumerate((0.1, 1.0), start=1):
        found = decision(entered)
        left = leaving(found, number)[-1:] if number == 1 else leaving(found, number)
        rungs.append(
            Rung(share=share, rows=500 * number, entered=len(entered), decision=found, left=left, examples=9, cpu_seconds=3)
        )  # fmt: skip
        entered = [name for name in entered if name not in {one.candidate for one in left}]
    facts = {
        "memory": "runs/shop", "units": 1040, "stage": 2, "log": "logs/shop", "block": "2024-01-04", "tasks": ["click"],
        "confidence": 0.95, "seeds": 2, "shares": [0.1, 1.0], "budget": None, "rungs": rungs, "ended": "rungs",
        "winner": entered[0], "standing": entered, "full_trainings": 3.0, "cpu_seconds": 6.0, "rows_of_log": 9000,
        "memory_seconds": 20.0, "candidates": {name: {} for name in names},
    }  # fmt: skip
    found = Race.model_validate(facts)
    return found.model_copy(update={"sentence": sentence(found)})


def write_race_page(out: Path) -> Path:
    write_race(out, race(), SOURCE)
    return out / "race.html"


def inspection(**keys: Any) -> Inspection:
    """A memory of 30 units of three blocks; the log has fewer positives."""
    rng = np.random.default_rng(0)
    fields = ["household_composition", "product_category", "hour"]
    facts = {
        "memory": "runs/shop", "log": "shop", "no_log": None, "seed": 7, "stage": 2, "block": "2024-01-03", "rows_seen": 3000,
        "units": 30, "tasks": ["click"], "memory_bytes": 900, "column_bytes": 9000, "table_bytes": 80_000, "refined": True,
        "guard_before": 0.26431, "guard_after": 0.26429, "weight": spread(np.ones(30)), "influence": spread(rng.normal(size=30)),
        "helping": 0.5, "harming": 0.5,
        "blocks": [
            BlockPart(
                block=t, name=f"2024-01-0{t + 1}", rows=1000, units=10, share=1 / 3, positives={"click": 2},
                log_positives={"click": 170}, influence=0.1,
            )
            for t in range(3)
        ],
        "labels": [
            LabelPart(task="click", label=label, units=15, share=0.5, soft_label=spread(rng.random(15)), histogram=[1] * 15 + [0] * 5)
            for label in (0, 1)
        ],
        "fields": [
            FieldPart(
                field=name, ids=9, embedding_norm=0.1, delta_norm=spread(rng.random(30)), moved=0.3, drift_ids=9, cosine=0.9, drift=0.1
            )
            for name in fields
        ],
        "top": [
            UnitLine(
                unit_id=9, block=1, influence=0.2, weight=1, labels={"click": 1}, soft_labels={"click": 0.4}, ids={"hour": [4711]},
                values={"hour": ["noon"]},
            )
        ],
    }  # fmt: skip
    return Inspection.model_validate(facts | keys)


def write_inspection_page(out: Path) -> Path:
    return write_inspection(out / "memory.html", inspection())[0]


def write_status_page(out: Path) -> Path:
    run, time = out / "run", 1e6
    run.mkdir()
    events = []
    for t in range(14):
        events.append({"time": time, "kind": "stage", "stage": t, "block": f"2024-01-{t + 1:02}", "rows": 9})
        for step in STEPS:
            events.append({"time": time, "kind": "start", "stage": t, "step": step})
            events.append({"time": time + 1, "kind": "step", "stage": t, "step": step, "seconds": 1.0})
            time += 1
        if t != 5:
            events.append({"time": time, "kind": "committed", "stage": t, "block": "b", "units": 3, "rows_seen": 9})
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    status = RunStatus(
        run="runs/shop", state="finished", owner=None, blocks_done=13, blocks=13, rows_seen=30, rows_left=0, units=9,
        memory_bytes=9, table_bytes=9, block=None, step=None, done=None, total=None, silence=1, rows_per_second=2, eta=None,
        log="shop", seed=7,
    )  # fmt: skip
    write_timeline(out / "status.html", run, status)
    return out / "status.html"


def write_demo_page(out: Path) -> Path:
    names = [*demo.FULL_LOG_CANDIDATES, "deepfm", "wukong"]
    lines = [standing(name, auc=0.874 - 0.001 * place, sd=0.0005) for place, name in enumerate(names)]
    others = [
        standing(line.candidate, way, auc=line.mean["click"]["auc"] - worse, sd=0.0005)
        for line in lines[:2]
        for way, worse in ((FULL, 0.003), (SOFT, 0.03), (HARD, 0.15))
    ]
    result = DemoResult(
        block="2017-W15",
        tasks=["click", "like"],
        standings=lines,
        comparison=[*lines[:2], *others],
        compression=Compression(rows=300_000, units=3000, log_bytes=4_800_000, memory_bytes=90_000, table_bytes=2_000_000),
        race=race().sentence,
        cost=Cost(memory=60, judged=30, full=270, trainings=16, candidates=8, pays_after=2.0),
        seconds={"distil": 100.0},
    )  # fmt: skip
    write_demo(out, result, summary(), SOURCE)
    return out / "demo.html"


def write_fidelity_page(out: Path) -> Path:
    """The committed result of a real log; the synthetic one of both protocols is as long and slower."""
    result = LiveResult.model_validate_json((RESULTS / "live_kuairand-live.json").read_bytes())
    cost = LiveCost.model_validate_json((RESULTS / "live_cost_kuairand-live.json").read_bytes())
    return write_report(out, None, (result, cost))[0]


PAGES: dict[str, Callable[[Path], Path]] = {
    "demo": write_demo_page,
    "fidelity": write_fidelity_page,
    "inspect": write_inspection_page,
    "race": write_race_page,
    "status": write_status_page,
    "sweep": write_live_leaderboard,
    "frozen sweep": write_frozen_leaderboard,
}
"""Writes each kind of page into a folder, and gives its path."""
