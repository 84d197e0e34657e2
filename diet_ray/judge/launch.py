"""Launch: a candidate with a table of its own, started from a memory instead of a backfill of the log.

The table is a copy of the reference's, with Adam's moments. Net and table then learn the units for a fixed number of steps, with labels
drawn from the soft labels. What follows is live (`diet_ray.judge.live`). The recipe was chosen on early blocks: `docs/method.md`, "Launch".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field as Key
from torch import Tensor

from diet_ray.candidates import CandidateSpec
from diet_ray.config import StudentConfig
from diet_ray.judge.baselines import own_model
from diet_ray.judge.start import Start
from diet_ray.seeds import derive_seed
from diet_ray.settings import Settings
from diet_ray.training.adam import net_adam
from diet_ray.training.device import CPU, generator
from diet_ray.training.embedding import new_rows
from diet_ray.training.reference import Reference
from diet_ray.training.student import cosine, drawn, student_order
from diet_ray.training.table_rows import SORTED_AT_ONCE, rows_of_batches


class LaunchRecipe(Settings):
    """How a candidate learns the units of a memory before it goes live."""

    student: StudentConfig = StudentConfig(steps=200, batch_size=256, lr=3e-3, draw=0.75)
    """Steps, units per step, Adam's learning rate for the net, and the share of the labels that is drawn."""
    table_lr_scale: float = Key(default=0.4, ge=0, allow_inf_nan=False)
    """Factor on the table's learning rate at the first step. It falls to 0 as the net's rate does; live, the rate is that of the full log.
    Units are visited many times, and at the full rate a table learns single units by heart."""


def launch(start: Start, spec: CandidateSpec, *, seed: int, recipe: LaunchRecipe | None = None) -> Reference:
    """Start a candidate from a memory.

    Args:
        start: the memory, the table and its moments.
        spec: the candidate. Its `embedding_lr`, `embedding_l2` and `embedding_dim` hold for the launch and for what follows. A smaller
            width keeps the directions in which the table varies most; a larger one adds columns that are as new rows are.
        seed: of the net's initial parameters, the order of the units, the labels drawn and dropout.
        recipe: how the units are learned; by default the recipe of the bench.

    Returns:
        The candidate as a model that learns as on the full log: `Reference` with one net.

    Raises:
        ConfigError: the candidate does not fit the log's fields.
    """
    launching = Launching(start, spec, seed=seed, recipe=recipe)
    launching.advance(launching.steps)
    return launching.ready()


def table_alone(start: Start, spec: CandidateSpec, *, seed: int) -> Reference:
    """A candidate with the table and its moments, whose net has learned nothing: what a launch is before it learns the units."""
    return _with_table(start, spec, seed)[0]


def _with_table(start: Start, spec: CandidateSpec, seed: int) -> tuple[Reference, Width]:
    """A candidate with the table, and how the table was changed to the candidate's width."""
    model = own_model(spec, start.schema, start.reference, n_ids=len(start.table), seed=seed)
    dim, moments = model.config.dim, start.moments
    change = Width.of(start.table, dim, derive_seed(model.seed, "embedding"))
    with torch.no_grad():
        model.embedding.weight.copy_(change.table)
    if dim == start.table.shape[1]:  # moments of other columns say nothing about a table of another width
        model.table_optimiser.state[model.embedding.weight] = {
            "step": moments.step,
            "exp_avg": moments.exp_avg.clone(),
            "exp_avg_sq": moments.exp_avg_sq.clone(),
        }
    return model, change


@dataclass(frozen=True)
class Width:
    """A table, changed to another width, and the same change for the deltas of units."""

    table: Tensor
    """`[n_ids, d']`."""
    directions: Tensor | None
    """`[d, d']` with orthonormal columns, by which a table was made narrower; None where it was not."""

    @staticmethod
    def of(table: Tensor, dim: int, seed: int) -> Width:
        """The table with `dim` columns; `seed` is of columns that are added."""
        width = table.shape[1]
        if dim == width:
            return Width(table, None)
        if dim > width:
            return Width(torch.cat((table, new_rows(0, len(table), dim - width, seed)), dim=1), None)
        # Uncentred, because the map must leave padding, the zero vector, at zero. The last eigenvectors belong to the largest eigenvalues.
        _, vectors = torch.linalg.eigh(table.double().T @ table.double())
        directions = vectors[:, -dim:].flip(1)
        largest = directions.abs().argmax(dim=0)
        directions = directions * directions[largest, torch.arange(dim)].sign()  # an eigenvector's sign is free
        return Width(table @ directions.float(), directions.float())

    def delta(self, delta: Tensor) -> Tensor:
        """`[M, F, d]` to `[M, F, d']`: the deltas in the new columns; 0 in columns that were added."""
        if self.directions is not None:
            return delta @ self.directions
        return torch.nn.functional.pad(delta, (0, self.table.shape[1] - delta.shape[2]))


class Launching:
    """A candidate on its way: it learns the units, some steps at a time. Pauses do not change the result.

    Attributes:
        model: the candidate as it is now.
        steps: of the whole launch.
    """

    def __init__(self, start: Start, spec: CandidateSpec, *, seed: int, recipe: LaunchRecipe | None = None) -> None:
        """See `launch`."""
        recipe = recipe or LaunchRecipe()
        self.start, self.student, self.steps = start, recipe.student, recipe.student.steps
        self.model, change = _with_table(start, spec, seed)
        self._delta = change.delta(start.delta)
        self._moved = bool(self._delta.any())
        self._order = student_order(len(start.ids), self.student, seed)
        self._labels, self._done = generator(seed, "labels"), 0
        self._at_once = max(1, SORTED_AT_ONCE // (self.student.batch_size * start.ids.shape[1]))
        self._net_optimiser = net_adam(self.model.net.parameters())
        self._net_rate = cosine(self.student, spec.lr_scale)
        at_full_rate = self.student.model_copy(update={"lr": self.model.config.embedding_lr})
        self._table_rate = cosine(at_full_rate, recipe.table_lr_scale)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "dropout"))
            self._dropout = torch.get_rng_state()

    def advance(self, to: int) -> None:
        """Learn until `to` steps are done, of at most `steps`."""
        self.model.train()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._dropout)
            while self._done < to:
                self._learn(self._done, min(to, self._done + self._at_once))
            self._dropout = torch.get_rng_state()

    def ready(self) -> Reference:
        """The candidate after the last step, ready for live rows: its net's optimiser is new, its table's goes on at the full rate."""
        self.model.table_optimiser.param_groups[0]["lr"] = self.model.config.embedding_lr
        return self.model

    def _learn(self, begin: int, end: int) -> None:
        """The steps `begin..end` on batches of units."""
        model, start, picks = self.model, self.start, self._order[begin:end]
        slots, tasks = start.schema.field_of_slot, start.soft_label.shape[1]
        used = rows_of_batches([start.ids[pick].numpy() for pick in picks], slots, len(start.table), CPU)
        for step, pick, rows in zip(range(begin, end), picks, used, strict=True):
            for group in self._net_optimiser.param_groups:
                group["lr"] = self._net_rate(step)
            model.table_optimiser.param_groups[0]["lr"] = self._table_rate(step)
            target = drawn(start.soft_label[pick], self.student.draw, self._labels)
            shift = self._delta[pick] if self._moved else None
            model.learn(
                rows, target, start.weight[pick, None] / (len(pick) * tasks), optimiser=self._net_optimiser, shift=shift
            )
        self._done = end
