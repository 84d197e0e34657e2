"""Paired statistics: which of K candidates that met the same rows are better, and how sure that is. NumPy in, numbers out.

All candidates predict the same N rows, so their losses are compared row by row, and what makes a row hard for all cancels. The mean loss of
candidate k varies for two reasons:

* *rows*: other rows would give another mean. Rows of one user are alike, and so are rows that follow each other in time, because the state
  of a live candidate lasts. The covariance of the K means is therefore clustered both ways, by user and by part of the time (Cameron,
  Gelbach & Miller 2011): V_users + V_parts - V_users-within-parts. Neighbouring parts may depend on each other (Newey & West 1987).
* *seeds*: another seed would give another model. The variance between the seeds of a candidate is estimated from its own seeds and
  moderated towards the mean of all candidates (as Smyth 2004 does), because two or three seeds say little.
* *memories*: where candidates start from several memories of the same log, another memory would move all candidates, and each one a little
  otherwise. What it moves for all cancels; the rest takes the place of the variance between seeds, and contains it.

Many pairs are compared at once. `Comparison.adjusted` holds p-values that are corrected for this by the distribution of the largest
difference among K equal candidates with the same covariance (the idea of Tukey's test and of Westfall & Young 1993, by simulation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from diet_ray.seeds import derive_seed, numpy_generator

DRAWS = 20_000
"""Simulated sets of K means behind the corrected p-values and the probabilities of being the best."""

PARTS = 20
"""Least number of parts into which the time of the rows is divided, where there are rows enough."""

PART_ROWS = 256
"""Most rows of a part: as many as a batch."""

PRIOR = 6.0
"""Degrees of freedom for which the mean variance between seeds counts."""

LAG = 0.7
"""Parts up to this factor times the root of their number apart may depend on each other; 3 of 20. With it the intervals keep their
confidence in the simulations of the tests, whose dependence is that of the weekly blocks of Complete Journey."""


@dataclass(frozen=True)
class Means:
    """The mean losses of K candidates and what is known about their variation."""

    mean: np.ndarray
    """`[K]` float64, nats."""
    rows: np.ndarray
    """`[K, K]`: covariance of the means over other rows."""
    rows_df: float
    """Degrees of freedom behind `rows`: those of the parts of the time, less where neighbours depend on each other, or of the users where
    they are fewer."""
    seeds: np.ndarray
    """`[K]`: variance of a mean over other seeds and, where there are several, other memories; 0 for all where no candidate has two."""
    seeds_df: np.ndarray
    """`[K]`: its degrees of freedom, after moderation."""
    n_rows: int
    """N."""

    @property
    def knows_seeds(self) -> bool:
        """Whether the variation between seeds is known."""
        return bool((self.seeds > 0).any())


def means_of(losses: list[np.ndarray], users: np.ndarray, memories: list[np.ndarray] | None = None) -> Means:
    """Estimate means, covariance over rows and variance over seeds or memories.

    Args:
        losses: per candidate `[S_k, N]`, its seeds' losses of the same N rows in order of time, nats, finite; at least two rows.
        users: `[N]` int64, the user of each row.
        memories: per candidate `[S_k]` int64, the memory from which each seed started; None where it is one.

    Raises:
        ValueError: the shapes do not fit, there are fewer than two rows, or a loss is not finite.
    """
    n = len(users)
    if n < 2 or any(part.ndim != 2 or part.shape[1] != n or not len(part) for part in losses):
        raise ValueError(f"{[part.shape for part in losses]} losses must be [S, N] each, of the {n} rows, two or more")
    if not all(np.isfinite(part).all() for part in losses):
        raise ValueError("a loss is not finite; leave candidates that diverged out")
    of_seeds = [part.mean(axis=1, dtype=np.float64) for part in losses]
    means = np.array([part.mean() for part in of_seeds])
    centred = np.stack([part.mean(axis=0, dtype=np.float64) for part in losses], axis=1) - means
    _, user = np.unique(users, return_inverse=True)
    size = max(1, min(PART_ROWS, math.ceil(n / PARTS)))
    part = np.arange(n) // size
    both = user * (part[-1] + 1) + part
    lag = int(LAG * math.sqrt(part[-1] + 1))
    by_user, by_part = _clustered(centred, user), _clustered(centred, part, lag=lag)
    covariance = _no_less(by_user + by_part - _clustered(centred, both), by_user, by_part)
    if memories is not None and len({int(number) for part in memories for number in part}) > 1:
        of_seeds = of_memories(of_seeds, memories)
    variance, df = seed_variances(of_seeds)
    counts = np.array([len(part) for part in of_seeds])
    rows_df = max(1.0, min(float(part[-1]) / (1 + 2 / 3 * lag), float(user.max())))
    return Means(means, covariance, rows_df, variance / counts, df, n)


def of_memories(of_seeds: list[np.ndarray], memories: list[np.ndarray]) -> list[np.ndarray]:
    """What each memory does to a candidate beyond what it does to all.

    Args:
        of_seeds: per candidate `[S_k]`, the mean loss of each seed.
        memories: per candidate `[S_k]`, the memory of each seed.

    Returns:
        Per candidate, a value for each of its memories: the mean of its seeds there, without the candidate's own mean and the mean of all
        candidates. Their variance is that of a candidate between memories, which is larger by the noise of its seeds.
    """
    means = [
        {int(number): float(part[own == number].mean()) for number in np.unique(own)}
        for part, own in zip(of_seeds, memories, strict=True)
    ]
    rest = [{number: value - sum(part.values()) / len(part) for number, value in part.items()} for part in means]
    common = {
        number: float(np.mean([part[number] for part in rest if number in part])) for number in set().union(*rest)
    }
    k = len(rest)
    scale = math.sqrt(k / (k - 1)) if k > 1 else 1.0  # the mean of all candidates contains the candidate itself
    return [np.array([scale * (value - common[number]) for number, value in part.items()]) for part in rest]


def seed_variances(of_seeds: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The variance of a single seed's mean for each candidate, moderated towards the mean of all.

    The mean variance counts as much as `PRIOR` degrees of freedom of the candidate's own. A weight estimated from the results themselves
    (Smyth 2004) is too large where few candidates have unlike variances: 7 to 12 % of equal pairs were called different at 5 %.

    Args:
        of_seeds: per candidate `[S_k]`, the mean loss of each seed.

    Returns:
        `[K]` variances and `[K]` degrees of freedom. Zeros and ones where no candidate has two seeds.
    """
    df = np.array([len(part) - 1.0 for part in of_seeds])
    if not df.any():
        return np.zeros(len(df)), np.ones(len(df))
    own = np.array([part.var(ddof=1) if len(part) > 1 else 0.0 for part in of_seeds])
    prior = min(PRIOR, float(df.sum()))
    common = float((df * own).sum() / df.sum())
    return (prior * common + df * own) / (prior + df), prior + df


