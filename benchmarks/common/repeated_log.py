"""A log of any size for benchmarks: a small log, repeated with new ids each time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from diet_ray.logs.blocks import BlockManifest, Log, LogManifest, Rows, open_log, write_shard
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.settings import write_json
from diet_ray.storage.hashes import sha256
from diet_ray.storage.whole_folder import appearing

SHARD_ROWS = 31_250
FEW = 64
"""Rows per shard of the small block, whose time is that of starting."""


def source_log(name: str, source: Path | None, work: Path) -> Log:
    """The log to repeat; ingested or simulated if it does not exist yet."""
    from diet_ray.logs.readers import READERS
    from diet_ray.logs.simulation.config import SimulateConfig
    from diet_ray.logs.simulation.simulate import simulate

    out = work / name
    if not out.exists():
        if name == "simulated":
            simulate(SimulateConfig(rows=50_000, blocks=4), out)
        else:
            reader = READERS[name]
            ingest(reader.schema, reader.prepare(source, work / "prepared"), out, by=reader.by)
    return open_log(out)


def repeated(log: Log, out: Path, rows: int, shard_rows: int = SHARD_ROWS) -> Log:
    """A log of two blocks: `many` repeats the rows of `log` with new vocabulary ids each time; `few` has a few of its rows."""
    if not out.exists():
        whole = Rows.concat([log.read_block(block) for block in log.blocks])
        order = np.argsort(whole.time, kind="stable")
        whole = whole.take(order)
        with appearing(out, "log") as folder:
            few = [whole.take(np.arange(first, first + FEW)) for first in range(0, 8 * FEW, FEW)]
            times = -(-rows // len(whole))
            static = int(log.schema.first_static_id[-1])
            new = log.blocks[-1].n_ids - static
            n_ids = static + times * new
            blocks = {
                "few": write_block(folder / "blocks" / "few", 0, iter(few), n_ids),
                "many": write_block(folder / "blocks" / "many", 1, _again(whole, rows, shard_rows, static, new), n_ids),
            }
            write_json(folder / "log.json", LogManifest(log_schema=log.schema, blocks=list(blocks)))
    # The rows of `few` are the first of `many`, so the blocks are not in the order of time and `open_log` would refuse the log.
    manifests = [
        BlockManifest.model_validate_json((out / "blocks" / name / "manifest.json").read_bytes())
        for name in ("few", "many")
    ]
    checksums = [sha256(out / "blocks" / name / "manifest.json") for name in ("few", "many")]
    return Log(out, log.schema, manifests, checksums=checksums)


def _again(whole: Rows, rows: int, shard_rows: int, static: int, new: int) -> Iterator[Rows]:
    bounds = np.linspace(0, rows, max(1, round(rows / shard_rows)) + 1).astype(np.int64)
    span, ids = int(whole.time[-1] - whole.time[0]) + 1, int(whole.row_id.max()) + 1
    for first, end in pairwise(bounds.tolist()):
        turn, place = np.divmod(np.arange(first, end), len(whole))
        part = whole.take(place)
        yield Rows(
            row_id=part.row_id + turn * ids,
            time=part.time + turn * span,
            user=part.user,
            ids=np.where(part.ids < static, part.ids, part.ids + turn[:, None] * new).astype(np.int32),
            labels=part.labels,
        )


def write_block(folder: Path, index: int, parts: Iterator[Rows], n_ids: int) -> BlockManifest:
    """Write a block, with one shard per part, and its manifest."""
    folder.mkdir(parents=True)
    shards, times = [], []
    for number, part in enumerate(parts):
        shards.append(write_shard(folder / f"shard-{number:05d}.parquet", part))
        times += [int(part.time[0]), int(part.time[-1])]
    manifest = BlockManifest(
        name=folder.name,
        index=index,
        rows=sum(shard.rows for shard in shards),
        n_ids=n_ids,
        time_min=min(times),
        time_max=max(times),
        positives=np.sum([shard.positives for shard in shards], axis=0).tolist(),
        shards=shards,
    )
    write_json(folder / "manifest.json", manifest)
    return manifest


def part_of(block: BlockManifest, n_shards: int) -> BlockManifest:
    """The block with only its first shards."""
    shards = block.shards[:n_shards]
    return block.model_copy(update={"shards": shards, "rows": sum(shard.rows for shard in shards)})
