"""Adam's moments of the embedding table of a committed stage, with which a candidate goes on learning a copy of the table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.layout import stage_in
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.tables import load_optimiser

_RESTORE = "restore the run folder from a copy"


class TableMoments(NamedTuple):
    """The state of sparse Adam for a table of n ids and width d."""

    step: int
    """Steps done."""
    exp_avg: Tensor
    """`[n_ids, d]` float32: running mean of the gradients."""
    exp_avg_sq: Tensor
    """`[n_ids, d]` float32, 0 or more: running mean of their squares."""

    def tensors(self) -> dict[str, Tensor]:
        """As `check_moments` reads them from a file."""
        return {
            "table/step": torch.tensor(self.step),
            "table/exp_avg": self.exp_avg,
            "table/exp_avg_sq": self.exp_avg_sq,
        }


def load_moments(folder: Path, stage: StageManifest) -> TableMoments:
    """The moments of the table of a stage, twice the bytes of the table.

    Args:
        folder: the run folder or the stage's folder.
        stage: the stage's manifest, as `load_memory(folder).stage`.

    Raises:
        CorruptArtefactError: the file is missing, is not the one that was committed, or does not fit the table.
    """
    place = stage_in(folder, stage.index)
    file = place / stage.optimiser.path
    return check_moments(load_optimiser(place, stage), (stage.n_ids, stage.config.reference.dim), file, _RESTORE)


def check_moments(tensors: dict[str, Tensor], shape: tuple[int, int], file: Path, remedy: str) -> TableMoments:
    """The moments in the tensors `table/step`, `table/exp_avg` and `table/exp_avg_sq` of a file.

    Args:
        tensors: of the file.
        shape: of the table.
        file: for the message.
        remedy: for the message.

    Raises:
        CorruptArtefactError: one is missing, does not fit the table, or has values that no moment can have.
    """
    names = {name: f"table/{name}" for name in TableMoments._fields}
    for key in names.values():
        if key not in tensors:
            raise CorruptArtefactError(f"{file}, tensor {key!r}: missing; {remedy}")
    moments = TableMoments(int(tensors[names["step"]]), tensors[names["exp_avg"]], tensors[names["exp_avg_sq"]])
    for name in ("exp_avg", "exp_avg_sq"):
        values = getattr(moments, name)
        if values.dtype != torch.float32 or values.shape != shape:
            raise CorruptArtefactError(
                f"{file}, tensor {names[name]!r}: {values.dtype} {list(values.shape)}, the table is torch.float32 {list(shape)}; {remedy}"
            )
        # In pieces: a mapped file is read, but no array of its size is made.
        if not all(
            bool(torch.isfinite(part).all()) and (name != "exp_avg_sq" or bool((part >= 0).all()))
            for part in torch.split(values, 1 << 16)
        ):
            raise CorruptArtefactError(f"{file}, tensor {names[name]!r}: has values that no moment can have; {remedy}")
    return moments
