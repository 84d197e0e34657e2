"""Which stages a table is put together from, and which rows a stage writes; `tables.py` reads and writes them. No torch is needed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diet_ray.errors import CorruptArtefactError
from diet_ray.memory.facts import StageFacts
from diet_ray.memory.layout import MANIFEST, stage_name
from diet_ray.settings import parse_json
from diet_ray.storage.hashes import sha256

if TYPE_CHECKING:
    from diet_ray.config import CheckpointsConfig

ROWS = "table/rows"
"""Ids of the rows in a file that has not all."""

MOST = 1.3
"""A whole table is written where that takes at most so many times the bytes of the changed rows."""

OF_TABLE = ("table", "table/exp_avg", "table/exp_avg_sq")
"""The tensors that have a row for each id."""


class ChangedRows:
    """The rows of the table that a pass may change: all that it looks up, and those that are new."""

    def __init__(self, n_before: int, n_ids: int) -> None:
        self._changed = np.zeros(n_ids, bool)
        self._changed[n_before:] = True

    def note(self, ids: np.ndarray) -> None:
        """Note the ids `[N, S]` of rows on which the reference trains."""
        self._changed[ids] = True

    def rows(self) -> np.ndarray:
        """`[R]` int32, ascending; never row 0, the padding."""
        self._changed[0] = False
        return np.flatnonzero(self._changed).astype(np.int32)


def builds_on(last: StageFacts | None, config: CheckpointsConfig, rows: np.ndarray, n_ids: int) -> int | None:
    """The stage on whose whole table the next stage builds, which then writes only `rows`; None where it is to write its table whole."""
    if last is None or config.keep == "all" or MOST * len(rows) >= n_ids:
        return None
    whole = last.index if last.whole is None else last.whole
    return whole if last.index + 1 - whole < config.whole_every else None


def links(folder: Path, stage: StageFacts) -> list[tuple[Path, StageFacts]]:
    """The stages of which a stage's table is put together, each with its folder: the one with a whole table first, the stage itself last.

    Raises CorruptArtefactError where one is not beside it.
    """
    found = [(folder, stage)]
    while stage.whole is not None and found[0][1].index > stage.whole:
        later = found[0][1]
        before = folder.parent / stage_name(later.index - 1)
        if not (before / MANIFEST).is_file() or sha256(before / MANIFEST) != later.parent_sha256:
            raise broken(folder, stage, later.index - 1, "is not beside it")
        found.insert(0, (before, parse_json(StageFacts, before / MANIFEST)))
    if found[0][1].whole is not None:
        raise broken(folder, stage, found[0][1].index, "has no whole table")
    return found


def broken(folder: Path | str, stage: StageFacts, link: int, problem: str) -> CorruptArtefactError:
    """The error of a stage whose table cannot be put together."""
    return CorruptArtefactError(
        f"{folder}: its table builds on those of stages {stage_name(stage.whole or 0)} to {stage_name(stage.index - 1)}, and stage "
        f"{stage_name(link)} {problem}; restore that from a copy, or open a stage before it"
    )


def rows_problem(rows: np.ndarray, n_before: int | None, n_ids: int) -> str | None:
    """What is wrong with the ids `[R]` of a stage's rows; None where nothing is. `n_before`: ids of the stage before, where it is known."""
    if len(rows) and (rows[0] < 1 or rows[-1] >= n_ids or not _ascending(rows)):
        return f"not ascending ids from 1 to {n_ids - 1}"
    if n_before is not None and len(rows) - int(np.searchsorted(rows, n_before)) != n_ids - n_before:
        return f"lacks some of the ids {n_before} to {n_ids - 1}, which are new"
    return None


def _ascending(rows: np.ndarray, piece: int = 1 << 20) -> bool:
    """Whether each number is above the one before, looked at in pieces: the rows may be a mapped file."""
    parts = (rows[start : start + piece + 1] for start in range(0, len(rows), piece))
    return all(bool((part[1:] > part[:-1]).all()) for part in parts)
