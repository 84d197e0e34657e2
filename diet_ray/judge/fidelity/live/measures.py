"""How well the losses of a block's first rows tell which candidates the full log finds best on the whole block. NumPy in, floats out.

C candidates meet B judging blocks. The truth is the mean loss over a whole block of the candidates that were trained on all rows before,
the mean over their S seeds. It is compared with the mean loss over the first rows of the block of candidates that had another start, the
mean over their seeds. Every measure is computed in each block and averaged over the blocks.

The rules for trainings that diverged are those of `diet_ray.judge.fidelity.measures`: on the full log, a candidate is left out; from
another start, it has the worst loss of that start, and its gap is ignored.

Intervals are a bootstrap over candidates, seeds, and parts of `PART` rows that follow each other in time (rows that are close in time are
alike: a moving block bootstrap without overlap). All starts have the same draws, so that they are compared pairwise. Judging blocks are not
drawn: the intervals speak of these blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diet_ray.judge.fidelity.measures import (
    Interval,
    Measure,
    Noise,
    correlation,
    interval,
    kendall_and_pairs,
    ranked,
    ratio,
    regrets,
    resample,
)
from diet_ray.judge.live import rows_met
from diet_ray.seeds import derive_seed, numpy_generator

PART = 256
"""Rows of a part that the bootstrap draws as one: as many as a batch."""

MEASURES = {
    "spearman": Measure("Spearman", True),
    "one_seed": Measure("Spearman, one seed", True),
    "kendall": Measure("Kendall tau-b", True),
    "pairs_right": Measure("pairs right", True),
    "pairs": Measure("pairs", None),
    "top1_regret": Measure("regret@1, nats", False),
    "top3_regret": Measure("regret@3, nats", False),
    "gap": Measure("mean gap, nats", False),
    "diverged": Measure("diverged", None),
    "left_out": Measure("left out", None),
}
"""All measures, in the order of a table.

* `spearman`, `kendall`: correlation of the two mean losses over candidates. `one_seed`: Spearman of a single seed from this start with the
  truth, the mean over the seeds.
* `pairs`: pairs of candidates whose losses on the full log differ significantly (two-sided t at 5 %, pooled noise of a seed), the mean over
  the blocks; `pairs_right`: the share of them that is ordered alike.
* `top1_regret`, `top3_regret`: nats on the full log that are lost by taking the candidate that looks best, or the best of the three.
* `gap`: mean distance of a candidate's loss from its loss on the same rows after training on the full log.
"""


@dataclass(frozen=True)
class Losses:
    """The losses of C candidates with S seeds on the rows of one judging block, of one task: sums over parts of the rows."""

    sums: np.ndarray
    """`[C, S, P]` float64: sum over each part, nan where a training diverged in it; of the first parts only where few rows were met."""
    rows: np.ndarray
    """`[P]` int64: rows of each part."""


def parts(rows: int, shares: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a block: their first rows, and for each the number of the share in which it lies; parts do not cross shares."""
    ends = [*(rows_met(rows, share) for share in shares), rows]
    begins = [0, *ends[:-1]]
    firsts = [np.arange(begin, end, PART) for begin, end in zip(begins, ends, strict=True)]
    return np.concatenate(firsts), np.repeat(np.arange(len(firsts)), [len(first) for first in firsts])


def summed(losses: np.ndarray, rows: int, shares: list[float]) -> Losses:
    """Sum losses over parts.

    Args:
        losses: `[C, S, n]`, the losses of the first n of the block's rows; n is the whole block or ends at a share.
        rows: rows of the block.
        shares: ascending, as in the config.
    """
    first, _ = parts(rows, shares)
    met = first[first < losses.shape[2]]
    sums = np.add.reduceat(losses.astype(np.float64), met, axis=2)
    return Losses(sums, np.diff(met, append=losses.shape[2]))


