"""A fidelity bench small enough for tests, and all of its work done in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small_run import STREAM

from diet_ray.fidelity.config import FidelityConfig
from diet_ray.fidelity.plan import Bench
from diet_ray.fidelity.reduced import select_rows
from diet_ray.fidelity.training import train_set
from diet_ray.fidelity.trials import distil_here, runs_of, selected_of, trials

POOL: list[dict[str, Any]] = [
    {"name": "lr", "arch": "lr"},
    {"name": "fm", "arch": "fm"},
    {"name": "net", "arch": "dnn", "params": {"hidden": [8]}},
    {"name": "blind", "arch": "lr", "drop_fields": ["user"]},
]


def bench_config(log: Path, folder: Path, **keys: Any) -> FidelityConfig:
    """Two methods, two seeds, no curve, no stages, unless `keys` say otherwise."""
    pool = folder / "pool.yaml"
    pool.write_text(json.dumps({"candidates": POOL}), encoding="utf-8")
    raw = {
        "stream": {"log": log.resolve(), **STREAM},
        "candidates": pool,
        "seeds": 2,
        "methods": ["random/soft/shared", "memory/drawn/shared"],
        "differences": [],
        "curve": {"ratios": [], "methods": []},
        "stages": {"candidates": [], "methods": []},
        "replicates": 100,
        "cpus_per_trial": 4,  # of the 8 of the tests' cluster: a trial's process takes longer to start than all of its trainings
    }
    return FidelityConfig.model_validate(raw | keys)


def do_all_here(bench: Bench) -> None:
    """What `trials.do_all` does, without Ray."""
    todo = [training for training in bench.trainings() if not bench.verdict_path(training).is_file()]
    for run, stream in runs_of(bench, todo):
        distil_here(run, stream)
    for one in selected_of(bench, todo):
        select_rows(bench, one)
    for group in trials(todo):
        for _ in train_set(bench, group):
            pass
