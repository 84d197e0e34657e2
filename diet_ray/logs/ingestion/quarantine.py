"""Quarantine: rows that break a rule are left out of a log and listed, up to a number that the user allows.

A problem of a whole file (its kind, its columns, their types, damage) stays an error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray.errors import BadInputError, CorruptArtefactError
from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.canonical import canonical, pick
from diet_ray.logs.ingestion.checks import BadRows, Origin
from diet_ray.logs.ingestion.times import read_time
from diet_ray.schema import Schema

FILE = "quarantine.parquet"
"""The file of a log that lists the rows that were left out; it is absent where there are none."""

REFUSED = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("time", pa.int64()),
        ("remedy", pa.string()),
    ]
)
"""Rows that are left out, each once: file, position in it (from 0), the first column at fault and the reason; time in ms, null where the
time is at fault."""

QUARANTINE = pa.schema(
    [*(REFUSED.field(name) for name in ("file", "row", "column", "reason", "time")), ("block", pa.string())]
)
"""The columns of a log's `FILE`: those of `REFUSED` without `remedy`, and the name of the block to which the row's time belongs; null where
the time is at fault or outside the log."""


def sift(table: pa.Table, schema: Schema, origin: Origin) -> tuple[np.ndarray, pa.Table]:
    """Separate the rows that break a rule from the others.

    Args:
        table: N rows with at least the columns of `schema`.
        origin: the rows' origin, in ascending order.

    Returns:
        The times of the rows that break no rule, int64 ms, and the others as a table of the schema `REFUSED`, by row.

    Raises:
        BadInputError: a column as a whole cannot be used.
    """
    refused = [REFUSED.empty_table()]
    kept = np.arange(len(table))
    stamp: np.ndarray | None = None
    while True:
        # An error names all rows that break its rule, so the loop runs at most once per rule, and once more.
        part, where = pick(table, kept, origin)
        try:
            if stamp is None:
                stamp = read_time(part, schema.time, where)
            canonical(part, schema, where)
        except BadRows as bad:
            at = np.searchsorted(where.rows, np.unique(bad.rows))
            refused.append(_refused(bad, None if stamp is None else stamp[at]))
            stamp = None if stamp is None else np.delete(stamp, at)
            kept = np.delete(kept, at)
            if not len(kept):  # of a column without any value, not even a type may be left
                return np.zeros(0, np.int64), pa.concat_tables(refused).sort_by("row")
        else:
            return stamp, pa.concat_tables(refused).sort_by("row")


def check_allowance(refused: pa.Table, allowed: int) -> None:
    """Raise BadInputError for the first row of `refused` (schema `REFUSED`) after the `allowed` number of rows."""
    if len(refused) <= allowed:
        return
    row = refused.slice(allowed, 1).to_pylist()[0]
    enough = f"; {allowed} rows before it are left out, no more are allowed" if allowed else ""
    raise BadInputError(
        row["file"],
        f"{row['reason']} in row {row['row']} (from 0)",
        column=row["column"],
        remedy=row["remedy"] + enough,
    )


def assign(refused: pa.Table, plan: BlockPlan) -> tuple[pa.Table, np.ndarray]:
    """`refused` (schema `REFUSED`) as a table of the schema `QUARANTINE`, and how many of its rows each block has, `[B]` int64."""
    has_time = refused["time"].is_valid().to_numpy()
    shard = np.where(has_time, plan.shard_of(refused["time"].fill_null(0).to_numpy()), -1)
    block = plan.block[shard]  # -1 takes the last block, and is masked below
    names = pa.array(plan.names, pa.string()).take(pa.array(block, mask=shard < 0))
    table = refused.drop_columns(["remedy"]).append_column("block", names).cast(QUARANTINE)
    return table, np.bincount(block[shard >= 0], minlength=len(plan.names))


def count(log: Path) -> int:
    """Number of rows that were left out of the log in a folder. Raises CorruptArtefactError where its `FILE` cannot be read."""
    path = log / FILE
    if not path.exists():
        return 0
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtefactError(f"{path}: not a readable Parquet file ({error}); ingest the log again") from error


def _refused(bad: BadRows, time: np.ndarray | None) -> pa.Table:
    rows, first = np.unique(bad.rows, return_index=True)  # a list may hold several bad values
    return pa.table(
        {
            "file": pa.array([bad.file] * len(rows), pa.string()),
            "row": pa.array(rows, pa.int64()),
            "column": pa.array([bad.column] * len(rows), pa.string()),
            "reason": pa.array([bad.problems[at] for at in first], pa.string()),
            "time": pa.nulls(len(rows), pa.int64()) if time is None else pa.array(time, pa.int64()),
            "remedy": pa.array([bad.remedy] * len(rows), pa.string()),
        }
    )
