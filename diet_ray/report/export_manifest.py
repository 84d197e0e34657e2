"""The manifest of an export: its contents and their origin."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field as Key
from pydantic_core import from_json

from diet_ray.config import ReferenceConfig, StudentConfig
from diet_ray.schema import Schema
from diet_ray.settings import Settings
from diet_ray.storage.entries import FileEntry
from diet_ray.training.adam import BETA1, BETA2, EPSILON

FORMAT: Final = 1
"""Version of the export's layout."""


EMBEDDINGS: Final = "embeddings.safetensors"
"""The file of the table."""

MOMENTS: Final = "moments.safetensors"
"""The file of Adam's moments of the table."""


class LaunchKeys(Settings):
    """What a launch needs beside the files (`diet_ray.judge.launch`)."""

    log_schema: Schema
    """Schema of the log."""
    reference: ReferenceConfig
    """How the reference learned, and a launched candidate goes on learning."""


class Optimiser(Settings):
    """Adam as students run it: `theta -= lr * mhat / sqrt(vhat + epsilon)`."""

    name: Literal["adam"] = "adam"
    beta1: float = BETA1
    beta2: float = BETA2
    epsilon: float = EPSILON
    epsilon_inside_root: bool = True
    """An optimiser with epsilon outside the root comes close with `sqrt(epsilon)`."""


class ExportManifest(Settings):
    """The contents of an export and their origin."""

    export_format: Literal[1] = FORMAT
    """Version of the layout."""
    diet_ray: str
    """Version that wrote it."""
    log: str
    """Name of the log's schema."""
    stage: int
    """The stage whose memory this is."""
    stage_sha256: str
    """Checksum of that stage's manifest."""
    blocks: dict[int, str]
    """Index and name of the log's blocks that were distilled, as far as they are known."""
    rows_seen: int
    """Rows of those blocks."""
    memory_units: int
    """Units of the memory."""
    units: int
    """Units exported."""
    fields: list[str]
    """The F fields, in the order of `x`."""
    slots: list[int]
    """`[S]`: the position in `fields` to which each id of a row belongs; a field with several is averaged over ids that are not 0."""
    tasks: list[str]
    """The T tasks."""
    dim: int
    """d, width of an embedding."""
    n_ids: int | None
    """Rows of the table; None where it was left out."""
    student: StudentConfig
    """The horizon for which the memory was refined, and its step size."""
    optimiser: Optimiser = Optimiser()
    """The optimiser of the students."""
    launch: LaunchKeys | None = None
    """Present where the moments of the table are among the files, so that candidates can be launched."""
    licence: str | None
    """Licence of the source log, as given at the export."""
    columns: dict[str, str]
    """Name and meaning of the Parquet columns."""
    files: list[FileEntry] = Key(min_length=1)
    """The other files except the card."""


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export: its manifest, which is written last, says so."""
    try:
        return "export_format" in from_json((folder / "manifest.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False
