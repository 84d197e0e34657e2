"""Selections of as many rows of the log as the memory has units: one class each, registered under its name.

A selection that needs the reference chooses in each block, by the reference of that block, and its row ids are stored. A selection without
a reference takes rows of all blocks at once; it is cheap, so its row ids are not stored. A new selection is a class here with
`@register("name")`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch

from diet_ray.config import StreamConfig
from diet_ray.distill.score import ScoreJob, score_rows
from diet_ray.distill.select import Scored, choose, sketch
from diet_ray.judge.baselines import random_rows
from diet_ray.judge.fidelity.coreset import Method as Geometry
from diet_ray.judge.fidelity.coreset import choose_by_features, grand
from diet_ray.logs.blocks import BlockManifest, Log, Rows
from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.predictor import Predictor


@dataclass(frozen=True)
class ScoredBlock:
    """A block and its reference, from which a selection chooses rows."""

    log: Log
    block: BlockManifest
    stream: StreamConfig
    """The config of the run of this reference."""
    checkpoints: list[Path]
    """Files of the K checkpoints of the block's reference, oldest first."""
    seed: int
    """Seed of the random draws."""

    @cached_property
    def rows(self) -> Rows:
        """All rows of the block."""
        return self.log.read_block(self.block)

    def predictor(self, k: int = -1) -> Predictor:
        """The k-th checkpoint, by default the last."""
        return Predictor(self.log.schema, self.stream.reference.nets, load_tensors(self.checkpoints[k]))


class Selection:
    """One way to select rows."""

    name: ClassVar[str]
    """Its name in a method, such as `ccs` in `ccs/soft/shared`."""
    needs_reference: ClassVar[bool] = False
    """Whether it implements `choose`; else `take`."""
    recipe: ClassVar[int | None] = None
    """A version, increased whenever it would take other rows than before, so that rows stored earlier are not used."""

    def take(self, log: Log, blocks: Sequence[BlockManifest], n: int, *, seed: int) -> Rows:
        """`n` rows of the blocks, in order of row id."""
        raise NotImplementedError

    def choose(self, block: ScoredBlock, n: int) -> np.ndarray:
        """`[n]` int64: ids of the rows that it takes of a block."""
        raise NotImplementedError


S = TypeVar("S", bound=type[Selection])
_REGISTRY: dict[str, Selection] = {}


def register(name: str) -> Callable[[S], S]:
    """Register a selection under a name."""

    def add(kind: S) -> S:
        kind.name = name
        _REGISTRY[name] = kind()
        return kind

    return add


@register("random")
class Random(Selection):
    """Rows drawn uniformly from all blocks."""

    def take(self, log: Log, blocks: Sequence[BlockManifest], n: int, *, seed: int) -> Rows:
        """See `Selection.take`."""
        return random_rows(log, list(blocks), n, seed=derive_seed(seed, "sample"))


@register("top-el2n")
class TopEl2n(Selection):
    """The highest EL2N of each label (Paul et al. 2021), as in the stream's own strategy `top`."""

    needs_reference = True
    strategy: ClassVar[str] = "top"

    def choose(self, block: ScoredBlock, n: int) -> np.ndarray:
        """See `Selection.choose`."""
        select = block.stream.select.model_copy(update={"strategy": self.strategy})
        stream = block.stream.model_copy(update={"select": select})
        job = ScoreJob.of(block.log, block.block, block.checkpoints, stream, keep=n, seed=block.seed)
        whole = score_rows(job, block.log.iter_block(block.block))
        return choose(whole, select, n=n).rows.row_id


@register("ccs")
class CoverageCentric(TopEl2n):
    """Coverage-centric strata of EL2N (Zheng et al. 2023), as in the stream's own strategy `ccs`."""

    strategy = "ccs"
    recipe = 2


@register("grand")
class GraNd(Selection):
    """The largest gradient norm of each label, mean over the checkpoints (Paul et al. 2021)."""

    needs_reference = True

    def choose(self, block: ScoredBlock, n: int) -> np.ndarray:
        """See `Selection.choose`."""
        rows, labels = block.rows, torch.tensor(block.rows.labels)
        phis = [block.predictor(k) for k in range(block.stream.reference.checkpoints)]
        score = torch.stack([grand(phi.net, phi.embed(rows.ids), labels) for phi in phis]).mean(dim=0).numpy()
        top = block.stream.select.model_copy(update={"strategy": "top"})
        whole = sketch(Scored(rows, score, np.zeros_like(score)), top, keep=n, seed=block.seed)
        return choose(whole, top, n=n).rows.row_id


@register("herding")
class Herding(Selection):
    """The rows whose mean embedding comes closest to the block's (Welling 2009)."""

    needs_reference = True
    geometry: ClassVar[Geometry] = "herding"

    def choose(self, block: ScoredBlock, n: int) -> np.ndarray:
        """See `Selection.choose`."""
        features = block.predictor().embed(block.rows.ids).flatten(1).numpy()
        return np.asarray(block.rows.row_id[choose_by_features(block.rows, features, n, self.geometry)])


@register("k-center")
class KCenter(Herding):
    """Rows chosen so that every row of the block is near one of them (Sener & Savarese 2018)."""

    geometry: ClassVar[Geometry] = "k_center"


@register("last-block")
class LastBlock(Selection):
    """Rows drawn uniformly from the last block alone."""

    def take(self, log: Log, blocks: Sequence[BlockManifest], n: int, *, seed: int) -> Rows:
        """See `Selection.take`."""
        last = log.read_block(blocks[-1])
        drawn = uniform_by_id(last.row_id, derive_seed(seed, "sample", "rows"))
        return last.take(np.sort(np.argsort(drawn, kind="stable")[:n]))


@register("most-recent")
class MostRecent(Selection):
    """The latest rows."""

    def take(self, log: Log, blocks: Sequence[BlockManifest], n: int, *, seed: int) -> Rows:
        """See `Selection.take`."""
        parts: list[Rows] = []
        for block in reversed(blocks):
            parts.insert(0, log.read_block(block))
            if sum(len(part) for part in parts) >= n:
                break
        rows = Rows.concat(parts)
        latest = np.lexsort((rows.row_id, rows.time))[-n:]
        return rows.take(np.sort(latest))


SELECTIONS = tuple(_REGISTRY)
"""The names of all selections."""


def selection(name: str) -> Selection | None:
    """The selection of that name; None where there is none."""
    return _REGISTRY.get(name)
