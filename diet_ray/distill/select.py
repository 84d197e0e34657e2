"""Stage step 3: label-conditioned selection of the block's most informative rows, mergeable over shards.

Every (task, label) cell has a quota proportional to its size. A shard's `Sketch` keeps, per cell and stratum, the best rows by a key
that depends only on the row, so that merging sketches in any grouping gives the result of one pass over the whole block:

* `top`: the key is the score (the paper's caption: influential samples);
* `proportional`: log(u)/score, whose largest values are a weighted sample without replacement (Efraimidis & Spirakis 2006);
* `random`: u;
* `ccs`: u within equal-width strata of the score, filled from the rarest stratum up, the hardest rows set aside (Zheng et al. 2023).

`u` is a hash of the row id; ties are broken by the smaller row id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa

from diet_ray.config import SelectConfig
from diet_ray.distill.el2n import MAX_EL2N
from diet_ray.errors import ConfigError
from diet_ray.logs.blocks import Rows
from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.storage.arrays import column_of, from_ipc, to_ipc, values_of


@dataclass(frozen=True)
class Scored:
    """Rows with their scores: N rows, T tasks."""

    rows: Rows
    score: np.ndarray
    """`[N, T]` float32 EL2N."""
    probability: np.ndarray
    """`[N, T]` float32, mean over the checkpoints."""

    def take(self, index: np.ndarray) -> Scored:
        """The rows at the positions `index`."""
        return Scored(self.rows.take(index), self.score[index], self.probability[index])

    @staticmethod
    def concat(parts: list[Scored]) -> Scored:
        """All rows of `parts`, in order."""
        return Scored(
            Rows.concat([part.rows for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.probability for part in parts]),
        )


@dataclass(frozen=True)
class Sketch:
    """The summary of some shards of a block that selection needs: C = 2T cells (task * 2 + label), G strata."""

    counts: np.ndarray
    """`[C, G]` int64, rows seen."""
    cell: np.ndarray
    """`[M]` int64, cell of each kept row; a row may be kept for several tasks."""
    stratum: np.ndarray
    """`[M]` int64."""
    key: np.ndarray
    """`[M]` float64, larger is better."""
    scored: Scored
    """The kept rows."""

    def to_ipc(self) -> bytes:
        """The sketch as an Arrow IPC stream, to send it from a scorer to the leader."""
        rows = self.scored.rows
        columns = {
            "cell": self.cell,
            "stratum": self.stratum,
            "key": self.key,
            "row_id": rows.row_id,
            "time": rows.time,
            "user": rows.user,
            "ids": rows.ids,
            "labels": rows.labels,
            "score": self.scored.score,
            "probability": self.scored.probability,
        }
        table = pa.table({name: column_of(values) for name, values in columns.items()})
        table = table.replace_schema_metadata({"counts": json.dumps(self.counts.tolist())})
        return to_ipc(table)

    @staticmethod
    def from_ipc(data: bytes) -> Sketch:
        """Inverse of `to_ipc`."""
        table = from_ipc(data)
        columns = {name: values_of(table[name]) for name in table.column_names}
        rows = Rows(**{name: columns[name] for name in ("row_id", "time", "user", "ids", "labels")})
        counts = np.array(json.loads(table.schema.metadata[b"counts"]), dtype=np.int64)
        scored = Scored(rows, columns["score"], columns["probability"])
        return Sketch(counts, columns["cell"], columns["stratum"], columns["key"], scored)


def sketch(scored: Scored, config: SelectConfig, *, keep: int, seed: int) -> Sketch:
    """Sketch the rows of one shard.

    Args:
        scored: the shard's rows with their scores.
        config: strategy.
        keep: rows to keep per cell and stratum: the number of units to make from the whole block.
        seed: seed of the block's draw.

    Raises:
        ConfigError: a score is not finite: the reference has diverged.
    """
    _require_finite(scored)
    n_tasks = scored.score.shape[1]
    n_strata = config.ccs_strata if config.strategy == "ccs" else 1
    counts = np.zeros((2 * n_tasks, n_strata), dtype=np.int64)
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for task in range(n_tasks):
        score = scored.score[:, task].astype(np.float64)
        key = _key(score, scored.rows.row_id, config, derive_seed(seed, "select", task))
        cell = 2 * task + scored.rows.labels[:, task].astype(np.int64)
        stratum = np.minimum((score / MAX_EL2N * n_strata).astype(np.int64), n_strata - 1)
        np.add.at(counts, (cell, stratum), 1)
        best = _best(cell * n_strata + stratum, key, scored.rows.row_id, keep)
        kept.append((best, cell[best], stratum[best], key[best]))
    index, cells, strata, keys = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return Sketch(counts, cells, strata, keys, scored.take(index))


def merge(sketches: list[Sketch], *, keep: int) -> Sketch:
    """The sketch of the rows of all `sketches`; associative and commutative up to the order of the kept rows."""
    counts = np.sum([part.counts for part in sketches], axis=0)
    cell, stratum, key = (
        np.concatenate([getattr(part, name) for part in sketches]) for name in ("cell", "stratum", "key")
    )
    scored = Scored.concat([part.scored for part in sketches])
    best = _best(cell * counts.shape[1] + stratum, key, scored.rows.row_id, keep)
    return Sketch(counts, cell[best], stratum[best], key[best], scored.take(best))


def merge_as_they_come(sketches: Iterable[Sketch], *, keep: int) -> Sketch:
    """`merge` of at least one sketch, with at most two sketches in memory at a time."""
    return reduce(lambda whole, part: merge([whole, part], keep=keep), sketches)


def choose(whole: Sketch, config: SelectConfig, *, n: int) -> Scored:
    """The block's selected rows S_t, ordered by row id: `n` of them, fewer only where a cell runs out of rows.

    Cells choose in order; a row already chosen for one task is skipped by the next one, which chooses its next best row instead.
    """
    row_ids = whole.scored.rows.row_id
    chosen = np.zeros(0, dtype=np.int64)
    for cell, quota in enumerate(cell_quotas(whole.counts.sum(axis=1), n)):
        members = np.flatnonzero((whole.cell == cell) & ~np.isin(row_ids, row_ids[chosen]))
        members = members[np.lexsort((row_ids[members], -whole.key[members]))]
        strata = [members[whole.stratum[members] == stratum] for stratum in range(whole.counts.shape[1])]
        shares = _stratum_quotas(whole.counts[cell], np.array([len(rows) for rows in strata]), int(quota), config)
        chosen = np.concatenate([chosen, *(rows[:share] for rows, share in zip(strata, shares, strict=True))])
    return whole.scored.take(chosen[np.argsort(row_ids[chosen], kind="stable")])


def cell_quotas(cell_sizes: np.ndarray, n: int) -> np.ndarray:
    """`[C]` int64: `n` split over the cells in proportion to their sizes, by largest remainder, never more than the size of a cell.

    A row counts once per task, so the T tasks share `n` equally.
    """
    rows = int(cell_sizes.sum()) * 2 // len(cell_sizes)
    n = min(n, rows)
    exact = cell_sizes * (n / max(int(cell_sizes.sum()), 1))
    quotas = np.floor(exact).astype(np.int64)
    order = np.lexsort((np.arange(len(exact)), quotas - exact))
    quotas[order[: n - int(quotas.sum())]] += 1
    return np.asarray(np.minimum(quotas, cell_sizes))


def _require_finite(scored: Scored) -> None:
    bad = np.argwhere(~np.isfinite(scored.score))
    if len(bad):
        row, task = bad[0].tolist()
        raise ConfigError(
            f"key 'reference.lr': the reference has diverged: task {task} (from 0) of row {scored.rows.row_id[row]} has no finite score; "
            "lower reference.lr or reference.embedding_lr and start a new run"
        )


def _key(score: np.ndarray, row_id: np.ndarray, config: SelectConfig, seed: int) -> np.ndarray:
    if config.strategy == "top":
        return score
    u = uniform_by_id(row_id, seed)
    if config.strategy == "proportional":
        return np.asarray(np.log(u) / np.maximum(score, 1e-12))
    return u


def _best(group: np.ndarray, key: np.ndarray, row_id: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` largest keys of each group, ordered by group, key (descending) and row id."""
    order = np.lexsort((row_id, -key, group))
    ordered = group[order]
    first = np.searchsorted(ordered, ordered, side="left")
    return np.asarray(order[np.arange(len(order)) - first < keep])


def _stratum_quotas(counts: np.ndarray, free: np.ndarray, quota: int, config: SelectConfig) -> np.ndarray:
    """Split a cell's quota over its strata: as evenly as the `free` rows allow, the rarest first (Zheng et al. 2023, algorithm 1).

    `counts` are the rows of each stratum. `free` are those of its rows in the sketch that are not chosen yet; a sketch keeps at least
    `quota` rows per stratum, if there are so many.
    """
    if config.strategy != "ccs":
        return np.array([quota])
    # A stratum is set aside if it and all harder strata hold at most the share to cut, unless the quota needs their rows.
    harder = np.cumsum(counts[::-1])[::-1]
    open_rows = np.where(harder <= config.ccs_cut * counts.sum(), 0, free)
    if open_rows.sum() < quota:
        open_rows = free
    shares = np.zeros_like(counts)
    left = quota
    order = [stratum for stratum in np.lexsort((counts, np.minimum(open_rows, quota))) if open_rows[stratum]]
    for position, stratum in enumerate(order):
        shares[stratum] = min(open_rows[stratum], -(-left // (len(order) - position)))
        left -= int(shares[stratum])
    return shares
