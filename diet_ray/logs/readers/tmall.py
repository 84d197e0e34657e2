"""Tmall, the log of the IJCAI-15 challenge on repeat buyers: half a year of clicks, carts, purchases and favourites before a sale.

Clicks are the positives; negatives are drawn by `diet_ray.logs.readers.negatives`, with an ISO week as block. The other actions are
outcomes and are left out. Times are days without a year (the sale was in 2014). The time within the day is made up from a hash of the row,
because the file is ordered by user. Age 0 and gender 2 mean unknown; they become missing values, like empty ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError
from diet_ray.logs.readers.clicks import with_negatives
from diet_ray.logs.readers.clock import DAY_MS, hour_and_weekday
from diet_ray.logs.readers.lookup import Lookup
from diet_ray.logs.readers.published import locate, read_rows, read_table, write_rows
from diet_ray.seeds import uniform_by_id

ZONE = "Asia/Shanghai"
"""The zone of the days."""

YEAR = 2014
"""The year of the log, which the file does not give."""

CLICK = 0
"""The `action_type` of a click; 1 is a cart, 2 a purchase, 3 a favourite."""

_ITEM = ["cat_id", "seller_id", "brand_id"]
_TYPES = dict.fromkeys(["user_id", "item_id", *_ITEM, "time_stamp", "action_type"], pa.int64())
_REQUIRED = ["user_id", "item_id", "time_stamp", "action_type"]
_USER = dict.fromkeys(["user_id", "age_range", "gender"], pa.int64())


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Write `out/tmall.parquet`, from the second week on: the first has no negatives.

    Args:
        source: the folder with `user_log_format1.csv` and `user_info_format1.csv`.
        out: folder to write into.

    Raises:
        ConfigError: no source given.
        BadInputError: a file is missing or malformed.
    """
    log = locate(source, ["user_log_format1.csv"], "tmall")
    info = log.with_name("user_info_format1.csv")
    people = Lookup(_people(info), "user_id", info)
    drawn = with_negatives(_clicks(log), out / "tmall.spill", item_features=_ITEM)
    return [write_rows(out / "tmall.parquet", (_joined(rows, people) for rows in drawn))]


def _people(path: Path) -> pa.Table:
    people = read_table(path, _USER)
    columns = {"user_id": people["user_id"]}
    for name, unknown in (("age_range", 0), ("gender", 2)):
        columns[name] = pc.if_else(pc.equal(people[name], unknown), None, people[name])
    return pa.table(columns)


def _clicks(path: Path) -> Iterator[pa.Table]:
    position = 0
    for rows in read_rows(path, _TYPES, required=_REQUIRED):
        row = np.arange(position, position + len(rows), dtype=np.int64)
        position += len(rows)
        midnight = _days(path, rows["time_stamp"].to_numpy(), row)
        time = midnight + (uniform_by_id(row, 0) * DAY_MS).astype(np.int64)
        # Shanghai is UTC+8 all year; day 0 of the epoch was a Thursday.
        week = ((midnight + 8 * 3_600_000) // DAY_MS + 3) // 7
        kept = rows.drop_columns(["time_stamp", "action_type"]).append_column("time", pa.array(time))
        kept = kept.append_column("row", pa.array(row)).append_column("block", pa.array(week))
        yield kept.filter(pa.array(rows["action_type"].to_numpy() == CLICK))


def _days(path: Path, stamp: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Midnight in ms of each stamp, month * 100 + day."""
    kinds, at = np.unique(stamp, return_inverse=True)
    days = pd.to_datetime([f"{YEAR}{kind:04d}" for kind in kinds], format="%Y%m%d", errors="coerce")
    if days.isna().any():
        line = row[np.flatnonzero(days.isna()[at])[0]] + 2  # from 1, after the header
        raise BadInputError(
            path, f"line {line} has no day MMDD", column="time_stamp", remedy="is this the published file?"
        )
    return np.asarray(days.tz_localize(ZONE).tz_convert("UTC").as_unit("ms").asi8[at])


def _joined(rows: pa.Table, people: Lookup) -> pa.Table:
    for name, values in people(rows["user_id"].to_numpy()).items():
        rows = rows.append_column(name, values)
    weekday = hour_and_weekday(rows["time"].to_numpy(), ZONE)["weekday"]
    return rows.append_column("weekday", pa.array(weekday))
