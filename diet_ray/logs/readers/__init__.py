"""Readers of published logs. Each joins the published files into files for the generic ingest, and has a schema for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from diet_ray.schema import Schema
from diet_ray.settings import load_yaml


@dataclass(frozen=True)
class Reader:
    """The reader of a published log."""

    place: str
    """`MODULE.FUNCTION` of this package that prepares the files. Imported when it is asked for: readers import pandas."""
    preset: str
    """File in `diet_ray/presets` with the schema of those files."""
    by: Literal["day", "week"]
    """The default block length."""

    @property
    def prepare(self) -> Callable[[Path | None, Path], list[Path]]:
        """`prepare(source, out)` writes Parquet files into the folder `out` and returns them.

        source None stands for the log's own package.
        """
        module, _, function = self.place.partition(".")
        found: Callable[[Path | None, Path], list[Path]] = getattr(import_module(f"{__name__}.{module}"), function)
        return found

    @property
    def schema(self) -> Schema:
        """The packaged schema."""
        with as_file(files("diet_ray") / "presets" / self.preset) as path:
            return load_yaml(Schema, path)


READERS = {
    "ali-ads": Reader("ali_ads.prepare", "ali_ads_schema.yaml", "day"),
    "avazu": Reader("avazu.prepare", "avazu_schema.yaml", "day"),
    "complete-journey": Reader("complete_journey.prepare", "complete_journey_schema.yaml", "week"),
    "criteo-1tb": Reader("criteo.prepare_terabyte", "criteo_1tb_schema.yaml", "day"),
    "criteo-kaggle": Reader("criteo.prepare_kaggle", "criteo_kaggle_schema.yaml", "day"),
    "kuairand": Reader("kuairand.prepare", "kuairand_schema.yaml", "day"),
    "kuairand-1k": Reader("kuairand.prepare", "kuairand_large_schema.yaml", "day"),
    "kuairand-27k": Reader("kuairand.prepare", "kuairand_large_schema.yaml", "day"),
    "movielens": Reader("movielens.prepare_csv", "movielens_schema.yaml", "week"),
    "movielens-100k": Reader("movielens.prepare_100k", "movielens_users_schema.yaml", "week"),
    "movielens-1m": Reader("movielens.prepare_1m", "movielens_users_schema.yaml", "week"),
    "taobao": Reader("taobao.prepare", "taobao_schema.yaml", "day"),
    "tmall": Reader("tmall.prepare", "tmall_schema.yaml", "week"),
}
"""The readers by the name that `diet-ray ingest` takes."""
