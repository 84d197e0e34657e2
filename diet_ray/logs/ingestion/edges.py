"""Bucket edges of numeric fields, fitted on the first block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diet_ray.errors import SchemaError
from diet_ray.logs.notes import Note
from diet_ray.schema import NumericField, Schema
from diet_ray.settings import Settings

LEAST_PER_BUCKET = 20
"""Values that the first block needs for each bucket of a field. The share of the rows in a bucket is then within a quarter or so of what it
is meant to be; edges from three rows would stay for ever."""


class Edges(Settings):
    """Bucket edges of the numeric fields, fitted on the first block; `edges.json` of a log."""

    edges: dict[str, list[float]]
    """Inner edges per field, ascending, at most `buckets - 1`; a value on an edge belongs to the bucket above it."""


def edge_problems(edges: Edges, schema: Schema) -> Iterator[str]:
    """The problems with the edges of a log of that schema."""
    buckets = {field.name: field.buckets for field in schema.fields if field.kind == "numeric"}
    for name in buckets.keys() - edges.edges.keys():
        yield f"has no edges of field {name!r}"
    for name, values in edges.edges.items():
        if name not in buckets:
            yield f"has edges of {name!r}, which is no numeric field of the schema"
        elif len(values) >= buckets[name]:
            yield f"has {len(values)} edges of field {name!r}, whose {buckets[name]} buckets have {buckets[name] - 1}"
        elif not np.isfinite(values).all() or (np.diff(values) < 0).any():
            yield f"its edges of field {name!r} are not finite numbers in ascending order"


def fit_edges(values: np.ndarray, field: NumericField) -> list[float]:
    """Bucket edges of a numeric field from its non-null values in the first block, `[N]` float64.

    Quantiles, of which equal ones are merged, unless a heavy value would then share its bucket. A value is heavy that fills a bucket: at
    least its share of the rows that are left once all heavier ones have buckets of their own. It then gets one, which begins at it and ends
    at the next value that occurs, and the values between heavy ones have quantiles of their own. A field with no more values than buckets
    has a bucket for each.

    With `transform: log` the edges are even in log(1+x), negative values counted as 0.

    Raises:
        SchemaError: the first block holds no value of the field.
    """
    if not len(values):
        raise SchemaError(
            f"numeric field {field.name!r} has no value in the first block, on which its buckets are fitted: "
            "make the first block longer, or the field hashed"
        )
    steps = np.linspace(0.0, 1.0, field.buckets + 1)[1:-1]
    if field.transform == "log":
        return _ascending(np.expm1(steps * np.log1p(max(float(values.max()), 0.0))))
    edges = np.unique(np.quantile(values, steps))
    distinct, rows = np.unique(values, return_counts=True)
    heavy = _heavy(rows, field.buckets)
    bucket = np.searchsorted(edges, distinct, side="right")
    in_bucket = np.bincount(bucket)[bucket]
    if (in_bucket[heavy] > 1).any():
        edges = _apart(distinct, rows, heavy, field.buckets)
    return _ascending(edges)


def _ascending(edges: np.ndarray) -> list[float]:
    return [float(edge) for edge in np.unique(edges)]


def _heavy(rows: np.ndarray, buckets: int) -> np.ndarray:
    """`[V]` bool: which of V values, with `rows [V]`, fill a bucket when the heaviest get theirs first.

    These are as many as leave a bucket for each run of values between them, so that none of these has to join a heavy one; all that fill a
    bucket, where even the heaviest alone leaves too few.
    """
    order = np.argsort(-rows, kind="stable")
    heaviest = rows[order]
    left = rows.sum() - np.concatenate([[0], np.cumsum(heaviest)[:-1]])
    fills = heaviest * (buckets - np.arange(len(rows))) >= left
    most = len(rows) if fills.all() else int(np.argmin(fills))

    def first(n: int) -> np.ndarray:
        heavy = np.zeros(len(rows), bool)
        heavy[order[:n]] = True
        return heavy

    for n in range(most, 0, -1):
        heavy = first(n)
        runs = np.count_nonzero(~heavy[1:] & heavy[:-1]) + int(not heavy[0])
        if n + runs <= buckets:
            return heavy
    return first(most)


def _apart(distinct: np.ndarray, rows: np.ndarray, heavy: np.ndarray, buckets: int) -> np.ndarray:
    """Edges that give each heavy value a bucket, and the runs of others between them quantiles in the buckets that remain."""
    parts = np.split(np.arange(len(distinct)), np.flatnonzero(heavy[1:] | heavy[:-1]) + 1)
    runs = [index for index, part in enumerate(parts) if not heavy[part[0]]]
    weight = np.array([rows[parts[index]].sum() for index in runs], np.float64)
    room = buckets - int(heavy.sum())
    share = np.zeros(len(runs), np.int64)
    # With too little room, the lightest runs get no bucket: they join the heavy value below, the first run the one above.
    share[np.argsort(-weight, kind="stable")[:room]] = 1
    if runs and room > len(runs):
        more = weight / weight.sum() * (room - len(runs))
        share += np.floor(more).astype(np.int64)
        share[np.argsort(np.floor(more) - more, kind="stable")[: room - int(share.sum())]] += 1
    n_buckets = dict(zip(runs, share.tolist(), strict=True))
    edges: list[float] = []
    for index, part in enumerate(parts):
        n = n_buckets.get(index, 1)
        joins_first = index == 1 and n_buckets.get(0, 1) == 0
        if index and n and not joins_first:
            edges.append(distinct[part[0]])
        if n > 1:
            edges.extend(np.quantile(np.repeat(distinct[part], rows[part]), np.linspace(0.0, 1.0, n + 1)[1:-1]))
    return np.array(edges)


def least_values(field: NumericField) -> int:
    """Values that the first block should have of a field."""
    return LEAST_PER_BUCKET * field.buckets


def enough(values: np.ndarray, field: NumericField) -> bool:
    """Whether the first block has enough values of a field: for each bucket, or for each value where there are few different ones."""
    if len(values) >= least_values(field):
        return True
    distinct = len(np.unique(values))
    return distinct > 1 and len(values) >= LEAST_PER_BUCKET * distinct


def too_few(n_values: int, field: NumericField, rows: int) -> SchemaError:
    """The refusal of a first block with too few values of a field, in a log of which the first `rows` rows have enough."""
    return SchemaError(
        f"numeric field {field.name!r} has {n_values} values in the first block, on which its {field.buckets} buckets are "
        f"fitted once and for all; {least_values(field)} are needed, {LEAST_PER_BUCKET} per bucket: make the first block longer "
        f"(--by {rows} is enough), leave out the rows before the first full block, or make buckets fewer or the field hashed"
    )


def notes_on(values: np.ndarray, field: NumericField, edges: list[float]) -> list[Note]:
    """What is to be told about a field's edges, fitted on its `values [N]` in the first block."""
    told = []
    if not enough(values, field):
        told.append(
            f"its {field.buckets} buckets are fitted on {len(values)} values in the first block; "
            f"{least_values(field)} or more would fit better"
        )
    if len(np.unique(np.searchsorted(edges, values, side="right"))) == 1:
        told.append("all its values in the first block are in one bucket, so that it tells no rows apart there")
    return [Note(column=field.source, what=f"numeric field {field.name!r}: {what}") for what in told]
