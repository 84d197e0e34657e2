"""Avazu's mobile-ad log of the Kaggle challenge (2014): ten days of impressions, clicked or not.

Times are hours, `YYMMDDHH` in UTC, and the file is ordered by them. So that a block can be cut into shards, the rows of an hour follow one
another at 200 a second, in the order of the file; these minutes and seconds are made up and are not a feature. Four in five rows have the
same `device_id`, which means "no device". The address and the model of the device then identify the user, as in the solution of the
challenge's winners.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError
from diet_ray.logs.readers.clock import hour_and_weekday, spread
from diet_ray.logs.readers.published import locate, read_rows, write_rows

NO_DEVICE = "a99f214a"
"""The `device_id` of rows without one."""

PER_SECOND = 200
"""Rows of an hour per made-up second: an hour has about 170,000 on average."""

_TEXT = ["C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"]
_TEXT += ["device_id", "device_ip", "device_model", "device_type", "device_conn_type"]
_TEXT += [f"C{index}" for index in range(14, 22)]


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Write `out/avazu.parquet` from the training file; the challenge's test file has no labels.

    Args:
        source: the folder that holds `train.csv`, `train.gz`, `train.csv.gz` or `train`, or that file.
        out: folder to write into.

    Raises:
        ConfigError: no source given.
        BadInputError: the file is missing or malformed.
    """
    path = locate(source, ["train.csv", "train.gz", "train.csv.gz", "train"], "avazu")
    return [write_rows(out / "avazu.parquet", _rows(path))]


def _rows(path: Path) -> Iterator[pa.Table]:
    types = {"click": pa.int8(), "hour": pa.string(), **dict.fromkeys(_TEXT, pa.string())}
    open_hour, before = -1, 0  # the hour in which the last batch ended, in ms, and its rows so far
    for rows in read_rows(path, types, required=["click", "hour", "device_id"]):
        hour = _hours(path, rows["hour"])
        if hour[0] < open_hour or (np.diff(hour) < 0).any():
            raise BadInputError(
                path, "the hours go back", column="hour", remedy="is this the published file, unsorted?"
            )
        position = np.arange(len(hour)) - np.searchsorted(hour, hour)
        position[hour == open_hour] += before
        open_hour, before = int(hour[-1]), int(position[-1]) + 1
        device, none = rows["device_id"], pc.equal(rows["device_id"], NO_DEVICE)
        place = pc.binary_join_element_wise("ip", rows["device_ip"], rows["device_model"], "-")
        time = hour + spread(position, per_second=PER_SECOND, seconds=3600)
        columns = {
            "time": pa.array(time),
            "user": pc.if_else(none, place, device),
            "click": rows["click"],
            **{name: pa.array(values) for name, values in hour_and_weekday(time, "UTC").items()},
            **{name: rows[name] for name in _TEXT},
        }
        yield pa.table(columns)


def _hours(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    coded = column.combine_chunks().dictionary_encode()
    values = pd.to_datetime(pd.Series(coded.dictionary.to_pylist(), dtype=object), format="%y%m%d%H", errors="coerce")
    if values.isna().any():
        raise BadInputError(path, "an hour is not YYMMDDHH", column="hour", remedy="is this the published file?")
    return np.asarray(values.dt.as_unit("ms").astype("int64").to_numpy()[coded.indices.to_numpy()])
