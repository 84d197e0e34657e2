"""The log as Spark writes it, and an export as Spark reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from rows import COLUMNS, PARTITIONED, Written, column_report, log, main

TYPES = {
    "int64": T.LongType(),
    "int64 or null": T.LongType(),
    "instant": T.TimestampType(),
    "wall clock": T.TimestampNTZType(),
    "date": T.DateType(),
    "text": T.StringType(),
    "text or null": T.StringType(),
    "decimal(20,0)": T.DecimalType(20, 0),
    "decimal(10,2)": T.DecimalType(10, 2),
    "float64": T.DoubleType(),
    "duration": T.DayTimeIntervalType(),
    "boolean": T.BooleanType(),
    "list of text or null": T.ArrayType(T.StringType()),
    "list of int64": T.ArrayType(T.LongType()),
}


def _session() -> SparkSession:
    """Spark on one core, without its web page; all else is its default."""
    made = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


def write(folder: Path) -> None:
    """Write all kinds."""
    rows, spark = log(), _session()
    types = {name: TYPES[kind] for name, kind in COLUMNS.items() if kind in TYPES} | {"city": T.StringType()}
    fields = [T.StructField(name, kind) for name, kind in types.items()]
    frame = spark.createDataFrame(list(zip(*(rows[name] for name in types), strict=True)), T.StructType(fields))
    frame = frame.coalesce(1)

    def select(columns: list[str]) -> DataFrame:
        return frame.select(*columns)

    written = Written("Spark", pyspark.__version__, folder)
    names = [name for name in types if name != "city"]
    written.add("Parquet", "log.parquet", names, lambda columns, path: select(columns).write.parquet(str(path)))
    written.add("CSV", "log.csv", names, lambda columns, path: select(columns).write.csv(str(path), header=True))
    written.add("ORC", "log.orc", names, lambda columns, path: select(columns).write.orc(str(path)))
    written.add(
        "partitioned Parquet",
        "partitioned",
        PARTITIONED,
        lambda columns, path: select(columns).write.partitionBy("day", "city").parquet(str(path)),
    )
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export."""
    units = _session().read.parquet(f"{export}/units-*.parquet")
    values = units.collect()
    return {
        field.name: column_report(field.dataType.simpleString(), [row[field.name] for row in values])
        for field in units.schema.fields
    }


main(write, read)
