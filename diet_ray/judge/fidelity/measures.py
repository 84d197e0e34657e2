"""How well results on a reduced training set predict those on the full log: measures over a pool of candidates. NumPy in, floats out.

C candidates are trained with S seeds on the full log and with R seeds on a reduced set. Every measure is a function of the means over
seeds. Two rules hold for trainings that diverged, whose metrics are nan:

* on the full log, a candidate with any diverged seed is left out of all measures: its true result is unknown (`left_out` counts them);
* on a reduced set, a diverged training predicts AUC 0.5, or the set's worst AUC where that is lower, so that a candidate which always
  diverges ranks last; its log loss is ignored (`diverged` counts such trainings).

A measure that its input does not define is nan, never an error or a warning: a correlation with a constant, the share of right pairs
where no pair is significant, everything where no candidate is left.

Uncertainty is a bootstrap over candidates and over seeds (Efron & Tibshirani 1993). Its draws depend on the seed and the sizes alone, so
that two reduced sets are compared on the same draws (`difference`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import rankdata, t

from diet_ray.seeds import derive_seed, numpy_generator
from diet_ray.settings import Metric, Settings

CHANCE = 0.5
TAIL = 0.025


@dataclass(frozen=True)
class Results:
    """Results of one task on one training set: C candidates, S seeds, nan where a training diverged.

    A column is one seed, and the bootstrap draws whole columns: trainings that share a reference model are averaged into one column first.
    Raises ValueError where the two are not matrices of the same shape.
    """

    auc: np.ndarray
    """`[C, S]` float64."""
    logloss: np.ndarray
    """`[C, S]` float64, nats."""

    def __post_init__(self) -> None:
        if self.auc.ndim != 2 or self.auc.shape != self.logloss.shape:
            raise ValueError(f"auc {self.auc.shape} and logloss {self.logloss.shape} must be [C, S] both")


@dataclass(frozen=True)
class Noise:
    """How much a candidate's metric varies between seeds."""

    sd: float
    """Standard deviation of a single seed's metric, in the metric's unit; nan without any repeated training."""
    df: int
    """Its degrees of freedom."""

    def significant(self, n_seeds: int) -> float:
        """The least difference of two candidates' means over `n_seeds` seeds that is significant (two-sided t-test at 5 %); nan as `sd`."""
        return float(t.ppf(1 - TAIL, self.df) * self.sd * np.sqrt(2 / n_seeds))


@dataclass(frozen=True)
class Measure:
    """How a measure is shown: its heading in a table, and the better direction."""

    title: str
    larger_is_better: bool | None
    """None where no direction is better: `spread` is best at 1, counts are only shown."""


MEASURES = {
    "auc_gap_mean": Measure("mean AUC gap", False),
    "auc_gap_max": Measure("largest AUC gap", False),
    "logloss_gap_mean": Measure("mean LogLoss gap", False),
    "logloss_gap_max": Measure("largest LogLoss gap", False),
    "spearman": Measure("Spearman", True),
    "kendall": Measure("Kendall tau-b", True),
    "pearson": Measure("Pearson", True),
    "spread": Measure("spread", None),
    "top1_regret": Measure("top-1 regret", False),
    "top3_regret": Measure("top-3 regret", False),
    "pairs_right": Measure("pairs right", True),
    "pairs": Measure("pairs", None),
    "diverged": Measure("diverged", None),
    "left_out": Measure("left out", None),
}
"""All measures, in the order of a table. Gaps, correlations, spread, regrets and pairs are of AUC unless they say LogLoss.

* `*_gap_*`: absolute difference of a candidate's two means, averaged over candidates or its largest.
* `spearman`, `kendall`, `pearson`: correlation of the two means over candidates; ties have mean ranks, tau is tau-b.
* `spread`: standard deviation over candidates on the reduced set over that on the full log; below 1 the set separates candidates less.
* `top1_regret`, `top3_regret`: best AUC on the full log minus the best there among the 1 or 3 that are best on the reduced set. Among
  candidates that tie on the reduced set the worst on the full log comes first, because a tie must not count as a good choice.
* `pairs`: pairs of candidates whose means on the full log differ significantly (two-sided t at 5 %, pooled noise of a seed).
* `pairs_right`: share of these pairs that the reduced set puts in the same order; a tie there counts 1/2.
* `diverged`: trainings on the reduced set without a finite result. `left_out`: candidates without one on the full log.
"""


