"""A run small enough for tests: a config of seconds, and the run that the engine without Ray makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diet_ray.candidates import CandidateFile
from diet_ray.config import StreamConfig
from diet_ray.distill.local import LocalEngine
from diet_ray.distill.pipeline import run_stream
from diet_ray.logs.blocks import open_log
from diet_ray.memory.events import Events
from diet_ray.memory.run_folder import open_run
from diet_ray.storage.hashes import sha256

STREAM: dict[str, Any] = {
    "seed": 3,
    "reference": {
        "nets": [
            {"name": "lr", "arch": "lr", "adapter": False},
            {"name": "dnn", "arch": "dnn", "params": {"hidden": [8]}, "adapter": False},
        ],
        "dim": 4,
        "batch_size": 64,
        "checkpoints": 2,
    },
    "checkpoints": {"keep": "all"},
    "budget": {"ratio": 0.05},
    "student": {"steps": 10, "batch_size": 16},
    "refine": {
        "rounds": 3,
        "window": 4,
        "proxies": [{"name": "dnn", "arch": "dnn", "params": {"hidden": [8]}}, {"name": "fm", "arch": "fm"}],
        "hard_batch": 64,
        "active": 32,
        "address_every": 2,
    },
}

POOL = CandidateFile.model_validate(
    {
        "candidates": [
            {"name": "net", "arch": "dnn", "params": {"hidden": [8]}, "lr_scale": 4.0},
            {"name": "without-hour", "arch": "fm", "drop_fields": ["hour"]},
        ]
    }
)
"""Two candidates to judge, one of which does not see all fields."""


def config(log: Path, **cluster: Any) -> StreamConfig:
    return StreamConfig.model_validate({"log": log.resolve(), **STREAM, "cluster": cluster})


def local_run(run: Path, stream: StreamConfig) -> Path:
    """Run the stream in this process; returns the run folder."""
    committed = open_run(run, stream, resume=False)
    run_stream(run, open_log(stream.log), stream, LocalEngine(stream), Events(run / "events.jsonl"), committed)
    return run


def stage_bytes(run: Path) -> dict[str, str]:
    """Checksum of each file of each stage."""
    return bytes_of(run / "stages")


def bytes_of(folder: Path) -> dict[str, str]:
    """Checksum of each file in and below a folder."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
