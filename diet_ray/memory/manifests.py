"""The manifests of a run folder with the whole config: one of the run, and one of each committed stage."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

from diet_ray.config import CheckpointsConfig, StreamConfig
from diet_ray.memory.facts import StageFacts
from diet_ray.settings import Settings

FORMAT: Final = 2
"""Version of the run folder's layout; a reader refuses any other."""


REFINEMENT: Final = 2
"""Version of the bytes that refinement makes of the same config; a run that was begun with another does not go on."""


class _Format(Settings):
    format: Literal[2] = FORMAT
    """Version of the layout."""


class RunManifest(_Format):
    """The config of a run, and the package versions that it uses."""

    config: StreamConfig
    """The whole config, defaults filled in."""
    versions: dict[str, str]
    """Versions of the packages on which the bytes of the result depend."""
    refinement: int | None = None
    """`REFINEMENT` of the build that began the run; None where nothing is refined, and in runs of builds before it was recorded."""
    checkpoints: CheckpointsConfig | None = None
    """How much of the reference stays, as the run was begun; None in runs of builds before the key, which keep all as they did."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where they say nothing: the manifests of such runs stay what they were.
        newer = ("refinement", "checkpoints")
        return {name: value for name, value in write(self).items() if name not in newer or value is not None}


class StageManifest(StageFacts, _Format):
    """One committed stage: the memory M_t and the reference phi_t."""

    model_config = ConfigDict(extra="forbid")

    config: StreamConfig
    """The run's config, with the horizon for which the memory was refined (`student`)."""

    @property
    def table_bytes(self) -> int:
        """See `StageFacts.table_bytes`."""
        return self.checkpoints[-1].bytes if self.whole is None else 4 * self.n_ids * self.config.reference.dim
