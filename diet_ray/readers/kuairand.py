"""KuaiRand-Pure: impressions of a short-video feed (Gao et al., KuaiRand, CIKM 2022, doi 10.1145/3511808.3557624; CC BY-SA 4.0).

Every impression is a row. What the viewer did (play time, likes, comments, ...) is an outcome; only the two tasks `is_click` and
`long_view` are passed on. The log's `date` disagrees with `time_ms` near midnight, so blocks are cut on `time_ms`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from diet_ray.errors import BadInputError, ConfigError

ZONE = "Asia/Shanghai"
"""The zone of the log's dates and hours."""

_LOG = ["user_id", "video_id", "date", "hourmin", "time_ms", "tab", "duration_ms", "is_click", "long_view"]
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


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Write `out/kuairand.parquet`, sorted by time.

    Rows whose `time_ms` lies on a day before the log's first `date` are left out (141 of 222,444 in the 14-day log): a sliver of
    a day that is not part of the log would otherwise become its first block.

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
    rows = _join(source) if source.is_dir() else _read(source, ["date", *COLUMNS])
    local = pd.DatetimeIndex(pd.to_datetime(rows["time_ms"], unit="ms", utc=True)).tz_convert(ZONE)
    first = pd.to_datetime(str(rows["date"].min())).tz_localize(ZONE)
    rows = rows.loc[local >= first, COLUMNS].sort_values("time_ms", kind="stable", ignore_index=True)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "kuairand.parquet"
    rows.to_parquet(path, index=False, row_group_size=65_536)
    return [path]


def _join(folder: Path) -> pd.DataFrame:
    """The published files as one table with the columns of `kuairand_stream.parquet`, duplicated impressions once."""
    logs = sorted(path for path in folder.glob("log_standard*") if path.suffix in (".csv", ".parquet"))
    if not logs:
        raise BadInputError(
            folder, "holds no log_standard*.csv or .parquet", remedy="give the folder of the published files"
        )
    log = pd.concat([_read(path, _LOG) for path in logs], ignore_index=True)
    log = log.drop_duplicates(["user_id", "video_id", "time_ms"])
    users = _read(_one(folder, "user_features*"), ["user_id", *_USER])
    videos = _read(_one(folder, "video_features_basic*"), ["video_id", "upload_dt", "tag", *_VIDEO])
    rows = log.merge(users, "left", "user_id").merge(videos, "left", "video_id")
    rows["hour"] = rows["hourmin"] // 100
    rows["tag1"] = rows["tag"].str.split(",").str[0].fillna("unknown")
    rows["freshness_days"] = (pd.to_datetime(rows["date"].astype(str)) - pd.to_datetime(rows["upload_dt"])).dt.days
    return rows


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.glob(pattern) if path.suffix in (".csv", ".parquet"))
    if len(found) != 1:
        raise BadInputError(
            folder,
            f"holds {len(found)} files {pattern}, one is needed",
            remedy="give the folder of the published files",
        )
    return found[0]


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            # Only an empty cell is missing: "NA" and the like are ordinary values of the feature files.
            table = pd.read_csv(path, keep_default_na=False, na_values=[""], usecols=lambda name: name in columns)
        else:
            table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInputError(path, f"cannot be read: {error}", remedy="is this a published KuaiRand file?") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise BadInputError(path, "column is missing", column=missing[0], remedy="is this a published KuaiRand file?")
    return table[columns]
