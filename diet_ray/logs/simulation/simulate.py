"""Simulated logs of any size: made-up users, items and contexts (`values.py`) whose labels have known probabilities (`labels.py`).

The mapper is called once per shard, and no call needs another: the rows of a shard depend on the config alone, whatever the number of
workers. A call holds one shard, and tables of the fields with no more values than a shard has rows.

    LOG/simulate.json       SimulateConfig; with it `true_probability` can be computed for every row of the log
    LOG/log.json, blocks/   as `diet-ray ingest` writes them (`diet_ray.logs.blocks`)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from diet_ray.logs.blocks import LogManifest, write_shard
from diet_ray.logs.id_chain import id_checksums
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.encode_pass import ShardDone
from diet_ray.logs.ingestion.ingest import block_manifest
from diet_ray.logs.ingestion.vocabulary import VOCABULARY
from diet_ray.logs.layout import block_folder, block_manifest_file, log_manifest_file, shard_name
from diet_ray.logs.simulation.config import SimulateConfig
from diet_ray.logs.simulation.labels import FIRST_DAY, draw
from diet_ray.mapper import Mapper, Progress, in_turn, no_progress
from diet_ray.settings import Settings, write_json
from diet_ray.storage.whole_folder import appearing


class ShardToDraw(Settings):
    """The work of a task for one shard."""

    path: str
    """The file to write."""
    block: int
    """Index of the block."""
    first: int
    """Position of the shard's first row in the block."""
    rows: int
    """Number of rows."""


def simulate(
    config: SimulateConfig, out: Path, *, on_progress: Progress = no_progress, each: Mapper = in_turn
) -> LogManifest:
    """Write a simulated log to `out`.

    The same config gives the same bytes. A longer log, of the same config but for `blocks`, begins with the same blocks.

    Args:
        config: the config of the log.
        out: folder to make. It appears complete or not at all.
        on_progress: called after each shard.
        each: calls the draw of each shard, in this process or on a cluster (`diet_ray.engine.fan_out`) whose nodes all see the path.

    Raises:
        ConfigError: `out` exists already, or cannot be made.
    """
    names = [str(FIRST_DAY + block) for block in range(config.blocks)]
    per_block, n_ids = -(-config.rows // config.shard_rows), int(config.log_schema.first_static_id[-1])
    checksums = id_checksums(config.log_schema, Edges(edges={}), VOCABULARY.empty_table(), config.blocks)
    with appearing(out, "log") as folder:
        write_json(folder / "simulate.json", config)
        for name in names:
            block_folder(folder, name).mkdir(parents=True)
        todo = [shard.model_dump_json() for shard in _plan(config, folder, names, per_block)]
        results = each(draw_shard, todo, config=config)
        rows = 0
        for block, name in enumerate(names):
            members = []
            for done in islice(results, per_block):
                members.append(ShardDone.model_validate_json(done))
                rows += members[-1].shard.rows
                on_progress("simulate", block * per_block + len(members), len(todo), rows)
            own = block_manifest(name, block, members, n_ids, checksums[block])
            write_json(block_manifest_file(folder, name), own)
        manifest = LogManifest(log_schema=config.log_schema, blocks=names)
        write_json(log_manifest_file(folder), manifest)
    return manifest


def draw_shard(description: str, config: SimulateConfig) -> bytes:
    """A call of the mapper: draw and write the shard of a `ShardToDraw`."""
    todo = ShardToDraw.model_validate_json(description)
    rows = draw(config, todo.block, todo.first, todo.rows)
    shard = write_shard(Path(todo.path), rows)
    return ShardDone(shard=shard, time_min=int(rows.time[0]), time_max=int(rows.time[-1])).model_dump_json().encode()


def _plan(config: SimulateConfig, folder: Path, names: list[str], per_block: int) -> Iterator[ShardToDraw]:
    """The shards of all blocks, in order; those of a block are about equal."""
    bounds = [config.rows * shard // per_block for shard in range(per_block + 1)]
    for block, name in enumerate(names):
        for shard in range(per_block):
            path = block_folder(folder, name) / shard_name(shard)
            first, end = bounds[shard : shard + 2]
            yield ShardToDraw(path=str(path), block=block, first=first, rows=end - first)
