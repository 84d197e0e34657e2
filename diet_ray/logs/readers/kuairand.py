"""KuaiRand: impressions of a short-video feed (Gao et al., KuaiRand, CIKM 2022, doi 10.1145/3511808.3557624; CC BY-SA 4.0).

The three publications, Pure, 1K and 27K, have files of one layout. Every impression is a row. The viewer's actions (play time, likes,
comments, ...) are outcomes; of these, only the two tasks `is_click` and `long_view` are kept. The log's `date` disagrees with `time_ms`
near midnight, so blocks are cut on `time_ms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diet_ray.errors import BadInputError, ConfigError
from diet_ray.logs.readers.lookup import Lookup
from diet_ray.logs.readers.published import read_rows, write_rows
from diet_ray.logs.readers.spill import Spill
from diet_ray.storage.parquet import batches

ZONE = "Asia/Shanghai"
"""The zone of the log's dates and hours."""

WINDOW_MS = 3 * 3_600_000
"""Rows are sorted and freed of duplicates three hours at a time; 27K has about 1.3 million rows per three hours on average."""

_LOG = {
    "user_id": pa.int64(),
    "video_id": pa.int64(),
    "date": pa.int64(),
    "hourmin": pa.int64(),
    "time_ms": pa.int64(),
    "tab": pa.int64(),
    "duration_ms": pa.float64(),
    "is_click": pa.int64(),
    "long_view": pa.int64(),
}
_VIDEO = ["author_id", "video_type", "upload_type", "music_type", "music_id"]
_USER = [
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    "onehot_feat1",
    "onehot_feat2",
]
_DERIVED = ["hour", "tag1", "freshness_days"]
COLUMNS = ["time_ms", "user_id", "video_id", "tab", "duration_ms", *_DERIVED, *_VIDEO, *_USER, "is_click", "long_view"]
"""The columns of the prepared file."""

