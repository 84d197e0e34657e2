"""The table of a stage, whole or as the rows that changed since the stage before.

    checkpoint-2.safetensors   `net.*` and `table [n_ids, d]`; or `table [R, d]` with `table/rows [R]` int32, the ids of these rows
    optimiser.safetensors      the same of the moments: `table/exp_avg` and `table/exp_avg_sq`, `[n_ids, d]` or `[R, d]` with `table/rows`

A stage whose manifest names a stage as `whole` has such rows: its table is that stage's, then the rows of each stage after it, in order. A
pass changes only the rows that it looks up, and a row that is new is among them too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diet_ray.memory.facts import StageFacts
from diet_ray.memory.table_chain import OF_TABLE, ROWS
from diet_ray.memory.table_reader import TableReader
from diet_ray.storage.tensors import save_tensors
from diet_ray.training.table import picked


def save_rows(path: Path, tensors: dict[str, Tensor], rows: np.ndarray) -> None:
    """Write tensors with only these rows of those that have one for each id."""
    some = {name: picked(value, rows) if name in OF_TABLE else value for name, value in tensors.items()}
    save_tensors(path, {**some, ROWS: torch.from_numpy(rows)})


def load_checkpoint(folder: Path, stage: StageFacts) -> dict[str, Tensor]:
    """The last checkpoint of a stage, `table` whole and `net.*`; who needs only some rows takes a `TableReader`.

    Args:
        folder: the stage's; the stages on which its table builds are beside it.
        stage: its manifest.

    Raises:
        ConfigError: it was pruned.
        CorruptArtefactError: a file is missing or damaged, or a stage on which it builds is not there.
        ResourceError: there is no room to put a large table together.
    """
    return TableReader.open(folder, stage).tensors()


def load_optimiser(folder: Path, stage: StageFacts) -> dict[str, Tensor]:
    """The moments at the end of a stage, those of the table whole. Raises as `load_checkpoint`."""
    return TableReader.open(folder, stage, moments=True).tensors()
