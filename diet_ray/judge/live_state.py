"""Where a live candidate stands after some rows: a file from which a killed trial, or a later rung of a race, goes on.

A launched candidate has changed only the rows of its table whose ids it has met, in units or live rows. Only these rows are kept, with
their moments: the file grows with the rows met, not with the table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.blocks import Rows
from diet_ray.settings import whole_file
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.tensors import load_tensors, save_tensors
from diet_ray.training.reference import Reference

MODEL, OPTIMISER, LOGITS = "model/", "optimiser/", "logits/"
IDS, N_IDS = "ids", "n_ids"
TABLE = (f"{MODEL}table", f"{OPTIMISER}table/exp_avg", f"{OPTIMISER}table/exp_avg_sq")
"""The tensors of which some rows are kept."""


class LiveState:
    """The file of one trial and seed."""

    def __init__(self, path: Path, unit_ids: Tensor | None = None) -> None:
        """Name the file.

        Args:
            path: of the file; its name must say all that the state depends on.
            unit_ids: integers, the ids that the candidate may have learned before its first live row. `restore` then needs a candidate that
                began as this one did. None where it may have learned all ids: the whole table is kept.
        """
        self.path, self.unit_ids = path, unit_ids

    def save(self, model: Reference, logits: list[np.ndarray], met: list[Rows]) -> None:
        """Write the state, complete or not at all.

        Args:
            model: the candidate.
            logits: per finished part of the rows the `[N, T]` float32 logits of the rows met.
            met: the rows of these parts.
        """
        tensors = _tensors(model)
        if self.unit_ids is not None:
            ids = torch.unique(
                torch.cat([self.unit_ids.ravel(), *(torch.tensor(part.ids.ravel()) for part in met)])
            ).long()
            tensors |= {name: tensors[name][ids] for name in TABLE}
            tensors |= {IDS: ids, N_IDS: torch.tensor([model.embedding.n_ids])}
        tensors |= {f"{LOGITS}{number:05d}": torch.from_numpy(part) for number, part in enumerate(logits)}
        FolderStore(self.path.parents[1]).make(self.path.parent.name)
        with whole_file(self.path) as draft:
            save_tensors(draft, tensors)

    @property
    def exists(self) -> bool:
        """Whether there is a state."""
        return self.path.is_file()

    def restore(self, model: Reference) -> list[np.ndarray]:
        """Put a candidate where the file says it stands; returns the logits of the finished parts. Does nothing where there is no file.

        Raises:
            CorruptArtefactError: the file is damaged, or is of another candidate.
        """
        if not self.exists:
            return []
        tensors = load_tensors(self.path)
        try:
            if IDS in tensors:
                model.grow(int(tensors[N_IDS]))
                own = _tensors(model)
                table = {name: own.get(name, torch.zeros_like(own[TABLE[0]])) for name in TABLE}
                tensors |= {name: value.index_copy(0, tensors[IDS], tensors[name]) for name, value in table.items()}
            parts = {
                prefix: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
                for prefix in (MODEL, OPTIMISER, LOGITS)
            }
            model.load(parts[MODEL], parts[OPTIMISER])
        except (KeyError, RuntimeError, IndexError) as error:
            raise CorruptArtefactError(f"{self.path}: not the state of this candidate ({error}); remove it") from error
        return [parts[LOGITS][name].numpy() for name in sorted(parts[LOGITS])]

    def remove(self) -> None:
        """Remove the file, where there is one."""
        FolderStore(self.path.parents[1]).delete(f"{self.path.parent.name}/{self.path.name}")


def _tensors(model: Reference) -> dict[str, Tensor]:
    """All weights and moments of a candidate."""
    tensors = {f"{MODEL}{name}": value for name, value in model.checkpoint().items()}
    return tensors | {f"{OPTIMISER}{name}": value for name, value in model.optimiser_state().items()}
