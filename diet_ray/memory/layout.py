"""Where a run and its committed stages lie. No Ray, no torch, no pyarrow here, so that whoever only looks at a run starts at once."""

from __future__ import annotations

from pathlib import Path

OPTIMISER = "optimiser.safetensors"
"""File of a stage with the moments of the reference's optimisers."""

RECORDS = "ray"
"""Folder in a run folder where Ray Train keeps its own record of the worker group, for as long as it lives."""


def stage_folder(run: Path, index: int) -> Path:
    """Where a committed stage lies."""
    return run / "stages" / f"{index:04d}"


def stage_manifest(run: Path, index: int) -> Path:
    """Its manifest; the stage is committed if and only if that is there."""
    return stage_folder(run, index) / "manifest.json"


def waiting_folder(run: Path) -> Path:
    """The folder whose lock a follower holds while it waits for the log's next block."""
    return run / "follow"


def count_committed(run: Path) -> int:
    """How many stages are committed, by the presence of their manifests alone."""
    done = 0
    while stage_manifest(run, done).is_file():
        done += 1
    return done


def checkpoint(k: int) -> str:
    """File of a stage with the k-th checkpoint of the reference along its pass."""
    return f"checkpoint-{k}.safetensors"
