"""The synthetic memory M_t in N shards, as the stream works on it.

Operations on units run in the shard that holds them (`unit_shard.py`); this module makes the decisions that need all shards. Only fresh
units, the units of a round and one number per unit pass through a worker, never the whole memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diet_ray.candidates import CandidateSpec
from diet_ray.config import AlignConfig, BudgetConfig, StreamConfig
from diet_ray.distill.address import choose_active
from diet_ray.distill.align import Moments, field_maps
from diet_ray.distill.fuse import leaving
from diet_ray.distill.unit_shard import UnitShard
from diet_ray.memory.layout import memory_shard
from diet_ray.memory.run_folder import read_units
from diet_ray.memory.table_reader import LinkFile
from diet_ray.memory.units import Units, shard_of, split
from diet_ray.schema import Schema
from diet_ray.storage.entries import FileEntry, check_file
from diet_ray.training.student import Examples


class Shards(Protocol):
    """Access to the shards."""

    size: int
    """N, the number of shards."""

    def call(self, method: str, *arguments: Any, each: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """Call a method of every shard, with the same arguments or with those in `each` per shard; returns the results in order."""
        ...


class LocalShards:
    """Shards in this process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.shards = [UnitShard() for _ in range(size)]

    def call(self, method: str, *arguments: Any, each: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """See `Shards.call`."""
        own = each if each is not None else [arguments] * self.size
        return [getattr(shard, method)(*given) for shard, given in zip(self.shards, own, strict=True)]


class ShardedMemory:
    """M_t for one worker. Only the leader calls methods that change it; all workers call methods that read it."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.unit_id = np.zeros(0, np.int64)
        self.places: list[np.ndarray] = []

    def begin(self, schema: Schema, config: StreamConfig) -> None:
        """Empty all shards for a run."""
        self.shards.call("begin", schema, config)

    def load(self, folder: Path, entries: list[FileEntry]) -> None:
        """Load a committed memory, one file at a time. Raises CorruptArtefactError where a file is damaged."""
        for entry in entries:
            self.add(read_units(check_file(folder, entry)))

    def add(self, units: Units) -> None:
        """Put each unit into its shard."""
        self.shards.call("add", each=[(part,) for part in split(units, self.shards.size)])

    def align(self, previous: list[LinkFile] | None, checkpoint: Path, config: AlignConfig) -> None:
        """Step 5: move M_{t-1} from the space of phi_{t-1} to that of phi_t; before the first stage there is no memory.

        Args:
            previous: the files of phi_{t-1}, of which the owners of the units read the rows that they need; None before the first stage.
            checkpoint: the file of phi_t.
            config: of the alignment.
        """
        mapped = previous is not None and config.method != "reembed"
        self.shards.call("serve", checkpoint, previous if mapped else None)
        if previous is None:
            return
        maps: Tensor | None = None
        if mapped:
            parts: list[Moments] = self.shards.call("moments")
            maps = field_maps(sum(parts[1:], parts[0]), config.method)
        self.shards.call("align", maps)

    def fuse(self, fresh: Units, config: BudgetConfig) -> None:
        """Step 6: add the fresh units; under a cap, the old units of lowest influence leave (see `leaving`).

        Fresh units stay: their influence is measured only in refinement.
        """
        over = self.count() + len(fresh) - config.cap if config.cap is not None else 0
        if over > 0:
            parts = self.shards.call("leaving", over)
            influence, block, unit_id = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            first = leaving(influence, block, unit_id, over)
            self.shards.call("drop", unit_id[first])
        self.add(fresh)

    def count(self) -> int:
        """Number of units."""
        return sum(self.shards.call("count"))

    def open(self) -> None:
        """Read the unit ids of all shards: from here on a unit's position is its rank by unit id over all shards."""
        self.unit_id = np.sort(np.concatenate(self.shards.call("unit_ids")))
        shard = shard_of(self.unit_id, self.shards.size)
        self.places = [np.flatnonzero(shard == number) for number in range(self.shards.size)]

    def __len__(self) -> int:
        return len(self.unit_id)

    def take(self, rows: Tensor, *, refined: bool = True) -> Examples:
        """The units at the positions `rows [R]` (int64, ascending), as they are after refinement or as they were before it."""
        by_shard = self._split(rows.numpy())
        parts = self.shards.call("take", each=[(local, refined) for _, local in by_shard])
        columns = []
        for pieces in zip(*parts, strict=True):
            column = np.empty((len(rows), *pieces[0].shape[1:]), pieces[0].dtype)
            for (where, _), values in zip(by_shard, pieces, strict=True):
                column[where] = values
            columns.append(torch.from_numpy(column))
        return Examples(*columns)

    def measure(self, spec: CandidateSpec, theta: Tensor, direction: Tensor, n: int) -> Tensor:
        """Measure the influence of all units; returns the positions of the `n` of largest absolute influence, ascending."""
        parts = self.shards.call("measure", spec, theta.numpy(), direction.numpy(), n)
        rows = np.concatenate([place[local] for place, (local, _) in zip(self.places, parts, strict=True)])
        values = np.concatenate([influence for _, influence in parts])
        order = np.argsort(rows, kind="stable")
        chosen: Tensor = torch.from_numpy(rows[order])[choose_active(torch.from_numpy(values[order]), n)]
        return chosen

    def move(self, rows: Tensor, by_delta: Tensor, by_logit: Tensor) -> None:
        """Move the units at the positions `rows [R]` (ascending) against `by_delta [R, F, d]` and `by_logit [R, T]`."""
        delta, logit = by_delta.numpy(), by_logit.numpy()
        by_shard = self._split(rows.numpy())
        self.shards.call("move", each=[(local, delta[where], logit[where]) for where, local in by_shard])

    def settle(self, *, kept: bool) -> None:
        """End refinement and keep the refined units, or the old ones where not `kept`."""
        self.shards.call("settle", kept)

    def write(self, folder: Path) -> list[FileEntry]:
        """Write one file per shard into the folder of a stage; returns the manifest entries."""
        entries: list[FileEntry] = self.shards.call(
            "write", each=[(memory_shard(folder, number),) for number in range(self.shards.size)]
        )
        return entries

    def _split(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per shard, which of `rows` it holds (positions within `rows`) and their positions within the shard."""
        local = [np.searchsorted(place, rows) for place in self.places]
        split = []
        for place, at in zip(self.places, local, strict=True):
            in_shard = at < len(place)
            in_shard[in_shard] = place[at[in_shard]] == rows[in_shard]
            split.append((np.flatnonzero(in_shard), at[in_shard]))
        return split