_STREAM = {
    **{name: kind for name, kind in _LOG.items() if name != "hourmin"},
    "hour": pa.int64(),
    "freshness_days": pa.int32(),
    **dict.fromkeys(["tag1", *_VIDEO, *_USER], pa.string()),
}
_REMEDY = "is this a published KuaiRand file?"


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Write `out/kuairand.parquet`, sorted by time.

    Rows whose `time_ms` is on a day before the log's first `date` are left out (141 of 222,444 in the 14-day log): otherwise these few
    rows of a day that is not part of the log would become its first block. Impressions that are there twice are kept once.
    Memory holds the features of the users and videos, about 60 bytes per video (2 GB for 27K), and one window of three hours.

    Args:
        source: the folder of the published files (`log_standard*` and the two feature files, CSV or Parquet), or the one joined
            file `kuairand_stream.parquet`.
        out: folder to write into.

    Raises:
        ConfigError: no source given; the log is not a package and must be downloaded.
        BadInputError: a file is missing, damaged, or lacks a column.
    """
    if source is None:
        raise ConfigError("kuairand: give the folder of the published files (https://kuairand.com) with --from")
    logs = _logs(source) if source.is_dir() else [source]
    features = _features(source) if source.is_dir() else None
    return [write_rows(out / "kuairand.parquet", _sorted(logs, features, out / "kuairand.spill"))]


def _logs(folder: Path) -> list[Path]:
    logs = sorted(path for path in folder.glob("log_standard*") if path.suffix in (".csv", ".parquet"))
    if not logs:
        raise BadInputError(
            folder, "holds no log_standard*.csv or .parquet", remedy="give the folder of the published files"
        )
    return logs


def _features(folder: Path) -> tuple[Lookup, Lookup]:
    """The features of the users and of the videos, as text. Videos also have the columns `upload_dt`, a date, and `tag1`."""
    path = _one(folder, "user_features*")
    users = Lookup(_whole(path, {"user_id": pa.int64(), **dict.fromkeys(_USER, pa.string())}), "user_id", path)
    path = _one(folder, "video_features_basic*")
    text = dict.fromkeys(["tag", *_VIDEO], pa.string())
    videos = _whole(path, {"video_id": pa.int64(), "upload_dt": pa.date32(), **text})
    first = pc.struct_field(pc.extract_regex(videos["tag"], "^(?P<first>[^,]*)"), "first")
    videos = videos.drop_columns("tag").append_column("tag1", first)
    for name in ("tag1", "video_type", "upload_type", "music_type"):  # few values: 4 bytes each instead of their text
        videos = videos.set_column(videos.column_names.index(name), name, videos[name].dictionary_encode())
    return users, Lookup(videos, "video_id", path)


def _sorted(logs: list[Path], features: tuple[Lookup, Lookup] | None, work: Path) -> Iterator[pa.Table]:
    """The rows with `COLUMNS`, sorted by time; those of equal time in the order of the files."""
    first = None
    with Spill(work) as spill:
        for path in logs:
            for rows in _batches(path, _STREAM if features is None else _LOG):
                time, date = rows["time_ms"].to_numpy(), pc.min(rows["date"]).as_py()
                first = date if first is None else min(first, date)
                spill.add(rows, time // WINDOW_MS)
        start = (
            pd.to_datetime(str(first), format="%Y%m%d", errors="coerce").tz_localize(ZONE).value // 1_000_000
            if spill.keys
            else 0
        )
        for key in spill.keys:
            rows = spill.read(key)
            keys = pd.DataFrame({name: rows[name].to_numpy() for name in ("user_id", "video_id", "time_ms")})
            kept = np.flatnonzero((keys["time_ms"] >= start) & ~keys.duplicated())
            kept = kept[np.argsort(keys["time_ms"].to_numpy()[kept], kind="stable")]
            if len(kept):
                rows = rows.take(pa.array(kept))
                yield (rows if features is None else _joined(rows, *features)).select(COLUMNS)


def _joined(rows: pa.Table, users: Lookup, videos: Lookup) -> pa.Table:
    columns = {name: rows[name] for name in rows.column_names}
    columns |= users(rows["user_id"].to_numpy())
    columns |= videos(rows["video_id"].to_numpy())
    columns["tag1"] = pc.fill_null(columns["tag1"].cast(pa.string()), "unknown")
    columns["hour"] = pc.divide(rows["hourmin"], 100)
    shown = pa.array(pd.to_datetime(rows["date"].to_numpy().astype(str), format="%Y%m%d")).cast(pa.date32())
    columns["freshness_days"] = pc.subtract(shown.cast(pa.int32()), columns["upload_dt"].cast(pa.int32()))
    return pa.table(columns)


def _one(folder: Path, pattern: str) -> Path:
    paths = sorted(path for path in folder.glob(pattern) if path.suffix in (".csv", ".parquet"))
    if len(paths) != 1:
        raise BadInputError(
            folder,
            f"holds {len(paths)} files {pattern}, one is needed",
            remedy="give the folder of the published files",
        )
    return paths[0]


def _whole(path: Path, types: dict[str, pa.DataType]) -> pa.Table:
    return pa.concat_tables([pa.schema(list(types.items())).empty_table(), *_batches(path, types)])


def _batches(path: Path, types: dict[str, pa.DataType]) -> Iterator[pa.Table]:
    """The columns `types` of a CSV or Parquet file, batch by batch. In a CSV only an empty cell is missing: "NA" is a value."""
    if path.suffix == ".csv":
        yield from read_rows(path, types, required=[name for name in types if name in _LOG])
        return
    schema = pa.schema(list(types.items()))
    try:
        columns = pq.read_schema(path).names
        missing = [name for name in types if name not in columns]
        if missing:
            raise BadInputError(path, "column is missing", column=missing[0], remedy=_REMEDY)
        for batch in batches(path, list(types)):
            yield pa.Table.from_batches([batch]).select(list(types)).cast(schema)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(path, f"cannot be read: {error}", remedy=_REMEDY) from error
