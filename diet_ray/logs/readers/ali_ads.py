"""Ali display ads ("Ad Display/Click Data on Taobao.com"): eight days of impressions of ads, clicked or not.

Impressions of users without a profile are kept, with missing values for the profile. The behaviour log of the same publication is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from diet_ray.logs.readers.clock import hour_and_weekday
from diet_ray.logs.readers.lookup import Lookup
from diet_ray.logs.readers.published import locate, read_rows, read_table, write_rows

ZONE = "Asia/Shanghai"
"""The zone of the published days."""

_SAMPLE = {"user": pa.int64(), "time_stamp": pa.int64(), "adgroup_id": pa.int64(), "pid": pa.string(), "clk": pa.int8()}
_AD = {
    **dict.fromkeys(["adgroup_id", "cate_id", "campaign_id", "customer", "brand"], pa.int64()),
    "price": pa.float64(),
}
_PROFILE = dict.fromkeys(
    [
        "userid",
        "cms_segid",
        "cms_group_id",
        "final_gender_code",
        "age_level",
        "pvalue_level",
        "shopping_level",
        "occupation",
        "new_user_class_level",  # with a blank at its end in the published header
    ],
    pa.int64(),
)


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Write `out/ali_ads.parquet`; `nonclk` only repeats the label and is left out.

    Args:
        source: the folder with `raw_sample.csv`, `ad_feature.csv` and `user_profile.csv`.
        out: folder to write into.

    Raises:
        ConfigError: no source given.
        BadInputError: a file is missing or malformed.
    """
    sample = locate(source, ["raw_sample.csv"], "ali-ads")
    ads, profiles = sample.with_name("ad_feature.csv"), sample.with_name("user_profile.csv")
    ad = Lookup(read_table(ads, _AD, missing=["NULL"]), "adgroup_id", ads)
    person = Lookup(read_table(profiles, _PROFILE, missing=["NULL"]), "userid", profiles)
    return [
        write_rows(out / "ali_ads.parquet", _joined(read_rows(sample, _SAMPLE, required=list(_SAMPLE)), ad, person))
    ]


def _joined(batches: Iterator[pa.Table], ad: Lookup, person: Lookup) -> Iterator[pa.Table]:
    for rows in batches:
        clock = hour_and_weekday(rows["time_stamp"].to_numpy() * 1000, ZONE)
        columns = {
            "time": rows["time_stamp"],
            "user": rows["user"],
            **person(rows["user"].to_numpy()),
            "adgroup_id": rows["adgroup_id"],
            **ad(rows["adgroup_id"].to_numpy()),
            "pid": rows["pid"],
            **{name: pa.array(values) for name, values in clock.items()},
            "clk": rows["clk"],
        }
        yield pa.table(columns)
