"""Where a live candidate stands after some rows: a file from which a killed trial, or a later rung of a race, goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from diet_ray.errors import CorruptArtefactError
from diet_ray.settings import whole_file
from diet_ray.storage.tensors import load_tensors, save_tensors
from diet_ray.training.reference import Reference

MODEL, OPTIMISER, LOGITS = "model/", "optimiser/", "logits/"


class LiveState:
    """The file of one trial and seed."""

    def __init__(self, path: Path) -> None:
        """`path` is of the file; its name must say all that the state depends on."""
        self.path = path

    def save(self, model: Reference, logits: list[np.ndarray]) -> None:
        """Write the state, complete or not at all.

        Args:
            model: the candidate.
            logits: per finished part of the rows the `[N, T]` float32 logits of the rows met.
        """
        tensors = {f"{MODEL}{name}": value for name, value in model.checkpoint().items()}
        tensors |= {f"{OPTIMISER}{name}": value for name, value in model.optimiser_state().items()}
        tensors |= {f"{LOGITS}{number:05d}": torch.from_numpy(part) for number, part in enumerate(logits)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
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
        parts = {
            prefix: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            for prefix in (MODEL, OPTIMISER, LOGITS)
        }
        try:
            model.load(parts[MODEL], parts[OPTIMISER])
        except (KeyError, RuntimeError) as error:
            raise CorruptArtefactError(f"{self.path}: not the state of this candidate ({error}); remove it") from error
        return [parts[LOGITS][name].numpy() for name in sorted(parts[LOGITS])]

    def remove(self) -> None:
        """Remove the file, where there is one."""
        self.path.unlink(missing_ok=True)
