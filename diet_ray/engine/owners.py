"""The shards of the memory as Ray actors: units are in the object store, and each shard has an actor that owns it and works on it.

The owner itself puts each version into the store, because an object exists only as long as the process that put it. It works on the mapped
buffers. Where the store is full, Ray spills versions to disk.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from diet_ray.config import StreamConfig
from diet_ray.distill.unit_shard import UnitShard
from diet_ray.engine.failures import LostShardError
from diet_ray.memory.units import Units, from_arrow, to_arrow
from diet_ray.schema import Schema


@ray.remote(num_cpus=0, max_restarts=-1)
class ShardOwner(UnitShard):
    """Owns one shard. Ray may restart it; then it refuses to work until a run begins again, because its units are lost."""

    begun = False

    def begin(self, schema: Schema, config: StreamConfig) -> None:
        """See `UnitShard.begin`."""
        super().begin(schema, config)
        self.begun = True

    def hold(self, units: Units) -> None:
        """Make `units` the shard's new version, in the object store."""
        self.version = ray.put(to_arrow(units))
        super().hold(from_arrow(ray.get(self.version), "object store"))

    def do(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Call a method of the shard."""
        if not self.begun and method != "begin":
            raise LostShardError(f"the owner of a memory shard died and lost its units; it cannot run {method!r}")
        return getattr(self, method)(*arguments)


class OwnedShards:
    """Handles of the N owners. They can be sent to any worker; the owners live as long as the process that created them."""

    def __init__(self, size: int) -> None:
        self.size = size
        # Ray's "SPREAD" promises nothing for an actor without CPUs: three owners were seen on one node of three. So each owner is given its
        # node, in turn; where that node dies, `soft` lets Ray restart the owner on another.
        nodes = _working_nodes()
        places = [NodeAffinitySchedulingStrategy(nodes[k % len(nodes)], soft=True) for k in range(size)]
        self.owners = [ShardOwner.options(scheduling_strategy=place).remote() for place in places]  # type: ignore[attr-defined]

    def call(self, method: str, *arguments: Any, each: list[tuple[Any, ...]] | None = None) -> list[Any]:
        """See `Shards.call`: all owners work at once."""
        own = each if each is not None else [arguments] * self.size
        # `begin` waits for an owner that Ray is restarting. No other call may run twice, and a restarted owner has no units for it.
        retries = -1 if method == "begin" else 0
        calls = [
            owner.do.options(max_task_retries=retries).remote(method, given)
            for owner, given in zip(self.owners, own, strict=True)
        ]
        answers: list[Any] = ray.get(calls)
        return answers

    def close(self) -> None:
        """End the owners, and so the memory in the object store."""
        for owner in self.owners:
            ray.kill(owner)


def _working_nodes() -> list[str]:
    """The ids of the nodes that are alive, in a fixed order. A head that offers no CPUs holds no units, unless it is alone."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    working = [node for node in alive if node["Resources"].get("CPU", 0) > 0] or alive
    return sorted(str(node["NodeID"]) for node in working)
