"""The peer of the benchmark of ingest: what `diet-ray ingest` makes of `made_up_log`, by a plain polars script that knows nothing of it.

    python plain_polars.py FOLDER OUT

It sorts the rows by time, cuts them into days, gives the values of vocabularies ids in the order in which days add them, hashes, fits the
buckets of numbers on the first day, and writes Parquet shards of rows of ids. It checks nothing, and it holds the whole log in memory.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import polars as pl

SHARD_ROWS = 16_384
FIELDS = ["member", "item", "shop", "device", "place", "campaign", "price", "dwell", "tags"]
LEAST = {"member": 2, "item": 2, "shop": 1, "device": 1, "tags": 1}
HASHED = {"place": 10_000, "campaign": 1_000}
BUCKETS = {"price": 32, "dwell": 16}
N_TAGS = 3


def values_of(log: pl.DataFrame, name: str) -> pl.DataFrame:
    """The values of a vocabulary field that have an id, with the day that adds each."""
    values = log.select("day", "row", value=pl.col(name))
    if name == "tags":
        values = values.with_columns(pl.col("value").list.head(N_TAGS)).explode("value").drop_nulls("value").unique()
    counts = values.group_by("day", "value").len().filter(pl.col("len") >= LEAST[name])
    first = counts.group_by("value").agg(pl.col("day").min().alias("added"))
    return first.with_columns(field=pl.lit(FIELDS.index(name), pl.Int32), text=pl.col("value").cast(pl.String))


def edges_of(log: pl.DataFrame) -> dict[str, list[float]]:
    """The bucket edges of the numbers, fitted on the rows of the first day."""
    first = log.filter(pl.col("day") == log["day"][0])
    price, top = first["price"].drop_nulls(), math.log1p(first["dwell"].max())
    n, m = BUCKETS["price"], BUCKETS["dwell"]
    quantiles = {price.quantile(step / n, "linear") for step in range(1, n)}
    return {"price": sorted(quantiles), "dwell": [math.expm1(top * step / m) for step in range(1, m)]}


def bucket(name: str, edges: list[float], start: int) -> pl.Expr:
    """The ids of a numeric field."""
    at = pl.lit(pl.Series(edges)).search_sorted(pl.col(name).cast(pl.Float64), side="right")
    return pl.when(pl.col(name).is_null()).then(1 + FIELDS.index(name)).otherwise(at.cast(pl.Int32) + start).alias(name)


def run(source: Path, out: Path) -> None:
    """Make the log."""
    out.mkdir(parents=True)
    log = pl.read_parquet(sorted(source.glob("*.parquet"))).sort("at", maintain_order=True)
    log = log.with_columns(day=(pl.col("at") // 86_400_000).cast(pl.Int32)).with_row_index("row")
    start, starts = 1 + len(FIELDS), {}
    for name, size in (HASHED | BUCKETS).items():
        starts[name] = start
        start += size
    known = {name: values_of(log, name) for name in LEAST}
    vocabulary = pl.concat([values.select("added", "field", "text") for values in known.values()])
    vocabulary = vocabulary.sort("added", "field", "text").with_row_index("id", start).cast({"id": pl.Int32})
    vocabulary.write_parquet(out / "vocabulary.parquet", compression="zstd", compression_level=1)
    ids: dict[str, pl.Series] = {}
    for name, values in known.items():
        with_id = values.join(vocabulary, on=["added", "field", "text"]).select("value", "id", "added")
        unknown = 1 + FIELDS.index(name)
        slots = {name: pl.col(name)}
        if name == "tags":
            slots = {f"tags{k}": pl.col(name).list.get(k, null_on_oob=True) for k in range(N_TAGS)}
        for slot, value in slots.items():
            rows = log.select("day", value=value).join(with_id, on="value", how="left", maintain_order="left")
            has_id = pl.when(pl.col("added") <= pl.col("day")).then("id").otherwise(pl.lit(unknown, pl.Int32))
            empty = pl.lit(0 if slot[-1] in "12" else unknown, pl.Int32)
            ids[slot] = rows.select(pl.when(pl.col("value").is_null()).then(empty).otherwise(has_id).alias(slot))[slot]
    edges = edges_of(log)
    ids |= log.select(
        *((pl.col(name).hash() % size).cast(pl.Int32) + starts[name] for name, size in HASHED.items()),
        *(bucket(name, edges[name], starts[name]) for name in BUCKETS),
    ).to_dict()
    columns = [*FIELDS[:-1], *(f"tags{k}" for k in range(N_TAGS))]
    encoded = log.select(
        "day",
        pl.col("row").cast(pl.Int64).alias("row_id"),
        pl.col("at").alias("time"),
        (pl.col("member").hash() // 2).cast(pl.Int64).alias("user"),
        pl.concat_arr(*(ids[name] for name in columns)).alias("ids"),
        pl.concat_arr(pl.col("click").cast(pl.UInt8), pl.col("buy").cast(pl.UInt8)).alias("labels"),
    )
    for (day,), block in encoded.partition_by("day", as_dict=True).items():
        (out / str(day)).mkdir()
        block = block.drop("day")
        for number, first in enumerate(range(0, len(block), SHARD_ROWS)):
            shard = block.slice(first, SHARD_ROWS)
            shard.write_parquet(out / str(day) / f"shard-{number:05d}.parquet", compression="zstd", compression_level=1)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
