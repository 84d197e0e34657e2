"""A small click log with a known truth, written in the canonical format without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diet_ray.logs.blocks import BlockManifest, LogManifest, Rows, write_shard
from diet_ray.schema import Schema
from diet_ray.settings import write_json

SIZES = {"user": 60, "item": 40, "kind": 5, "hour": 8}
DAY = 86_400_000


def schema(tasks: int = 1) -> Schema:
    return Schema.model_validate(
        {
            "name": "synthetic",
            "time": {"column": "time", "unit": "ms"},
            "user": "user",
            "tasks": [f"label_{task}" for task in range(tasks)],
            "fields": [{"name": name, "kind": "hashed", "buckets": size} for name, size in SIZES.items()],
        }
    )


def rows(n: int, *, block: int = 0, tasks: int = 1, seed: int = 0) -> Rows:
    """Rows whose labels follow a fixed additive and pairwise truth, shared by all blocks."""
    truth, rng = np.random.default_rng(seed), np.random.default_rng((seed, block + 1))
    log_schema = schema(tasks)
    effect = {name: truth.normal(0, 1.0, (size, tasks)) for name, size in SIZES.items()}
    taste, kind = truth.normal(0, 1.0, (SIZES["user"], 3)), truth.normal(0, 1.0, (SIZES["item"], 3))
    values = {name: rng.integers(0, size, n) for name, size in SIZES.items()}
    logit = sum(effect[name][values[name]] for name in SIZES) * 0.6
    logit = logit + np.einsum("nk,nk->n", taste[values["user"]], kind[values["item"]])[:, None] * 0.5
    labels = (rng.random((n, tasks)) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    start = log_schema.first_static_id
    ids = np.stack([start[f] + values[name] for f, name in enumerate(SIZES)], axis=1).astype(np.int32)
    return Rows(
        row_id=(np.int64(block) << 32) + np.arange(n, dtype=np.int64),
        time=block * DAY + np.arange(n, dtype=np.int64),
        user=values["user"].astype(np.int64),
        ids=ids,
        labels=labels,
    )


def write_log(path: Path, *, blocks: int = 4, n: int = 2000, shards: int = 2, tasks: int = 1, seed: int = 0) -> Path:
    """Write a log of `blocks` blocks with `n` rows each and return its folder."""
    log_schema = schema(tasks)
    names = [f"block-{index:03d}" for index in range(blocks)]
    for index, name in enumerate(names):
        folder = path / "blocks" / name
        folder.mkdir(parents=True)
        whole = rows(n, block=index, tasks=tasks, seed=seed)
        parts = np.array_split(np.arange(n), shards)
        entries = [write_shard(folder / f"shard-{i:05d}.parquet", whole.take(part)) for i, part in enumerate(parts)]
        manifest = BlockManifest(
            name=name,
            index=index,
            rows=n,
            n_ids=int(log_schema.first_static_id[-1]),
            time_min=int(whole.time[0]),
            time_max=int(whole.time[-1]),
            positives=[int(p) for p in whole.labels.sum(axis=0)],
            shards=entries,
        )
        write_json(folder / "manifest.json", manifest)
    write_json(path / "log.json", LogManifest(log_schema=log_schema, blocks=names))
    return path
