"""What a file or folder is that a user gave in the wrong place: one line says it, and which command takes it.

Only names and keys are looked at, and nothing is imported: a mistake is told at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

_CONFIGS = {
    "stream": ("the config of a fidelity bench", "diet-ray fidelity --config {path}"),
    "candidates": ("a pool of candidates", "diet-ray sweep --candidates {path}"),
    "time": ("the schema of a log", "diet-ray ingest {path}"),
    "log": ("the config of a run", "diet-ray distill --config {path}"),
}
"""By a key that only files of one kind must have, the surest first: what the file is, and the command that takes it."""

_OWN = {
    "FidelityConfig": "stream",
    "SweepConfig": "candidates",
    "CandidateFile": "candidates",
    "Schema": "time",
    "LaunchConfig": "log",
    "SimulateConfig": "",
}
"""The key of the settings that are read from files."""

_ANYWHERE = {"name", "seed", "modules"}
"""Keys that say nothing about the kind."""

_RAW = (".parquet", ".pq", ".csv", ".tsv", ".orc", ".avro", ".csv.gz", ".tsv.gz", ".csv.zst")

_PLACES = {
    "run": "a run, for `diet-ray status {path}` and `diet-ray inspect {path}`",
    "log": "a log, for `diet-ray inspect {path}` and for the key 'log' of a run's config",
    "stage": "a stage of a run, for `diet-ray inspect {path}`",
    "sweep": "what `diet-ray sweep` made; open {path}/leaderboard.html",
    "race": "what `diet-ray race` made; open {path}/race.html",
    "bench": "what `diet-ray fidelity` made; open {path}/fidelity.html",
    "export": "what `diet-ray export` made, for use without diet_ray; {path}/README.md says how",
    "raw": "raw data; `diet-ray schema {path}` describes it, `diet-ray ingest` makes a log of it",
}


def other_config(kind: str, keys: Collection[str], raw: dict[str, Any], path: Path) -> str | None:
    """What a YAML file is, if it is of another kind than the settings class named `kind`, with `keys`, for which it was given."""
    own = _OWN.get(kind)
    if own is None or own in raw:
        return None
    for key, (what, command) in _CONFIGS.items():
        if key in raw and set(raw) & set(keys) <= {key, *_ANYWHERE}:
            mine = f", not {_CONFIGS[own][0]}" if own else ""
            wrap = (
                "; for a bench, copy it and indent its keys below a line `stream:`"
                if (own, key) == ("stream", "log")
                else ""
            )
            return f"{path}: is {what}{mine}; it is for `{command.format(path=path)}`{wrap}"
    return None


def place_of(path: Path) -> str | None:
    """The kind of a file or folder, a key of what `told` knows; None where it is none of them."""
    if not path.is_dir():
        return "raw" if path.name.lower().endswith(_RAW) else None
    marks = {
        "run": "run.json",
        "log": "log.json",
        "sweep": "leaderboard.json",
        "race": "race.json",
        "export": "embeddings.safetensors",
    }
    for kind, name in marks.items():
        if (path / name).exists():
            return kind
    for kind, name in (
        ("run", "stages"),
        ("log", "blocks"),
    ):  # without its manifest it is damaged, and still no raw data
        if (path / name).is_dir():
            return kind
    if (path / "fidelity.json").exists() or (path / "live.json").exists():
        return "bench"
    if (path / "manifest.json").exists() and next(path.glob("memory-*.arrow"), None):
        return "stage"
    return "raw" if (path / "_delta_log").exists() or any(_raw_in(path)) else None


def told(path: Path, kind: str) -> str:
    """What a place of that kind is, and what to do with it."""
    return _PLACES[kind].format(path=path)


def _raw_in(path: Path) -> Iterator[bool]:
    """Whether entries of a folder or of its folders are data files; at most a hundred are looked at."""
    for number, entry in enumerate(path.glob("*")):
        if number > 100:
            return
        yield entry.name.lower().endswith(_RAW)
        if entry.is_dir():
            yield any(
                inside.name.lower().endswith(_RAW) for _, inside in zip(range(100), entry.glob("*"), strict=False)
            )
