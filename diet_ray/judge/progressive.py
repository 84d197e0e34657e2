"""Progressive validation: how well a candidate predicts rows that it learns only afterwards (McMahan et al. 2013, section 5.1).

A live candidate predicts every row just before it learns the row. These predictions are measured as a whole and in parts: per tenth of a
block, per day, and per slice of a field. The losses of the single rows are kept: two candidates that met the same rows are compared row by
row.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field as Key

from diet_ray.errors import CorruptArtefactError
from diet_ray.judge.metrics import evaluate, undefined
from diet_ray.logs.blocks import Rows
from diet_ray.schema import Schema
from diet_ray.settings import Metric, Settings, whole_file
from diet_ray.storage.parquet_writing import write_parquet

TENTHS = 10
"""Parts of equal size into which the rows of a block are divided."""

TOP = 5
"""The most frequent ids of a field that get a slice of their own."""


class Measured(Settings):
    """The metrics of some rows."""

    rows: int
    """Number of rows."""
    metrics: dict[str, dict[str, Metric]]
    """`{task: {auc, logloss (nats), gauc, calibration}}`; nan where undefined."""
    undefined: dict[str, dict[str, str]] = Key(default_factory=dict)
    """`{task: {metric: reason}}` of the metrics that are nan."""


class Slice(Measured):
    """The metrics of the rows with certain values of a field."""

    field: str
    """Name of the field."""
    values: str
    """`new`: ids that no earlier block has; `known`: all other ids; `id N`: one of the most frequent ids."""


class Progressive(Settings):
    """Progressive validation of a candidate on the rows that it met live."""

    whole: Measured
    """All rows."""
    tenths: dict[str, list[Measured]]
    """Per block: the tenths of the block that were met, in time order; the last may be incomplete."""
    days: dict[str, Measured]
    """Per calendar day of the log's time zone, as `2022-05-01`."""
    slices: list[Slice]
    """Slices of the fields that were asked for."""


def measure(rows: Rows, logits: np.ndarray, tasks: list[str]) -> Measured:
    """The metrics of rows whose logits `[N, T]` were predicted."""
    metrics = evaluate(logits, rows.labels, rows.user, tasks)
    return Measured(rows=len(rows), metrics=metrics, undefined=undefined(metrics, logits, rows.labels))


def row_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[N, T]` float32: the cross entropy of each row and task in nats, nan where the logit is not finite.

    Args:
        logits: `[N, T]`.
        labels: `[N, T]` 0/1.
    """
    z = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        losses = np.logaddexp(0, z) - labels * z
    return np.where(np.isfinite(z), losses, np.nan).astype(np.float32)


def progressive(
    rows: Rows,
    logits: np.ndarray,
    schema: Schema,
    *,
    blocks: dict[str, int],
    known_ids: int,
    fields: list[str] | None = None,
) -> Progressive:
    """Measure predictions that were made before their rows were learned.

    Args:
        rows: the N rows, in time order.
        logits: `[N, T]` float32.
        schema: the log's.
        blocks: the blocks of the rows in order: name and number of rows of the whole block, of which the last may be met in part.
        known_ids: ids from here on are in no block before these rows (`BlockManifest.n_ids` of the block before).
        fields: the fields to slice by.

    Raises:
        ValueError: the blocks have fewer rows than there are, or there is no such field.
    """
    if len(rows) > sum(blocks.values()):
        raise ValueError(f"{len(rows)} rows, the blocks have {sum(blocks.values())}")

    def measured(index: np.ndarray) -> Measured:
        return measure(rows.take(index), logits[index], schema.tasks)

    return Progressive(
        whole=measured(np.arange(len(rows))),
        tenths={name: [measured(part) for part in parts] for name, parts in tenths(len(rows), blocks).items()},
        days={day: measured(part) for day, part in days(rows.time, schema.time.timezone).items()},
        slices=[
            Slice(field=field, values=values, **dict(measured(part)))
            for field in fields or []
            for values, part in slices(rows.ids, schema, field, known_ids).items()
        ],
    )


def tenths(n: int, blocks: dict[str, int]) -> dict[str, list[np.ndarray]]:
    """The positions of the first `n` rows of the blocks, by block and tenth of it; tenth k begins at row `k * rows // 10` of the block."""
    parts: dict[str, list[np.ndarray]] = {}
    start = 0
    for name, size in blocks.items():
        edges = start + np.arange(TENTHS + 1) * size // TENTHS
        pairs = zip(edges, np.minimum(edges[1:], n), strict=False)
        parts[name] = [np.arange(low, high) for low, high in pairs if low < high]
        start += size
    return {name: part for name, part in parts.items() if part}