@dataclass(frozen=True)
class Comparison:
    """Every pair of K candidates compared."""

    means: Means
    confidence: float
    """Of the intervals and the groups, such as 0.95."""
    seed: int = 0
    """Of the simulated draws."""

    @cached_property
    def difference(self) -> np.ndarray:
        """`[K, K]` nats: mean loss of the row's candidate minus that of the column's."""
        return np.asarray(self.means.mean[:, None] - self.means.mean[None, :])

    @cached_property
    def rows_variance(self) -> np.ndarray:
        """`[K, K]`: variance of a difference over other rows."""
        covariance = self.means.rows
        own = np.diag(covariance)
        return np.asarray(np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0))

    @cached_property
    def seeds_variance(self) -> np.ndarray:
        """`[K, K]`: variance of a difference over other seeds; 0 on the diagonal."""
        both = self.means.seeds[:, None] + self.means.seeds[None, :]
        return np.asarray(both * (1 - np.eye(len(both))))

    @cached_property
    def error(self) -> np.ndarray:
        """`[K, K]`: standard error of a difference."""
        return np.asarray(np.sqrt(self.rows_variance + self.seeds_variance))

    @cached_property
    def df(self) -> np.ndarray:
        """`[K, K]`: degrees of freedom of a difference (Satterthwaite 1946)."""
        # Two candidates share the mean variance between seeds, so the degrees of freedom behind their variances do not add up.
        of_seeds = np.minimum(self.means.seeds_df[:, None], self.means.seeds_df[None, :])
        below = self.rows_variance**2 / self.means.rows_df + self.seeds_variance**2 / of_seeds
        total = (self.rows_variance + self.seeds_variance) ** 2
        return np.asarray(np.divide(total, below, out=np.full_like(total, np.inf), where=below > 0))

    @cached_property
    def plain(self) -> np.ndarray:
        """`[K, K]`: two-sided p-value of each difference, not corrected."""
        error = self.error
        ratio = np.divide(np.abs(self.difference), error, out=np.zeros_like(error), where=error > 0)
        ratio = np.where((error == 0) & (self.difference != 0), np.inf, ratio)
        return np.asarray(2 * stats.t.sf(ratio, self.df))

    @cached_property
    def adjusted(self) -> np.ndarray:
        """`[K, K]`: p-values, corrected for all pairs; 1 on the diagonal."""
        as_normal = stats.norm.isf(np.clip(self.plain / 2, 1e-300, 0.5))
        above = np.searchsorted(self._largest, as_normal, side="left")
        # One is added, so that a simulated p-value is never 0; it is never below the plain one.
        adjusted = np.maximum((len(self._largest) - above + 1) / (len(self._largest) + 1), self.plain)
        np.fill_diagonal(adjusted, 1)
        return np.asarray(adjusted)

    def half_width(self) -> np.ndarray:
        """`[K, K]` nats: half the width of the interval of each difference; all intervals hold together with the confidence."""
        critical = float(np.quantile(self._largest, self.confidence, method="linear"))
        return np.asarray(stats.t.isf(stats.norm.sf(critical), self.df) * self.error)

    def different(self) -> np.ndarray:
        """`[K, K]` bool: pairs that are told apart with the confidence, corrected for all pairs."""
        return np.asarray(self.adjusted < 1 - self.confidence)

    def best(self) -> np.ndarray:
        """`[K]`: the probability that each candidate has the smallest loss, given these results (a flat prior)."""
        drawn = self.means.mean + self._noise
        return np.bincount(drawn.argmin(axis=1), minlength=len(self.means.mean)) / len(drawn)

    def rows_needed(self) -> np.ndarray:
        """`[K, K]`: how many rows in all would tell a pair apart if its difference stays; infinite where more seeds are needed."""
        critical = float(np.quantile(self._largest, self.confidence, method="linear"))
        allowed = (self.difference / critical) ** 2 - self.seeds_variance
        needed = np.divide(
            self.rows_variance * self.means.n_rows, allowed, out=np.full_like(allowed, np.inf), where=allowed > 0
        )
        return np.asarray(np.ceil(needed))

    @cached_property
    def _noise(self) -> np.ndarray:
        """`[DRAWS, K]`: draws of the means around their estimates."""
        covariance = self.means.rows + np.diag(self.means.seeds)
        values, vectors = np.linalg.eigh(covariance)
        rng = numpy_generator(derive_seed(self.seed, "paired"))
        drawn = rng.standard_normal((DRAWS, len(covariance))) * np.sqrt(np.maximum(values, 0))
        return np.asarray(drawn @ vectors.T)

    @cached_property
    def _largest(self) -> np.ndarray:
        """`[DRAWS]`, ascending: the largest standardised difference of any pair in each draw."""
        noise, error = self._noise, self.error
        inverse = np.divide(1, error, out=np.zeros_like(error), where=error > 0)
        largest = np.zeros(len(noise))
        for k in range(1, noise.shape[1]):
            ratio = np.abs(noise[:, :k] - noise[:, k : k + 1]) * inverse[k, :k]
            largest = np.maximum(largest, ratio.max(axis=1))
        return np.sort(largest)


