"""Labels of a simulated log: the true probability of every row.

The effects of a field's value are a function of the seed, the value and the block, so a row's probability can be computed again from its
ids and its block. A value has one main effect and some latent factors. They are Gaussian by Box & Muller (1958), with a phase that turns by
`omega * block`, `omega ~ N(0, drift^2)` per value: every block has the same distribution, and blocks k apart have the correlation
`exp(-(drift k)^2 / 2)`. A row's logit is the sum of its main effects, of the products of the factors of all pairs of fields (a
factorisation machine, Rendle 2010) and of all triples (Blondel et al. 2016), each scaled to the standard deviation in the config.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from diet_ray.logs.blocks import Rows
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.values import draw_values, uniforms
from diet_ray.seeds import derive_seed, uniform_by_id

DAY = 86_400_000
"""A block's length, ms."""

FIRST_DAY = np.datetime64("2024-01-01", "D")
"""The day of the first block."""

PILOT_ROWS = 20_000
"""Rows drawn like those of the first block, but not in the log, on which the parts of the logit are scaled."""

PILOT_FIRST = 1 << 62
"""Position of the first pilot row in the stream, beyond that of any row of a log."""

CHUNK = 4096
"""Rows whose logits are added up at a time: so many stay in a core's cache."""


def draw(config: SimulateConfig, block: int, first: int, n: int) -> Rows:
    """Draw rows `first` to `first + n` of a block; they do not depend on how the block is divided.

    Returns:
        Rows as a log has them; `user` is the value of the user's field.
    """
    place, stream = np.arange(first, first + n), (block << 32) + first
    values = draw_values(config, block, stream, n)
    u = np.stack([uniforms(derive_seed(config.seed, "label", task), stream, n) for task in config.tasks], axis=1)
    moment = (place + uniforms(derive_seed(config.seed, "time"), stream, n)) * (DAY / config.rows)
    start = int(FIRST_DAY.astype("datetime64[ms]").astype(np.int64)) + block * DAY
    return Rows(
        row_id=(block << 32) + place,
        time=start + np.minimum(moment.astype(np.int64), DAY - 1),
        user=values[[field.name for field in config.fields].index(config.user)],
        ids=(np.stack(values, axis=1) + config.log_schema.first_static_id[:-1]).astype(np.int32),
        labels=(u < _probability(config, block, values)).astype(np.uint8),
    )


def true_probability(config: SimulateConfig, rows: Rows) -> np.ndarray:
    """`[N, T]` float64: the probability with which each label of `rows`, of a log of this config, was drawn as 1.

    It is a function of the ids and the block (the upper half of the row id), so no model of the ids can do better. For the probability of
    the same ids in another block, put that block into the row ids.
    """
    probability = np.empty((len(rows), len(config.tasks)))
    values = rows.ids - config.log_schema.first_static_id[:-1]
    of_row = rows.row_id >> 32
    for block in np.unique(of_row).tolist():
        here = np.flatnonzero(of_row == block)
        probability[here] = _probability(config, block, list(values[here].T))
    return probability


@dataclass(frozen=True)
class _Scales:
    """The scales by which the raw parts of a logit get the strengths and base rates of the config. Q sources, T tasks."""

    mean: np.ndarray
    """`[Q, 3]` of the main, pairwise and higher part, over the pilot rows."""
    sd: np.ndarray
    """`[Q, 3]`."""
    intercept: np.ndarray
    """`[T]` logits."""


@lru_cache(maxsize=4)
def _scales(config_json: str) -> _Scales:
    config = SimulateConfig.model_validate_json(config_json)
    values = draw_values(config, 0, PILOT_FIRST, PILOT_ROWS)
    parts = _parts(config, 0, values)
    sd = parts.std(axis=0)
    scales = _Scales(parts.mean(axis=0), np.where(sd > 0, sd, 1), np.zeros(len(config.tasks)))
    logit = _logit(config, scales, parts)
    intercept = [
        brentq(lambda b, z=z, rate=rate: expit(z + b).mean() - rate, -1000, 1000, xtol=2e-12, rtol=2**-50, maxiter=100)
        for z, rate in zip(logit.T, config.tasks.values(), strict=True)
    ]
    return replace(scales, intercept=np.array(intercept))