class Draws:
    """The draws of a bootstrap: the first is everything once, the others are resampled. They depend on the seed and the sizes alone."""

    def __init__(self, rows: list[int], shares: list[float], *, seed: int, replicates: int) -> None:
        self.seed, self.replicates = seed, replicates
        self.strata = [parts(n, shares)[1] for n in rows]
        """Per block `[P]`: the number of the share in which each part lies."""
        self.weights = [self._weights(number, stratum) for number, stratum in enumerate(self.strata)]
        """Per block `[1 + replicates, P]`: how often each part was drawn."""

    def of(self, purpose: str, n: int) -> np.ndarray:
        """`[1 + replicates, n]` int64: numbers below n; `purpose` is `candidates`, `full` or `other`."""
        return np.concatenate([np.arange(n)[None], resample(purpose, n, seed=self.seed, replicates=self.replicates)])

    def means(self, losses: Losses, block: int, share: int) -> np.ndarray:
        """`[C, S, 1 + replicates]`: the mean loss over the rows up to a share (by its number), or over all (-1)."""
        stratum = self.strata[block]
        n = len(stratum) if share < 0 else int((stratum <= share).sum())
        weight = self.weights[block][:, :n]
        return np.asarray((losses.sums[:, :, :n] @ weight.T) / (weight @ losses.rows[:n]))

    def _weights(self, number: int, stratum: np.ndarray) -> np.ndarray:
        rng = numpy_generator(derive_seed(self.seed, "bootstrap", "rows", number))
        drawn = [
            rng.multinomial(n, np.full(n, 1 / n), size=self.replicates) for n in np.bincount(stratum).tolist() if n
        ]
        return np.concatenate([np.ones((1, len(stratum))), np.concatenate(drawn, axis=1)]).astype(np.float64)


Replicates = dict[str, np.ndarray]
"""`{measure: [1 + replicates]}`: the value, then its replicates; nan where undefined."""


def compare(full: list[Losses], other: list[Losses], share: int, noise: Noise, draws: Draws) -> Replicates:
    """Every measure of a start.

    Args:
        full: per judging block, the candidates that were trained on all rows before.
        other: the same candidates from another start; or the same objects, for the ceiling of so few rows.
        share: number of the share after which the start is measured; -1 for the whole block.
        noise: of a single seed's mean loss over a whole block, on the full log.
        draws: of the bootstrap.
    """
    kept = known(full)
    if not kept.any():
        return _undefined(draws, kept)
    seeds = full[0].sums.shape[1], other[0].sums.shape[1]
    candidates, full_seeds, other_seeds = (
        draws.of(purpose, n)
        for purpose, n in zip(("candidates", "full", "other"), (int(kept.sum()), *seeds), strict=True)
    )
    if other is full:
        other_seeds = full_seeds
    of_blocks = []
    for number, (of_full, of_other) in enumerate(zip(full, other, strict=True)):
        truth = _drawn(draws.means(of_full, number, -1)[kept], candidates, full_seeds)
        same_rows = _drawn(draws.means(of_full, number, share)[kept], candidates, full_seeds)
        single = _drawn(draws.means(of_other, number, share)[kept], candidates, other_seeds)
        of_blocks.append(
            _measured(truth.mean(axis=2), same_rows.mean(axis=2), single, candidates, noise, truth.shape[2])
        )
    measured = _mean(of_blocks)
    return measured | {"left_out": np.full(len(candidates), float((~kept).sum()))}


def another_seed(full: list[Losses], share: int, noise: Noise, draws: Draws) -> Replicates:
    """Every measure of one seed of the full log against the mean of the others, averaged over the seeds, which are not resampled."""
    n, kept, of_seeds = full[0].sums.shape[1], known(full), []
    if n < 2 or not kept.any():
        return _undefined(draws, kept)
    candidates = draws.of("candidates", int(kept.sum()))
    for seed in range(n):
        rest = np.tile(np.delete(np.arange(n), seed), (len(candidates), 1))
        alone = np.full((len(candidates), 1), seed)
        for number, of_full in enumerate(full):
            whole, few = draws.means(of_full, number, -1)[kept], draws.means(of_full, number, share)[kept]
            truth, same_rows = (_drawn(means, candidates, rest).mean(axis=2) for means in (whole, few))
            of_seeds.append(_measured(truth, same_rows, _drawn(few, candidates, alone), candidates, noise, n - 1))
    measured = _mean(of_seeds)
    return measured | {"left_out": np.full(len(candidates), float((~kept).sum()))}