class Interval(Settings):
    """A value and its bootstrap interval, the 2.5 % and 97.5 % percentiles of the replicates."""

    value: Metric
    """The value on the results themselves, not resampled."""
    low: Metric
    high: Metric


@dataclass(frozen=True)
class Bootstrap:
    """Every measure of one reduced set, with its replicates."""

    value: dict[str, float]
    """The result of `measure`."""
    replicates: dict[str, np.ndarray]
    """`{measure: [replicates] float64}`, nan where a replicate does not define it."""
    drawn: tuple[int, int, int, int]
    """Seed, candidates, seeds of the full log, replicates: sets with the same four numbers have the same draws."""

    def intervals(self) -> dict[str, Interval]:
        """The 95 % percentile interval of every measure; replicates that are nan are ignored."""
        return {name: interval(value, self.replicates[name]) for name, value in self.value.items()}


def measure(full: Results, other: Results, noise: Noise) -> dict[str, float]:
    """Every measure of `MEASURES` for one reduced set.

    Args:
        full: C candidates on the full log.
        other: the same candidates, in the same order, on the reduced set; its number of seeds may differ.
        noise: of a single seed's AUC on the full log.

    Raises:
        ValueError: the two have different numbers of candidates. All functions here that take two tables raise it.
    """
    replicates = _measures(full, other, noise, lambda purpose, n: np.arange(n)[None])
    return {name: float(values[0]) for name, values in replicates.items()}


def bootstrap(full: Results, other: Results, noise: Noise, *, seed: int, replicates: int = 2000) -> Bootstrap:
    """Every measure with its replicates: candidates, seeds of the full log and seeds of the reduced set drawn with replacement.

    All candidates have the same draw of seeds, because on a reduced set a seed is a reference model that they share. The noise is not
    drawn again. A candidate drawn twice is no pair with itself, and takes one place among the best three. Resampling n seeds shows only
    (n - 1)/n of their variance. Resampling adds noise to correlations a second time, so their intervals are too low rather than too high.

    Args:
        full, other, noise: as for `measure`.
        seed: seed of the draws, which depend on it and on the sizes alone.
        replicates: number of replicates.
    """
    value = measure(full, other, noise)
    draws = partial(resample, seed=seed, replicates=replicates)
    (n, n_seeds), left_out = full.auc.shape, int(value["left_out"])
    return Bootstrap(value, _measures(full, other, noise, draws), (seed, n - left_out, n_seeds, replicates))


def difference(first: Bootstrap, second: Bootstrap) -> dict[str, Interval]:
    """Every measure of `first` minus that of `second`, with the interval of the paired differences of their replicates.

    Candidates and seeds of the full log are paired, and also the seeds of the reduced sets where both have the same number. Raises
    ValueError where the two do not have the same draws.
    """
    if first.drawn != second.drawn:
        raise ValueError(f"(seed, candidates, seeds, replicates) differ: {first.drawn} and {second.drawn}")
    return {
        name: interval(value - second.value[name], first.replicates[name] - second.replicates[name])
        for name, value in first.value.items()
    }


def seed_noise(tables: list[np.ndarray]) -> Noise:
    """The standard deviation of a single seed's metric around its candidate's mean, pooled over candidates and tables.

    Args:
        tables: arrays `[C, S]` of one metric, each candidate with a mean of its own in each; nan is ignored.
    """
    squares, df = 0.0, 0
    for table in tables:
        present = ~np.isnan(table)
        mean = ratio(np.nansum(table, axis=1), present.sum(axis=1))
        squares += float(np.nansum((table - mean[:, None]) ** 2))
        df += int(np.maximum(present.sum(axis=1) - 1, 0).sum())
    return Noise(float(np.sqrt(squares / df)) if df else float("nan"), df)


