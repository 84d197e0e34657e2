"""A memory together with its earlier stages, as far as they are stored next to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.layout import MANIFEST, stage_in, stage_name
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.pruning import kept_files
from diet_ray.memory.same_bytes import changes
from diet_ray.memory.table_reader import TableReader
from diet_ray.settings import parse_json
from diet_ray.storage.hashes import sha256


@dataclass(frozen=True)
class Lineage:
    """A memory, its folder and its stages."""

    memory: Memory
    folder: Path
    """Folder of the memory's own stage."""
    stages: list[StageManifest]
    """Oldest first, the memory's own last; a stage folder that was copied alone has only its own."""

    @property
    def different_bytes(self) -> list[str]:
        """Where stages were made in another way than those before, one line each (`diet_ray.memory.same_bytes`)."""
        return changes(self.stages)

    @property
    def rows(self) -> dict[int, int]:
        """Number of rows of each block that the stages cover, by the block's index."""
        before = {0: 0} | {stage.index + 1: stage.rows_seen for stage in self.stages}
        return {s.index: s.rows_seen - before[s.index] for s in self.stages if s.index in before}

    def previous(self) -> TableReader | None:
        """Reads the table of phi_{t-1}. None for the first stage, or where that of the stage before is missing or pruned.

        Raises CorruptArtefactError where the file is not the one that was committed.
        """
        if len(self.stages) < 2:
            return None
        stage = self.stages[-2]
        folder = self.folder.parent / stage_name(stage.index)
        if stage.checkpoints[-1] not in kept_files(folder, stage):
            return None
        return TableReader.open(folder, stage)


def trace(path: Path) -> Lineage:
    """Open a run (its last committed stage) or one of its stages, given as a folder. Raises what `load_memory` raises."""
    memory = load_memory(path)
    folder = stage_in(path, memory.stage.index)
    stages = [memory.stage]
    while stages[0].parent_sha256 is not None:
        before = folder.parent / stage_name(stages[0].index - 1) / MANIFEST
        # Where a single stage folder was copied, another run's stage may be there.
        if not before.is_file() or sha256(before) != stages[0].parent_sha256:
            break
        stages.insert(0, parse_json(StageManifest, before))
    return Lineage(memory, folder, stages)