def blind(full: list[Losses], draws: Draws) -> Replicates:
    """What a choice without any information reaches, in expectation: the chance line."""
    kept = known(full)
    if not kept.any():
        return _undefined(draws, kept)
    candidates, seeds = draws.of("candidates", int(kept.sum())), draws.of("full", full[0].sums.shape[1])
    of_blocks = []
    for number, of_full in enumerate(full):
        truth = np.sort(_drawn(draws.means(of_full, number, -1)[kept], candidates, seeds).mean(axis=2), axis=1)
        lost = truth - truth[:, :1]
        # The smallest of three that are drawn without replacement is the one in place i where the two others come after it.
        after = np.arange(truth.shape[1])[::-1]
        chance = after * (after - 1.0)
        three = (lost * chance).sum(axis=1) / chance.sum() if chance.any() else np.full(len(lost), np.nan)
        of_blocks.append({"top1_regret": lost.mean(axis=1), "top3_regret": three})
    measured = _mean(of_blocks)
    n = len(candidates)
    return (
        {name: np.full(n, np.nan) for name in MEASURES}
        | measured
        | {"spearman": np.zeros(n), "one_seed": np.zeros(n), "kendall": np.zeros(n), "pairs_right": np.full(n, 0.5)}
    )


def known(full: list[Losses]) -> np.ndarray:
    """`[C]` bool: the candidates that diverged with no seed in no block on the full log."""
    return np.asarray(np.all([np.isfinite(losses.sums).all(axis=(1, 2)) for losses in full], axis=0))


def whole_means(full: list[Losses]) -> Iterator[np.ndarray]:
    """Per block `[C, S]`: the mean loss over the whole block; nan where a training diverged."""
    for losses in full:
        yield losses.sums.sum(axis=2) / losses.rows.sum()


def intervals(replicates: Replicates) -> dict[str, Interval]:
    """The 95 % percentile interval of every measure."""
    return {name: interval(float(replicates[name][0]), replicates[name][1:]) for name in MEASURES}


def minus(first: Replicates, second: Replicates) -> dict[str, Interval]:
    """Every measure of `first` minus that of `second`, on the same draws."""
    return intervals({name: first[name] - second[name] for name in MEASURES})


def _drawn(means: np.ndarray, candidates: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """`[R, C, S]` from `means [C, S, R]`: in each replicate the drawn candidates and seeds."""
    replicate = np.arange(len(candidates))[:, None, None]
    return np.asarray(means.transpose(2, 0, 1)[replicate, candidates[:, :, None], seeds[:, None, :]])


def _undefined(draws: Draws, kept: np.ndarray) -> Replicates:
    """The measures where nothing can be compared."""
    n = draws.replicates + 1
    return dict.fromkeys(MEASURES, np.full(n, np.nan)) | {"left_out": np.full(n, float((~kept).sum()))}


def _mean(parts: list[Replicates]) -> Replicates:
    """The mean of every measure over blocks or seeds; where it is defined in some of them only, over those."""
    means = {}
    for name in parts[0]:
        values = np.stack([part[name] for part in parts])
        defined = ~np.isnan(values)
        means[name] = ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))
    return means


def _measured(
    truth: np.ndarray, same_rows: np.ndarray, single: np.ndarray, candidates: np.ndarray, noise: Noise, n_seeds: int
) -> Replicates:
    """All measures in one block; `truth` and `same_rows` are `[R, C]`, `single` `[R, C, S]`."""
    diverged = ~np.isfinite(single)
    worst = np.nanmax(np.where(diverged, np.nan, single), axis=(1, 2), keepdims=True, initial=-np.inf)
    single = np.where(diverged, np.where(np.isfinite(worst), worst, 0.0), single)
    mean = single.mean(axis=2)
    gap = np.where(diverged.any(axis=2), np.nan, np.abs(mean - same_rows))
    ranks = ranked(truth)
    one_seed = np.mean([correlation(ranks, ranked(single[:, :, s])) for s in range(single.shape[2])], axis=0)
    return {
        "spearman": correlation(ranks, ranked(mean)),
        "one_seed": one_seed,
        # Both functions take what is better to be larger.
        **regrets(-truth, -mean, candidates),
        **kendall_and_pairs(-truth, -mean, noise.significant(n_seeds)),
        "gap": ratio(np.nansum(gap, axis=1), np.isfinite(gap).sum(axis=1)),
        "diverged": diverged.sum(axis=(1, 2)).astype(np.float64),
    }
