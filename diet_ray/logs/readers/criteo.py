"""Criteo's display-ad logs: 13 counts and 26 hashed categories of an impression, clicked or not.

There are two logs: the Kaggle challenge's (2014, seven days in one file, ordered by time) and the 1 TB log (24 days, one file each, ordered
too). Only the order of the rows is published, neither times nor dates. So times are made up. Days count from 1970-01-01, which nobody will
take for a real date. The single file is cut into seven days of equal rows, and the rows of a `day_N` follow one another at 3,000 a second.
There is no user either: the column `user` is always 0, so GAUC equals AUC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.errors import BadInputError
from diet_ray.logs.readers.clock import DAY_MS, spread
from diet_ray.logs.readers.published import count_lines, locate, read_rows, write_rows

DAYS = 7
"""Days in the file of the Kaggle challenge, as published."""

PER_SECOND = 3000
"""Rows of a `day_N` per made-up second: the largest day has about 200 million, so all fit their day."""

_TYPES = {
    "click": pa.int8(),
    **{f"I{index}": pa.int64() for index in range(1, 14)},
    **{f"C{index}": pa.string() for index in range(1, 27)},
}


def prepare_kaggle(source: Path | None, out: Path) -> list[Path]:
    """Write `out/criteo.parquet` from `train.txt`; the challenge's `test.txt` has no labels.

    Args:
        source: the folder that holds `train.txt` (or `train.txt.gz`), or that file.
        out: folder to write into.

    Raises:
        ConfigError: no source given.
        BadInputError: the file is missing or malformed.
    """
    path = locate(source, ["train.txt", "train.txt.gz"], "criteo-kaggle")
    total = count_lines(path)
    return [write_rows(out / "criteo.parquet", _timed(path, lambda row: row * (DAYS * DAY_MS) // total))]


def prepare_terabyte(source: Path | None, out: Path) -> list[Path]:
    """Write `out/day_NN.parquet` from each `day_N` or `day_N.gz`; the number of days is free.

    Args:
        source: the folder that holds them, or one of them.
        out: folder to write into.

    Raises:
        ConfigError: no source given.
        BadInputError: there is no such file, a day is there twice, or a file is malformed.
    """
    days: dict[int, Path] = {}
    for path in _day_files(source):
        day = int(path.name.removeprefix("day_").removesuffix(".gz"))
        if day in days:
            raise BadInputError(path, "this day is there twice", remedy="keep the packed file or the unpacked one")
        days[day] = path
    return [
        write_rows(out / f"day_{day:02d}.parquet", _timed(path, partial(_moment, day=day)))
        for day, path in sorted(days.items())
    ]


def _day_files(source: Path | None) -> list[Path]:
    folder = source is not None and source.is_dir()
    given = sorted(source.iterdir()) if source is not None and folder else [locate(source, ["day_0"], "criteo-1tb")]
    paths = [path for path in given if re.fullmatch(r"day_[0-9]{1,3}(\.gz)?", path.name)]
    if not paths:
        raise BadInputError(
            given[0] if not folder else str(source),
            "no day_N or day_N.gz",
            remedy="keep the published names: they give the day",
        )
    return paths


def _moment(row: np.ndarray, day: int) -> np.ndarray:
    return day * DAY_MS + spread(row, per_second=PER_SECOND, seconds=DAY_MS // 1000)


def _timed(path: Path, time: Callable[[np.ndarray], np.ndarray]) -> Iterator[pa.Table]:
    first = 0
    for rows in read_rows(path, _TYPES, names=list(_TYPES), delimiter="\t", required=["click"]):
        row = np.arange(first, first + len(rows), dtype=np.int64)
        first += len(rows)
        yield rows.add_column(0, "time", pa.array(time(row))).add_column(
            1, "user", pa.array(np.zeros(len(rows), np.int8))
        )
