"""The memory of this machine, and whether a run's table fits into it."""

from __future__ import annotations

import os
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


def check_room(where: str, n_ids: int, config: ReferenceConfig) -> None:
    """Raise ResourceError where a worker's tables are larger than its memory: it would be killed without a word.

    A worker holds the table, its two moments and the K checkpoints of the block.
    """
    tables = 3 + config.checkpoints
    need, have = tables * 4 * n_ids * config.dim, memory_here()
    if need > have:
        raise ResourceError(
            f"{where}: {n_ids:,} ids of width {config.dim} (key 'reference.dim') take {size(need)} with their moments and "
            f"{config.checkpoints} checkpoints (key 'reference.checkpoints'), {size(have)} are here; lower one of the keys, ingest with "
            "fewer buckets or a higher min_count, or take a larger machine"
        )
