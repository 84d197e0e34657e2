"""The table of a stage, whole or as the rows that changed since the stage before.

    checkpoint-2.safetensors   `net.*` and `table [n_ids, d]`; or `table [R, d]` with `table/rows [R]` int32, the ids of these rows
    optimiser.safetensors      the same of the moments: `table/exp_avg` and `table/exp_avg_sq`, `[n_ids, d]` or `[R, d]` with `table/rows`

A stage whose manifest names a stage as `whole` has such rows: its table is that stage's, then the rows of each stage after it, in order. A
pass changes only the rows that it looks up, and a row that is new is among them too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.memory.facts import StageFacts
from diet_ray.memory.pruning import pruned, stage_file
from diet_ray.memory.table_chain import OF_TABLE, ROWS, broken, links, rows_problem
from diet_ray.storage.entries import FileEntry
from diet_ray.storage.tensors import load_tensors, save_tensors


def save_rows(path: Path, tensors: dict[str, Tensor], rows: np.ndarray) -> None:
    """Write tensors with only these rows of those that have one for each id."""
    at = torch.from_numpy(rows).long()
    picked = {name: value[at] if name in OF_TABLE else value for name, value in tensors.items()}
    save_tensors(path, {**picked, ROWS: torch.from_numpy(rows)})


def load_checkpoint(folder: Path, stage: StageFacts) -> dict[str, Tensor]:
    """The last checkpoint of a stage, `table` whole and `net.*`.

    Args:
        folder: the stage's; the stages on which its table builds are beside it.
        stage: its manifest.

    Raises:
        ConfigError: it was pruned.
        CorruptArtefactError: a file is missing or damaged, or a stage on which it builds is not there.
    """
    return _put_together(folder, stage, lambda link: link.checkpoints[-1])


def load_optimiser(folder: Path, stage: StageFacts) -> dict[str, Tensor]:
    """The moments at the end of a stage, those of the table whole. Raises as `load_checkpoint`."""
    return _put_together(folder, stage, lambda link: link.optimiser)


def _put_together(folder: Path, stage: StageFacts, entry: Callable[[StageFacts], FileEntry]) -> dict[str, Tensor]:
    (first, whole), *later = links(folder, stage)
    tensors = load_tensors(_of_link(folder, stage, first, whole, entry))
    if not later:
        return tensors
    _check_shapes(tensors, whole.n_ids, first / entry(whole).path)
    parts, n_ids = [], whole.n_ids
    for place, link in later:  # all are checked before anything is allocated by what their manifests claim
        path = _of_link(folder, stage, place, link, entry)
        newer = load_tensors(path)
        rows = newer.pop(ROWS, torch.zeros(0, dtype=torch.int32)).long()
        problem = rows_problem(rows.numpy(), n_ids, link.n_ids)
        if problem:
            raise CorruptArtefactError(f"{path}, tensor {ROWS!r}: {problem}; restore it from a copy")
        _check_shapes(newer, len(rows), path)
        parts.append((rows, newer))
        n_ids = link.n_ids
    # The first file is mapped privately: writing to its rows copies their pages and leaves the file as it is.
    for name in OF_TABLE:
        if name in tensors and n_ids > whole.n_ids:
            old = tensors[name]
            tensors[name] = torch.cat((old, old.new_zeros(n_ids - len(old), old.shape[1])))
    for rows, newer in parts:
        for name, value in newer.items():
            if name in OF_TABLE and name in tensors:
                tensors[name][rows] = value
            else:
                tensors[name] = value
    return tensors


def _of_link(
    folder: Path, stage: StageFacts, place: Path, link: StageFacts, entry: Callable[[StageFacts], FileEntry]
) -> Path:
    try:
        return stage_file(place, entry(link))
    except (ConfigError, CorruptArtefactError) as error:
        record = pruned(folder)  # looked at only now: a stage may be pruned, with its links, while it is being opened
        if record and entry(stage).path in record.names:
            raise record.refusal(folder) from None
        if link.index == stage.index:
            raise
        raise broken(folder, stage, link.index, f"is damaged ({error})") from error


def _check_shapes(tensors: dict[str, Tensor], n: int, path: Path) -> None:
    for name in OF_TABLE:
        value = tensors.get(name)
        if value is not None and (value.dim() != 2 or len(value) != n):
            raise CorruptArtefactError(
                f"{path}, tensor {name!r}: {list(value.shape)} for {n} rows; restore it from a copy"
            )
