"""Taobao UserBehavior: nine days of page views, carts, favourites and purchases of a million users of a shop (Zhu et al. 2018, TDM).

A page view is a click, and all published rows are positive: negatives are drawn by `diet_ray.logs.readers.negatives`, with a day as block.
The other behaviours are outcomes of the visit and are left out. Rows with a time outside the published days are left out too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from diet_ray.errors import BadInputError
from diet_ray.logs.readers.clicks import with_negatives
from diet_ray.logs.readers.clock import DAY_MS, hour_and_weekday
from diet_ray.logs.readers.published import locate, read_rows, write_rows

ZONE = "Asia/Shanghai"
"""The zone of the published days."""

FIRST_DAY, DAYS = "2017-11-25", 9
"""The published days."""

BEHAVIOURS = ["pv", "buy", "cart", "fav"]
"""The values of the fourth column; the first one is a click."""

_TYPES = {
    "user_id": pa.int64(),
    "item_id": pa.int64(),
    "category_id": pa.int64(),
    "behaviour": pa.dictionary(pa.int32(), pa.string()),
    "time": pa.int64(),
}
_log = logging.getLogger(__name__)


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Write `out/taobao.parquet`, from the second published day on: the first has no negatives.

    Args:
        source: the folder that holds `UserBehavior.csv`, or that file.
        out: folder to write into.

    Raises:
        ConfigError: no source given.
        BadInputError: the file is missing or malformed.
    """
    path = locate(source, ["UserBehavior.csv", "UserBehavior.csv.gz"], "taobao")
    drawn = with_negatives(_clicks(path), out / "taobao.spill", item_features=["category_id"])
    return [write_rows(out / "taobao.parquet", (_with_clock(rows) for rows in drawn))]


def _clicks(path: Path) -> Iterator[pa.Table]:
    first = pd.Timestamp(FIRST_DAY, tz=ZONE).value // 1_000_000
    position, outside = 0, 0
    for rows in read_rows(path, _TYPES, names=list(_TYPES), required=list(_TYPES)):
        row = np.arange(position, position + len(rows), dtype=np.int64)
        position += len(rows)
        time = rows["time"].to_numpy() * 1000
        day = (time - first) // DAY_MS
        behaviour = rows["behaviour"].combine_chunks().dictionary_decode().to_numpy(zero_copy_only=False)
        strange = np.flatnonzero(~np.isin(behaviour, BEHAVIOURS))
        if len(strange):
            raise BadInputError(
                path,
                f"line {row[strange[0]] + 1} has {behaviour[strange[0]]!r}",
                column="behaviour",
                remedy=f"the published ones are {', '.join(BEHAVIOURS)}",
            )
        inside = (day >= 0) & (day < DAYS)
        outside += int((~inside).sum())
        kept = rows.drop_columns(["behaviour", "time"])
        kept = kept.append_column("time", pa.array(time)).append_column("row", pa.array(row))
        kept = kept.append_column("block", pa.array(day))
        yield kept.filter(pa.array(inside & (behaviour == BEHAVIOURS[0])))
    _log.info("%d of %d rows left out: not within %d days from %s", outside, position, DAYS, FIRST_DAY)


def _with_clock(rows: pa.Table) -> pa.Table:
    for name, values in hour_and_weekday(rows["time"].to_numpy(), ZONE).items():
        rows = rows.append_column(name, pa.array(values))
    return rows
