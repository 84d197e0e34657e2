"""The log as Hugging Face's datasets write it, and an export as they read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from rows import Written, column_report, log, main


def write(folder: Path) -> None:
    """Write all kinds."""
    rows = log()
    del rows["city"]
    made, lacks = {}, {}
    for name, values in rows.items():
        try:
            # From a list, they fail in the conversion to a C long.
            column = np.array(values, np.uint64) if name == "serial" else values
            made[name] = datasets.Dataset.from_dict({name: column})
        except Exception as error:
            lacks[name] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    del made["device"]
    lacks["device"] = "a ClassLabel is written as the number of its name"

    def table(columns: list[str]) -> datasets.Dataset:
        return datasets.concatenate_datasets([made[name] for name in columns], axis=1)

    written = Written("datasets", datasets.__version__, folder)
    written.add("Parquet", "log.parquet", made, lambda columns, path: table(columns).to_parquet(path))
    written.add("CSV", "log.csv", made, lambda columns, path: table(columns).to_csv(path))
    for kind in written.about["kinds"].values():
        kind["lacks"] |= lacks
    written.close()


def read(export: Path) -> dict[str, Any]:
    """Report the columns of an export, whose folder is loaded by its card."""
    units = datasets.load_dataset(str(export), split="train")
    return {name: column_report(units.features[name], list(units[name])) for name in units.column_names}


main(write, read)