def days(time: np.ndarray, timezone: str) -> dict[str, np.ndarray]:
    """The positions of the rows of each calendar day.

    Args:
        time: `[N]` int64, ms since the epoch, ascending.
        timezone: IANA name of the zone whose midnight ends a day.
    """
    if not len(time):
        return {}
    zone = ZoneInfo(timezone)
    # The offset of every zone is a multiple of a quarter of an hour, so all rows of a quarter are of one day.
    quarter, first = np.unique(time // 900_000, return_index=True)
    names = [datetime.fromtimestamp(int(value) * 900, zone).date().isoformat() for value in quarter]
    parts: dict[str, list[np.ndarray]] = {}
    for name, low, high in zip(names, first, [*first[1:], len(time)], strict=True):
        parts.setdefault(name, []).append(np.arange(low, high))
    return {name: np.concatenate(part) for name, part in parts.items()}


def slices(ids: np.ndarray, schema: Schema, field: str, known_ids: int) -> dict[str, np.ndarray]:
    """The positions of the rows of each slice of a field: rows with a new id, rows without, and rows with each of the most frequent ids.

    A row is new where one of its values is new; padding counts for nothing.

    Args:
        ids: `[N, S]` int32.
        schema: the log's.
        field: name of the field.
        known_ids: see `progressive`.

    Raises:
        ValueError: there is no such field.
    """
    if field not in schema.field_names:
        raise ValueError(f"no field {field!r}; fields: {', '.join(schema.field_names)}")
    own = ids[:, schema.field_of_slot == schema.field_names.index(field)]
    new = (own >= known_ids).any(axis=1)
    values, counts = np.unique(own[own > 0], return_counts=True)
    top = values[np.lexsort((values, -counts))[:TOP]]
    parts = {"new": new, "known": ~new} | {f"id {value}": (own == value).any(axis=1) for value in top}
    return {name: np.flatnonzero(part) for name, part in parts.items() if part.any()}


def write_losses(path: Path, row_id: np.ndarray, losses: np.ndarray, tasks: list[str]) -> None:
    """Write the losses of single rows as Parquet, complete or not at all: `row_id` int64, and float32 columns `TASK_loss` in nats.

    Args:
        path: of the file.
        row_id: `[N]` int64.
        losses: `[N, T]` float32 (`row_losses`).
        tasks: names of the T tasks.
    """
    columns = {"row_id": row_id} | {f"{task}_loss": losses[:, t] for t, task in enumerate(tasks)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        write_parquet(pa.table(columns), temporary)


def read_losses(path: Path, tasks: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The `row_id` `[N]` int64 and the losses `[N, T]` float32 of `write_losses`.

    Raises:
        CorruptArtefactError: the file is missing or damaged, or has other columns.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CorruptArtefactError(
            f"{path}: not a readable Parquet file ({error}); judge the candidate again"
        ) from error
    names = [f"{task}_loss" for task in tasks]
    if table.schema.remove_metadata() != pa.schema([("row_id", pa.int64()), *((name, pa.float32()) for name in names)]):
        raise CorruptArtefactError(
            f"{path}: columns {', '.join(table.schema.names)}, expected row_id, {', '.join(names)}; judge the candidate again"
        )
    return table["row_id"].to_numpy(), np.stack([table[name].to_numpy() for name in names], axis=1)
