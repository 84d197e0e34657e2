"""A fidelity bench small enough for tests, and all of its work done in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diet_ray.judge.fidelity.bench import do_missing
from diet_ray.judge.fidelity.config import FidelityConfig
from diet_ray.judge.fidelity.plan import Bench
from tests.support.small_run import STREAM

POOL: list[dict[str, Any]] = [
    {"name": "lr", "arch": "lr"},
    {"name": "fm", "arch": "fm"},
    {"name": "net", "arch": "dnn", "params": {"hidden": [8]}},
    {"name": "blind", "arch": "lr", "drop_fields": ["user"]},
]


def bench_config(log: Path, folder: Path, *, candidates: int | None = None, **keys: Any) -> FidelityConfig:
    """Two methods, two seeds, no curve, no stages, unless `keys` say otherwise; all candidates of the pool or its first few."""
    pool = folder / "pool.yaml"
    pool.write_text(json.dumps({"candidates": POOL[:candidates]}), encoding="utf-8")
    raw = {
        "stream": {"log": log.resolve(), **STREAM},
        "candidates": pool,
        "seeds": 2,
        "methods": ["random/soft/shared", "memory/drawn/shared"],
        "differences": [],
        "curve": {"ratios": [], "methods": []},
        "stages": {"candidates": [], "methods": []},
        "replicates": 100,
        "cpus_per_trial": 4,  # of the 4 of the tests' cluster: a trial's process takes longer to start than all of its trainings
    }
    return FidelityConfig.model_validate(raw | keys)


def do_all_here(bench: Bench) -> None:
    """All of a bench's work, in this process."""
    do_missing(bench, lambda *step: None)