def seed_means(full: Results, other: Results) -> tuple[np.ndarray, np.ndarray]:
    """Each candidate's mean AUC on the full log and on the reduced set, as measures use them: `[C]` float64 each, nan where left out."""
    *tables, kept = _comparable(full, other)
    means = np.full((2, len(kept)), np.nan)
    means[:, kept] = [table.auc.mean(axis=1) for table in tables]
    return means[0], means[1]


def pooled_pearson(points: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """One Pearson correlation over the candidates of several datasets (or tasks): raw, and centred within each dataset.

    The datasets' own offsets inflate the raw correlation: where one dataset is easier than another, both axes move together whatever
    the candidates do. The centred correlation first subtracts each dataset's mean on both axes. Quote the centred one.

    Args:
        points: per dataset the `[C]` means of `seed_means`; candidates with a nan are left out.
    """
    pairs = [np.stack(pair) for pair in points]
    present = [pair[:, ~np.isnan(pair).any(axis=0)] for pair in pairs] or [np.empty((2, 0))]
    raw, centred = (np.concatenate(parts, axis=1) for parts in (present, [_centred(pair) for pair in present]))
    return float(correlation(raw[:1], raw[1:])[0]), float(correlation(centred[:1], centred[1:])[0])


def resample(purpose: str, n: int, *, seed: int, replicates: int) -> np.ndarray:
    """`[replicates, n]` int64: 0 to n - 1 drawn with replacement; `purpose` is `candidates`, `full` or `other`."""
    rng = numpy_generator(derive_seed(seed, "bootstrap", purpose))
    return rng.integers(max(n, 1), size=(replicates, n))


def _comparable(full: Results, other: Results) -> tuple[Results, Results, np.ndarray]:
    """Both tables after the two rules above, and a mask of the kept candidates; a diverged training has nan as its log loss."""
    if len(full.auc) != len(other.auc):
        raise ValueError(f"{len(full.auc)} candidates on the full log, {len(other.auc)} on the other set")
    kept = (np.isfinite(full.auc) & np.isfinite(full.logloss)).all(axis=1)
    auc, logloss = other.auc[kept], other.logloss[kept]
    diverged = ~(np.isfinite(auc) & np.isfinite(logloss))
    auc = np.where(diverged, np.fmin.reduce(auc, axis=None, initial=CHANCE), auc)
    return Results(full.auc[kept], full.logloss[kept]), Results(auc, np.where(diverged, np.nan, logloss)), kept


def _measures(
    full: Results, other: Results, noise: Noise, draw: Callable[[str, int], np.ndarray]
) -> dict[str, np.ndarray]:
    """All measures, each `[B]`, for the B draws of n things `draw(purpose, n)`, `[B, n]`."""
    full, other, kept = _comparable(full, other)
    sizes = {"candidates": len(full.auc), "full": full.auc.shape[1], "other": other.auc.shape[1]}
    candidates, full_seeds, other_seeds = (draw(purpose, n) for purpose, n in sizes.items())
    left_out = np.full(len(candidates), float((~kept).sum()))
    if not kept.any():
        counts = dict.fromkeys(("pairs", "diverged"), np.zeros(len(candidates)))
        return dict.fromkeys(MEASURES, np.full(len(candidates), np.nan)) | counts | {"left_out": left_out}
    in_full, in_other = ((candidates[:, :, None], seeds[:, None, :]) for seeds in (full_seeds, other_seeds))
    x, y = full.auc[in_full].mean(axis=2), other.auc[in_other].mean(axis=2)
    gap = np.abs(x - y)
    losses = other.logloss[in_other]
    present = ~np.isnan(losses)
    loss_gap = np.abs(full.logloss[in_full].mean(axis=2) - ratio(np.nansum(losses, axis=2), present.sum(axis=2)))
    measures = {
        "auc_gap_mean": gap.mean(axis=1),
        "auc_gap_max": gap.max(axis=1),
        "logloss_gap_mean": ratio(np.nansum(loss_gap, axis=1), (~np.isnan(loss_gap)).sum(axis=1)),
        "logloss_gap_max": np.fmax.reduce(loss_gap, axis=1),
        "spearman": correlation(ranked(x), ranked(y)),
        "pearson": correlation(x, y),
        "spread": ratio(np.linalg.norm(_centred(y), axis=1), np.linalg.norm(_centred(x), axis=1)),
        "diverged": (~present).sum(axis=(1, 2)).astype(np.float64),
    }
    pairs = kendall_and_pairs(x, y, noise.significant(full_seeds.shape[1]))
    measures |= regrets(x, y, candidates) | pairs | {"left_out": left_out}
    return {name: measures[name] for name in MEASURES}


def regrets(x: np.ndarray, y: np.ndarray, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """The AUC `x` on the full log that a choice by `y` loses, `[B, C]` both. `place` counts each drawn candidate once."""
    order = np.lexsort((candidates, x, -y), axis=1)
    ranked, names = np.take_along_axis(x, order, axis=1), np.take_along_axis(candidates, order, axis=1)
    place = np.cumsum(np.diff(names, axis=1, prepend=-1) != 0, axis=1)
    best = {k: np.where(place <= k, ranked, -np.inf).max(axis=1) for k in (1, 3)}
    return {f"top{k}_regret": x.max(axis=1) - best[k] for k in best}


def kendall_and_pairs(x: np.ndarray, y: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Kendall's tau-b and the pairs whose difference is above `threshold` (>= 0 or nan): never a candidate with itself."""
    first, second = np.triu_indices(x.shape[1], k=1)
    in_x, in_y = x[:, first] - x[:, second], np.sign(y[:, first] - y[:, second])
    significant = np.abs(in_x) > threshold
    agreement = np.sign(in_x) * in_y
    untied = np.sqrt(np.count_nonzero(in_x, axis=1)) * np.sqrt(np.count_nonzero(in_y, axis=1))
    pairs = significant.sum(axis=1).astype(np.float64)
    right = ((1 + agreement) / 2 * significant).sum(axis=1)
    return {"kendall": ratio(agreement.sum(axis=1), untied), "pairs_right": ratio(right, pairs), "pairs": pairs}


def ranked(values: np.ndarray) -> np.ndarray:
    """The rank of each value in its row of `values [B, C]`, the mean rank where values are equal; a row with a nan is nan."""
    return np.asarray(rankdata(values, method="average", axis=1, nan_policy="propagate"))


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row of `x [B, C]` with that of `y`, nan where one is constant."""
    x, y = _centred(x), _centred(y)
    correlation = ratio((x * y).sum(axis=1), np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return np.asarray(np.clip(correlation, -1, 1))


def _centred(rows: np.ndarray) -> np.ndarray:
    # The first value of each row is subtracted first, so that a constant row is exactly zero and not the rounding error of its mean.
    rows = rows - rows[:, :1]
    return np.asarray(rows - rows.sum(axis=1, keepdims=True) / max(rows.shape[1], 1))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element by element, nan where the denominator is not above 0."""
    quotient = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def interval(value: float, replicates: np.ndarray) -> Interval:
    """The 95 % percentile interval of a value from its replicates; those that are nan are ignored."""
    defined = replicates[~np.isnan(replicates)]
    low, high = (
        np.percentile(defined, [100 * TAIL, 100 * (1 - TAIL)], method="linear") if len(defined) else (np.nan, np.nan)
    )
    return Interval(value=float(value), low=float(low), high=float(high))
