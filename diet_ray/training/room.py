"""The memory of this machine, and whether a run's table fits into it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from diet_ray.config import ReferenceConfig
from diet_ray.errors import ResourceError
from diet_ray.figures import size

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files in which Linux tells a container's limit."""


def memory_here() -> int:
    """Bytes that a process may use here: the machine's, or the container's limit where that is lower."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal():
            found.append(int(text))
    return min(found)


def check_room(where: str, n_ids: int, config: ReferenceConfig, workers: int = 1, folder: Path | None = None) -> None:
    """Raise ResourceError where a worker's tables are larger than its memory: it would be killed without a word.

    A worker holds the table and its two moments, and a copy of one of them while they grow; or its part of the table and of the moments,
    which may be files in `folder`.
    """
    if config.table.split(workers):
        _check_shard(where, n_ids, config, workers, folder)
        return
    need, have = 4 * 4 * n_ids * config.dim, memory_here()
    if need > have:
        raise ResourceError(
            f"{where}: {n_ids:,} ids of width {config.dim} (key 'reference.dim') take {size(need)} with their moments, {size(have)} are "
            "here; lower the key, ingest with fewer buckets or a higher min_count, split the table (reference.table: {shards: auto}, and "
            "cluster.workers), or take a larger machine"
        )


def _check_shard(where: str, n_ids: int, config: ReferenceConfig, workers: int, folder: Path | None) -> None:
    need, have = 3 * 4 * -(-n_ids // workers) * config.dim, memory_here()
    of = f"{n_ids:,} ids of width {config.dim} (key 'reference.dim') take {size(need)} with their moments in each of {workers} workers"
    if config.table.on == "mmap":
        free = shutil.disk_usage(folder or Path.cwd()).free
        if need > free:
            raise ResourceError(
                f"{where}: {of}, {size(free)} are free in {folder}; raise cluster.workers with reference.table.shards auto, lower the key, "
                "or free some"
            )
    elif need > have:
        raise ResourceError(
            f"{where}: {of} (cluster.workers, reference.table.shards), {size(have)} are here; raise cluster.workers, set "
            "reference.table.on to mmap, lower the key, ingest with fewer buckets or a higher min_count, or take larger machines"
        )
