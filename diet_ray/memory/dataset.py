"""A committed memory as a plain torch dataset, on which students are trained."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.layout import log_manifest_file
from diet_ray.memory.download import fetch
from diet_ray.memory.layout import MANIFEST, is_stage, stage_folder
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.run_folder import committed_stages, read_units
from diet_ray.memory.table_reader import TableReader
from diet_ray.memory.units import Units, unit_problems
from diet_ray.settings import parse_json
from diet_ray.storage.entries import check_file
from diet_ray.storage.faults import few
from diet_ray.training.student import Examples


class Memory(Dataset[dict[str, Tensor]]):
    """M units over F fields of width d and T tasks, with the embedding table that defines their space.

    `memory[i]` is `{"x": [F, d], "soft_label": [T], "weight": []}`; `memory.x`, `.soft_label` and `.weight` are whole columns, all
    float32. Train for `memory.stage.config.student.steps` steps: that is the horizon for which the memory was refined.
    """

    rows: TableReader
    """Reads rows of the table, without the whole."""

    def __init__(self, stage: StageManifest, units: Units, rows: TableReader) -> None:
        self.stage, self.units, self.rows = stage, units, rows
        self.x = self.embed(units.ids) + torch.tensor(units.delta)
        self.logit = torch.tensor(units.logit)
        self.soft_label = torch.sigmoid(self.logit)
        self.weight = torch.tensor(units.weight)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "soft_label": self.soft_label[index], "weight": self.weight[index]}

    @cached_property
    def table(self) -> Tensor:
        """`[n_ids, d]` float32: the embedding table, mapped at the first use (see `TableReader.whole`); `rows` and `embed` do without."""
        return self.rows.whole()

    @property
    def table_bytes(self) -> int:
        """Bytes of the table, float32."""
        return 4 * self.rows.n_ids * self.stage.config.reference.dim

    @property
    def field_names(self) -> list[str]:
        """The F fields, in the order of `x`."""
        return self.stage.log_schema.field_names

    def examples(self) -> Examples:
        """The units as `diet_ray.training.student` takes them."""
        return Examples(self.x, self.logit, self.weight)

    def embed(self, ids: np.ndarray) -> Tensor:
        """The inputs of real rows: `[N, S]` ids of the log to `[N, F, d]` float32."""
        return self.rows.embed(ids, self.stage.log_schema.field_of_slot)


def load_memory(path: str | Path) -> Memory:
    """Load the memory of a run (its last committed stage) or of one stage's folder.

    Args:
        path: the folder; or the URI of an archive or of one of its stages. The needed files are then fetched (`diet_ray.memory.download`).

    Raises:
        ConfigError: the archive cannot be reached, or holds no such stage.
        CorruptArtefactError: there is no committed stage, or a file is not the one that was committed or contradicts the manifest.
        VersionError: it was written in another format version.
    """
    path = fetch(path)
    if is_stage(path):
        stage, folder = parse_json(StageManifest, path / MANIFEST), path
    else:
        stages = committed_stages(path)
        if not stages:
            what = "is a log, no memory" if log_manifest_file(path).is_file() else "holds no committed stage"
            raise CorruptArtefactError(
                f"{path}: {what}; point at a run folder, which diet-ray distill makes, or at one of its stages"
            )
        stage, folder = stages[-1], stage_folder(path, stages[-1].index)
    parts = [read_units(check_file(folder, entry)) for entry in stage.memory]
    for part, entry in zip(parts, stage.memory, strict=True):
        _check_units(part, stage, folder / entry.path)
    table = _table(folder, stage)
    units = Units.concat(parts)
    if len(units) != stage.units or len(np.unique(units.unit_id)) != len(units):
        raise CorruptArtefactError(
            f"{folder / 'manifest.json'}: says {stage.units} different units, the memory shards hold {len(units)}; {_RESTORE}"
        )
    return Memory(stage, units, table)


_RESTORE = "restore the run folder from a copy"


def _check_units(units: Units, stage: StageManifest, path: Path) -> None:
    schema, dim = stage.log_schema, stage.config.reference.dim
    shape = (units.ids.shape[1], *units.delta.shape[1:], units.logit.shape[1])
    if shape != (schema.n_slots, schema.n_fields, dim, schema.n_tasks):
        slots, n_fields, width, tasks = shape
        raise CorruptArtefactError(
            f"{path}: units of {slots} ids, {n_fields} fields of width {width} and {tasks} tasks, the run has {schema.n_slots}, "
            f"{schema.n_fields} of {dim} and {schema.n_tasks}; {_RESTORE}"
        )
    for column, bad, problem in unit_problems(units, stage.n_ids):
        raise CorruptArtefactError(
            f"{path}, column {column!r}: {few(units.unit_id, bad, 'units')}: {problem}; {_RESTORE}"
        )


def _table(folder: Path, stage: StageManifest) -> TableReader:
    """A reader of the embedding table of a stage's last checkpoint."""
    path = folder / stage.checkpoints[-1].path
    shape = (stage.n_ids, stage.config.reference.dim)
    reader = TableReader.open(folder, stage)
    kind = reader.kind()
    if kind != (torch.float32, shape):
        stored = "missing" if kind is None else f"{kind[0]} {list(kind[1])}"
        raise CorruptArtefactError(
            f"{path}, tensor 'table': {stored}, the run's is torch.float32 {list(shape)}; {_RESTORE}"
        )
    return reader
