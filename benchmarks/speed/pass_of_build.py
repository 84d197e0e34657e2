"""A process that runs passes with the build of diet_ray on its PYTHONPATH, this one or an earlier one: see `benchmarks.speed.passes`.

It reads the name of a net per line, and answers with the CPU seconds of a pass over all rows.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
made_rows: Any = importlib.import_module("made_rows")


def module(*names: str) -> Any:
    """The first of some modules that this build has."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


def main() -> None:
    """Answer until the input ends."""
    shape, n = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    passes, workers = (
        module("diet_ray.training.reference", "diet_ray.reference"),
        module("diet_ray.training.workers", "diet_ray.crew"),
    )
    blocks, config = module("diet_ray.logs.blocks", "diet_ray.blocks"), module("diet_ray.config")
    sizes = made_rows.VALUES[shape]
    schema = module("diet_ray.schema").Schema.model_validate(
        {
            "name": "made",
            "time": {"column": "time", "timezone": "UTC"},
            "user": "f0",
            "tasks": ["label"],
            "fields": [{"name": f"f{number}", "kind": "vocabulary"} for number in range(len(sizes))],
        }
    )
    first = int(schema.first_static_id[-1])
    ids = made_rows.made_ids(shape, n)
    index = np.arange(n)
    rows = blocks.Rows(
        row_id=index,
        time=index,
        user=ids[:, 0].copy(),
        ids=(ids + first + np.cumsum([0, *sizes[:-1]])).astype(np.int32),
        labels=made_rows.made_labels(n),
    )
    dnn = {"name": "dnn", "arch": "dnn", "adapter": False}
    nets: dict[str, list[dict[str, Any]] | None] = {
        "dnn": [dnn],
        "dcnv2": [dnn | {"name": "dcnv2", "arch": "dcnv2"}],
        "dcnv2, full matrices": [dnn | {"name": "dcnv2", "arch": "dcnv2", "params": {"rank": 0}}],
        "committee": None,
    }
    models: dict[str, Any] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in models:
            chosen = nets[name]
            settings = config.ReferenceConfig.model_validate({} if chosen is None else {"nets": chosen})
            models[name] = passes.Reference(schema, settings.nets, settings, n_ids=first + sum(sizes), seed=0)
        began = time.process_time()
        passes.train_pass(models[name], [rows], workers.Solo(), rows=n)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
