"""Readers of published logs: each joins the files as published into what the generic ingest takes, and brings its schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from diet_ray.readers import complete_journey, kuairand
from diet_ray.schema import Schema
from diet_ray.settings import load_yaml


@dataclass(frozen=True)
class Reader:
    """A published log that diet_ray knows."""

    prepare: Callable[[Path | None, Path], list[Path]]
    """`prepare(source, out)` writes Parquet files into the folder `out` and returns them; source None means the log's own package."""
    preset: str
    """File in `diet_ray/presets` with the schema of those files."""
    by: Literal["day", "week"]
    """The natural block."""

    @property
    def schema(self) -> Schema:
        """The packaged schema."""
        with as_file(files("diet_ray") / "presets" / self.preset) as path:
            return load_yaml(Schema, path)


READERS = {
    "complete-journey": Reader(complete_journey.prepare, "complete_journey_schema.yaml", "week"),
    "kuairand": Reader(kuairand.prepare, "kuairand_schema.yaml", "day"),
}
"""The readers by the name that `diet-ray ingest` takes."""
