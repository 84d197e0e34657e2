"""What the bytes of a stage depend on besides its log, config and seed, and whether a resumed run would go on with others.

A stage records it: the keys of `cluster` in its config, and package versions and the processor of the first worker in `made_with`. A run
is compared with its last committed stage. No torch is imported here before it is needed, because `diet-ray status` shows the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from diet_ray.errors import ConfigError
from diet_ray.memory.facts import MadeWith, StageFacts
from diet_ray.settings import Settings
from diet_ray.storage.hashes import PACKAGES, versions_of

if TYPE_CHECKING:
    import torch

ARITHMETIC = 3
"""Increased when a pass of the reference or a round of refinement begins to round otherwise. 2: the table moves without sparse tensors, the
net by fused Adam. 3: the table moves by fused Adam, students with fewer operations."""


class ClusterFacts(Settings):
    """The keys of `cluster` on which bytes depend. All others may change from one resume to the next."""

    model_config = ConfigDict(extra="ignore")

    workers: int
    threads_per_worker: int
    memory_shards: int
    gpus_per_worker: float
    scorers: int
    gpus_per_scorer: float = 0
    precision: str = "float32"

    def deciding(self) -> dict[str, str]:
        """The values that decide, by their key. A share of a GPU gives the bytes of a whole one, and any number of scorers those of one."""
        on_gpu = self.gpus_per_scorer if self.scorers else self.gpus_per_worker
        return {
            "cluster.workers": str(self.workers),
            "cluster.threads_per_worker": str(self.threads_per_worker),
            "cluster.memory_shards": str(self.memory_shards),
            "cluster.precision": self.precision,
            "cluster.gpus_per_worker": _device(self.gpus_per_worker),
            "cluster.gpus_per_scorer": _device(on_gpu),
        }


def made_here(device: torch.device) -> MadeWith:
    """What this process computes with, as a worker with that device."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return MadeWith(
        versions=versions_of(PACKAGES), cpu=torch.backends.cpu.get_cpu_capability(), gpu=gpu, arithmetic=ARITHMETIC
    )


def cluster_of(config: Any) -> dict[str, str]:
    """The keys of `cluster` that decide, in the config of a stage, parsed or as plain data; empty for a config that is damaged."""
    if isinstance(config, Settings):
        config = config.model_dump(mode="json")
    try:
        return ClusterFacts.model_validate(config["cluster"]).deciding()
    except (ValidationError, TypeError, KeyError):
        return {}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Where `now` differs from `before`, such as `cluster.workers 1, now 2`. What only one of them knows cannot be compared."""
    return [f"{key} {value}, now {now[key]}" for key, value in before.items() if key in now and now[key] != value]


def check_same_bytes(where: str, before: dict[str, str], now: dict[str, str]) -> None:
    """Raise ConfigError where the stages after the last committed one would be made in another way; `where` names the run."""
    other = differences(before, now)
    if other:
        raise ConfigError(
            f"{where}: its last stage was made with {'; '.join(other)}: later stages would have other bytes; resume as before, or with "
            "--allow-different-bytes"
        )


def changes(stages: Sequence[StageFacts]) -> list[str]:
    """Where consecutive stages of a run were made in different ways, one line each: allowed by a user, or after a restart elsewhere."""
    bases = [cluster_of(stage.config) | processor(stage.made_with) | versions(stage.made_with) for stage in stages]
    return [
        f"from stage {stages[index].index} on: {'; '.join(other)}"
        for index in range(1, len(bases))
        if (other := differences(bases[index - 1], bases[index]))
    ]


def processor(made: MadeWith | None) -> dict[str, str]:
    """The arithmetic of the build, the instruction set of the CPU that torch uses, and the GPU."""
    if made is None:
        return {"arithmetic of passes": "1"}
    return {"arithmetic of passes": str(made.arithmetic), "instruction set": made.cpu} | (
        {"GPU": made.gpu} if made.gpu else {}
    )


def versions(made: MadeWith | None) -> dict[str, str]:
    """The package versions."""
    return {} if made is None else dict(made.versions)


def _device(gpus: float) -> str:
    return "above 0" if gpus else "0"