def letters(different: np.ndarray, order: np.ndarray) -> list[str]:
    """The compact letter display: candidates share a letter where no pair of them is told apart (Piepho 2004, insert and absorb).

    Args:
        different: `[K, K]` bool, symmetric.
        order: `[K]` int64, the candidates from best to worst; the best has the letter `a`.

    Returns:
        For each candidate its letters, such as `ab`.
    """
    columns: list[frozenset[int]] = [frozenset(range(len(order)))]
    for i, j in zip(*np.nonzero(np.triu(different)), strict=True):
        split = []
        for column in columns:
            split += [column - {int(i)}, column - {int(j)}] if {int(i), int(j)} <= column else [column]
        distinct = list(dict.fromkeys(split))
        columns = [column for column in distinct if not any(column < other for other in distinct)]
    place = {int(k): number for number, k in enumerate(order)}
    columns.sort(key=lambda column: sorted(place[k] for k in column))
    return ["".join(_letter(number) for number, column in enumerate(columns) if k in column) for k in range(len(order))]


def _letter(number: int) -> str:
    """a to z, then a1 to z1, and so on."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")


def _clustered(centred: np.ndarray, cluster: np.ndarray, *, lag: int = 0) -> np.ndarray:
    """`[K, K]`: covariance of the K means whose rows `[N, K]` are dependent within clusters, with the correction for few clusters.

    Clusters in order of time may depend on their `lag` next ones, with weights that fall to 0 (Bartlett).
    """
    sums = np.zeros((int(cluster.max()) + 1, centred.shape[1]))
    np.add.at(sums, cluster, centred)
    sums = sums[np.bincount(cluster, minlength=len(sums)) > 0]
    n = len(sums)
    total = sums.T @ sums
    for apart in range(1, lag + 1):
        product = sums[apart:].T @ sums[:-apart]
        total = total + (1 - apart / (lag + 1)) * (product + product.T)
    return np.asarray(total * (n / max(n - 1, 1)) / len(centred) ** 2)


def _no_less(both: np.ndarray, *single: np.ndarray) -> np.ndarray:
    """The two-way covariance, or that of the larger one-way clustering where the former has a direction of negative variance."""
    values = np.linalg.eigvalsh(both)
    if values.min() >= -1e-12 * max(values.max(), 0):
        return both
    return max(single, key=np.trace)
