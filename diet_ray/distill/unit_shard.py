"""One shard of the memory and the operations of a stage on its units; `diet_ray.engine.owners` puts shards into actors."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diet_ray.candidates import CandidateSpec, build
from diet_ray.config import StreamConfig
from diet_ray.distill.address import choose_active, influence
from diet_ray.distill.align import Moments, align, moments
from diet_ray.distill.fuse import leaving
from diet_ray.memory.deltas import halved
from diet_ray.memory.run_folder import write_units
from diet_ray.memory.table_reader import LinkFile, TableReader
from diet_ray.memory.units import Units
from diet_ray.schema import Schema
from diet_ray.storage.entries import FileEntry
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.adam import RowAdam
from diet_ray.training.embedding import lookup
from diet_ray.training.predictor import Predictor
from diet_ray.training.student import Examples, FlatNet


class Leaving(NamedTuple):
    """The columns that decide which units leave a full memory; each `[M]`."""

    influence: np.ndarray
    block: np.ndarray
    unit_id: np.ndarray


class UnitShard:
    """Some of the units of M_t, ordered by unit id, in the space of phi_t.

    Refinement changes a working copy of deltas and logits, which is made at the first move: a shard that no round changes is not copied.
    The copy is float32, so that small steps add up; rounds and guard see its deltas as they will be kept, in half precision.
    """

    def begin(self, schema: Schema, config: StreamConfig) -> None:
        """Empty the shard for a run."""
        torch.set_num_threads(config.cluster.threads_per_worker)
        self.schema, self.config = schema, config
        self.hold(Units.empty(schema.n_slots, schema.n_fields, config.reference.dim, schema.n_tasks))

    def hold(self, units: Units) -> None:
        """Replace the units of the shard by `units`."""
        self.units = units
        self.influence = self.influence_before = units.influence
        self.working: tuple[RowAdam, RowAdam] | None = None

    def add(self, units: Units) -> None:
        """Add units."""
        self.hold(Units.concat([self.units, units]))

    def serve(self, checkpoint: Path, previous: list[LinkFile] | None) -> None:
        """Load phi from the checkpoint, and with `previous` keep the units' old embeddings, which a map needs.

        Of both tables only the rows that units name are read.
        """
        self.phi = self._predictor(checkpoint)
        self.old = None
        if previous is not None:
            self.old = TableReader(previous).embed(self.units.ids, self.schema.field_of_slot)

    def moments(self) -> Moments:
        """The units' part of the moments for the maps from the old space to that of phi."""
        assert self.old is not None
        return moments(self.old, self.phi.embed(self.units.ids))

    def align(self, maps: Tensor | None) -> None:
        """Step 5: move the units from the old space to that of phi (see `align`)."""
        new = self.phi.embed(self.units.ids)
        self.hold(align(self.units, self.old, new, maps, self.phi.logits, self.config.align.relabel))
        self.old = None

    def leaving(self, n: int) -> Leaving:
        """The `n` units that would leave first."""
        units = self.units
        first = leaving(units.influence, units.block, units.unit_id, n)
        return Leaving(units.influence[first], units.block[first], units.unit_id[first])

    def drop(self, unit_id: np.ndarray) -> None:
        """Remove units."""
        self.hold(self.units.take(~np.isin(self.units.unit_id, unit_id)))

    def count(self) -> int:
        """Number of units."""
        return len(self.units)

    def unit_ids(self) -> np.ndarray:
        """`[M]` int64, ascending."""
        return self.units.unit_id

    def take(self, rows: np.ndarray, refined: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs `[R, F, d]`, logits `[R, T]` and weights `[R]` at the positions `rows`, after refinement or as they were before it."""
        examples = self._examples(torch.tensor(rows), refined=refined)
        return examples.x.numpy(), examples.logit.numpy(), examples.weight.numpy()

    def measure(self, spec: CandidateSpec, theta: np.ndarray, direction: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
        """Measure the influence of every unit at a student's parameters along a gradient (see `influence`); stored with the units.

        Returns:
            The positions of the `n` units of largest absolute influence, ascending, and their influences.
        """
        dim, n_tasks = self.units.delta.shape[2], self.units.logit.shape[1]
        net = FlatNet(build(spec, self.schema.field_names, dim, n_tasks, seed=0).eval())
        everything = torch.arange(len(self.units))
        parts = [
            influence(net, torch.tensor(theta), torch.tensor(direction), self._examples(rows, refined=True))
            for rows in torch.split(everything, 8192)
        ]
        values = torch.cat(parts) if parts else torch.zeros(0)
        self.influence = values.numpy()
        if self.working is None:  # measured at units that refinement has not moved
            self.influence_before = self.influence
        active = choose_active(values, n)
        return active.numpy(), values[active].numpy()

    def move(self, rows: np.ndarray, by_delta: np.ndarray, by_logit: np.ndarray) -> None:
        """Move the units at the positions `rows` against a meta-gradient, by one Adam step with moments per unit."""
        if not len(rows):
            return
        if self.working is None:
            self.working = RowAdam(torch.tensor(self.units.delta)), RowAdam(torch.tensor(self.units.logit))
        at, refine = torch.tensor(rows), self.config.refine
        self.working[0].step(at, torch.tensor(by_delta), refine.delta_lr)
        self.working[1].step(at, torch.tensor(by_logit), refine.logit_lr)

    def settle(self, kept: bool) -> None:
        """End refinement: keep the refined units with their influence, or, where not `kept`, the old ones with the influence that they had
        before they were moved.
        """
        units = self.units.updated(influence=self.influence if kept else self.influence_before)
        if kept and self.working is not None:
            delta, logit = self.working
            units = units.updated(delta=halved(delta.values).numpy(), logit=logit.values.numpy())
        self.hold(units)

    def write(self, path: Path) -> FileEntry:
        """Write the units to a file; returns its manifest entry."""
        return write_units(path, self.units)

    def _examples(self, rows: Tensor, *, refined: bool) -> Examples:
        units = self.units
        index = rows.numpy()
        if refined and self.working is not None:
            delta, logit = halved(self.working[0].values[rows]), self.working[1].values[rows]
        else:
            delta, logit = torch.tensor(units.delta[index]), torch.tensor(units.logit[index])
        base = lookup(self.phi.table, torch.tensor(units.ids[index]), self.phi.field_of_slot)
        return Examples(base + delta, logit, torch.tensor(units.weight[index]))

    def _predictor(self, checkpoint: Path) -> Predictor:
        return Predictor(self.schema, self.config.reference.nets, load_tensors(checkpoint))