def _probability(config: SimulateConfig, block: int, values: list[np.ndarray]) -> np.ndarray:
    """`[N, T]` float64."""
    probability: np.ndarray = expit(_logit(config, _scales(config.model_dump_json()), _parts(config, block, values)))
    return (1 - config.noise) * probability + config.noise * np.array(list(config.tasks.values()))


def _logit(config: SimulateConfig, scales: _Scales, parts: np.ndarray) -> np.ndarray:
    """`[N, T]` float64 from parts `[N, Q, 3]`."""
    strength = np.array([config.main, config.pairwise, config.higher])
    source = np.einsum("nqc,c->nq", (parts - scales.mean) / scales.sd, strength)
    return np.asarray(np.einsum("nq,qt->nt", source, _mixing(config)) + scales.intercept)


def _mixing(config: SimulateConfig) -> np.ndarray:
    """`[Q, T]`: the weight of each source of logits in each task. One source is shared by all tasks, and each task has one of its own."""
    n = len(config.tasks)
    if n == 1:
        return np.ones((1, 1))
    return np.vstack([np.full(n, math.sqrt(config.relatedness)), math.sqrt(1 - config.relatedness) * np.eye(n)])


def _parts(config: SimulateConfig, block: int, values: list[np.ndarray]) -> np.ndarray:
    """`[N, Q, 3]` float64: the main, pairwise and higher part of each source's logit, unscaled.

    Sums of products over pairs and triples of fields are computed by Newton's identities from p_j, the sums over the F fields of the j-th
    powers.
    """
    n, sources, width = len(values[0]), len(_mixing(config)), 1 + config.factors
    look_up = []
    for f, (table, column) in enumerate(zip(_tables(config.model_dump_json(), block), values, strict=True)):
        if table is None:
            ids, column = np.unique(column, return_inverse=True)
            table = _latents(config, f, ids, block)
        look_up.append((table, column))
    parts = np.empty((n, sources, 3))
    for first in range(0, n, CHUNK):
        here = slice(first, first + CHUNK)
        sums = np.zeros((3, min(CHUNK, n - first), sources * width), np.float32)
        for table, column in look_up:
            x = table.take(column[here], axis=0)
            sums[0] += x
            power = x * x
            sums[1] += power
            power *= x
            sums[2] += power
        p1, p2, p3 = sums.reshape(3, -1, sources, width).astype(np.float64)
        parts[here, :, 0] = p1[..., 0]
        parts[here, :, 1] = ((p1 * p1 - p2) / 2)[..., 1:].sum(axis=-1)
        parts[here, :, 2] = ((p1 * p1 * p1 - 3 * p1 * p2 + 2 * p3) / 6)[..., 1:].sum(axis=-1)
    return parts


@lru_cache(maxsize=2)
def _tables(config_json: str, block: int) -> list[np.ndarray | None]:
    """Per field the latents of all its values in a block; None for a field that is too large. Cached for all shards of the block."""
    config = SimulateConfig.model_validate_json(config_json)
    return [
        _latents(config, f, np.arange(field.size), block) if field.size <= config.shard_rows else None
        for f, field in enumerate(config.fields)
    ]


def _latents(config: SimulateConfig, f: int, ids: np.ndarray, block: int) -> np.ndarray:
    """`[n, Q * (1 + factors)]` float32: main effect and factors of values of field f in a block, source by source."""
    field, width = config.fields[f], 1 + config.factors
    sources = len(_mixing(config))
    latents = np.empty((len(ids), sources * width), np.float32)
    omega = config.drift * _gaussian(ids, derive_seed(config.seed, "turn", field.name))
    for column in range(latents.shape[1]):
        seed = derive_seed(config.seed, "latent", field.name, *divmod(column, width))
        latents[:, column] = field.weight * _gaussian(ids, seed, turned=omega * block)
    return latents


def _gaussian(ids: np.ndarray, seed: int, turned: np.ndarray | float = 0.0) -> np.ndarray:
    """`[n]` float64, standard normal, a function of id and seed. Its correlation with the unturned value is the cosine of `turned`."""
    radius = np.sqrt(-2 * np.log(uniform_by_id(ids, derive_seed(seed, "radius"))))
    return np.asarray(radius * np.cos(2 * np.pi * uniform_by_id(ids, derive_seed(seed, "angle")) - turned))
