"""A committed memory as a plain torch dataset: what a student needs, and no Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diet_ray.embedding import lookup
from diet_ray.errors import CorruptArtefactError
from diet_ray.reference import load_tensors
from diet_ray.settings import parse_json
from diet_ray.store import StageManifest, check_file, committed_stages, read_units, stage_folder
from diet_ray.student import Examples
from diet_ray.units import Units


class Memory(Dataset[dict[str, Tensor]]):
    """M units over F fields of width d and T tasks, with the embedding table in whose space they are.

    `memory[i]` is `{"x": [F, d], "soft_label": [T], "weight": []}`; `memory.x`, `.soft_label` and `.weight` are whole columns, all
    float32. Train for `memory.stage.config.student.steps` steps: that is the horizon for which the memory was refined.
    """

    def __init__(self, stage: StageManifest, units: Units, table: Tensor) -> None:
        self.stage, self.units, self.table = stage, units, table
        self.x = units.inputs(table, stage.log_schema.field_of_slot)
        self.logit = torch.tensor(units.logit)
        self.soft_label = torch.sigmoid(self.logit)
        self.weight = torch.tensor(units.weight)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "soft_label": self.soft_label[index], "weight": self.weight[index]}

    @property
    def field_names(self) -> list[str]:
        """The F fields, in the order of `x`."""
        return self.stage.log_schema.field_names

    def examples(self) -> Examples:
        """The units as `diet_ray.student` takes them."""
        return Examples(self.x, self.logit, self.weight)

    def embed(self, ids: np.ndarray) -> Tensor:
        """Real rows as a student sees them: `[N, S]` ids of the log to `[N, F, d]` float32."""
        return lookup(self.table, torch.tensor(ids), torch.tensor(self.stage.log_schema.field_of_slot))


def load_memory(path: str | Path) -> Memory:
    """Load the memory of a run (its last committed stage) or of one stage's folder.

    Raises:
        CorruptArtefactError: there is no committed stage, or a file is not the one that was committed.
        VersionError: it was written in another format version.
    """
    path = Path(path)
    if (path / "manifest.json").is_file():
        stage, folder = parse_json(StageManifest, path / "manifest.json"), path
    else:
        stages = committed_stages(path)
        if not stages:
            raise CorruptArtefactError(
                f"{path}: holds no committed stage; point at a run folder or at one of its stages"
            )
        stage, folder = stages[-1], stage_folder(path, stages[-1].index)
    units = Units.concat([read_units(check_file(folder, entry)) for entry in stage.memory])
    return Memory(stage, units, load_tensors(check_file(folder, stage.checkpoints[-1]))["table"])
