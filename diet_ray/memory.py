"""The synthetic memory in Ray's object store: N shards, each owned by an actor, in immutable versions.

The owner puts a version itself, because an object lives only as long as the process that put it. Readers on the same node map the
owner's buffers without a copy, and a version that they hold stays valid after its owner has moved on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from diet_ray.store import FileEntry, memory_path, write_units
from diet_ray.units import Units, from_arrow, split, to_arrow

KEPT_VERSIONS = 2
"""Versions that an owner keeps alive: the present one and the one that readers may still be fetching."""


@ray.remote(num_cpus=0, max_restarts=0)
class MemoryShard:
    """Owns one shard of the memory."""

    def __init__(self) -> None:
        self.versions: list[Any] = []

    def publish(self, table: Any) -> None:
        """Make an Arrow table of units the shard's new version."""
        self.versions = [*self.versions, ray.put(table)][-KEPT_VERSIONS:]

    def latest(self) -> list[Any]:
        """The reference to the newest version, in a list so that Ray hands over the reference and not the table."""
        return self.versions[-1:]

    def write(self, path: str) -> str:
        """Write the newest version to a file of the shared storage; returns its manifest entry as JSON."""
        units = from_arrow(ray.get(self.versions[-1]), "object store")
        return write_units(Path(path), units).model_dump_json()


class ShardedMemory:
    """Handles of the N owners. It can be sent to any worker; the owners live as long as the process that created them."""

    def __init__(self, n_shards: int) -> None:
        self.owners = [MemoryShard.remote() for _ in range(n_shards)]  # type: ignore[attr-defined]

    def publish(self, units: Units) -> None:
        """Split `units` over the shards and publish a new version of each."""
        parts = split(units, len(self.owners))
        ray.get([owner.publish.remote(to_arrow(part)) for owner, part in zip(self.owners, parts, strict=True)])

    def read(self) -> Units:
        """All units of the newest versions, ordered by unit id."""
        latest = ray.get([owner.latest.remote() for owner in self.owners])
        tables = ray.get([reference for references in latest for reference in references])
        return Units.concat([from_arrow(table, "object store") for table in tables])

    def write(self, folder: Path) -> list[FileEntry]:
        """Let each owner write its shard; returns the manifest entries."""
        paths = [memory_path(folder, index) for index in range(len(self.owners))]
        written = ray.get([owner.write.remote(str(path)) for owner, path in zip(self.owners, paths, strict=True)])
        return [FileEntry.model_validate_json(entry) for entry in written]

    def close(self) -> None:
        """End the owners and with them the memory in the object store."""
        for owner in self.owners:
            ray.kill(owner)
