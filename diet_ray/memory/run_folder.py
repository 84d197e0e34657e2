"""The run folder: committed stages on disk, each complete or absent; `layout.py` has the names of its files.

The same log, config and seed give the same bytes in every file of a stage.
"""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from diet_ray.config import CheckpointsConfig, StreamConfig
from diet_ray.errors import ConfigError, CorruptArtefactError, LockedError, VersionError
from diet_ray.memory.deltas import full, full_schema, to_file
from diet_ray.memory.facts import stage_facts
from diet_ray.memory.layout import (
    MANIFEST,
    STAGES,
    check_vacant,
    count_committed,
    draft_folder,
    drafts,
    run_manifest,
    stage_folder,
    stage_manifest,
    stage_name,
    stages_folder,
)
from diet_ray.memory.manifests import REFINEMENT, RunManifest, StageManifest
from diet_ray.memory.same_bytes import check_same_bytes, cluster_of
from diet_ray.memory.units import Units, check_columns, from_arrow
from diet_ray.settings import parse_json, write_json
from diet_ray.storage.arrow_files import read_table
from diet_ray.storage.entries import FileEntry, file_entry
from diet_ray.storage.folder_store import FolderStore
from diet_ray.storage.hashes import PACKAGES, other_versions, sha256, versions_of

FREE = ("cluster", "log", "checkpoints")
"""Keys of a run's config that may differ when it goes on."""


def read_stage(run: Path, index: int) -> StageManifest:
    """The manifest of a committed stage. Raises CorruptArtefactError where it is missing or damaged."""
    return parse_json(StageManifest, stage_manifest(run, index))


def check_begin(run: Path, *, resume: bool) -> None:
    """Check, before any work, that there is a run to resume, or none in the way of a new one.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, or it is a file.
        CorruptArtefactError: there is no run to resume.
    """
    if resume:
        parse_json(RunManifest, run_manifest(run))
    else:
        check_vacant(run)


def open_run(
    run: Path, config: StreamConfig, *, resume: bool, allow_different_bytes: bool = False
) -> list[StageManifest]:
    """Begin or resume a run folder; returns the committed stages.

    Args:
        run: the run folder.
        config: the run's config.
        resume: whether to go on with the run that the folder holds.
        allow_different_bytes: let package versions and the keys of `cluster` on which bytes depend differ from those of the last stage.

    Raises:
        ConfigError: the folder holds a run and `resume` is off, or it was begun with another config. Keys of `cluster` may differ if the
            bytes do not depend on them, or if other bytes are allowed.
        CorruptArtefactError: there is no run to resume, or a stage is damaged.
        VersionError: the last stage was made under other package versions, which would give other bytes.
    """
    check_begin(run, resume=resume)
    if not resume:
        stages_folder(run).mkdir(parents=True, exist_ok=True)
        write_json(run_manifest(run), _begun(config))
        return []
    begun = parse_json(RunManifest, run_manifest(run))
    n = count_committed(run)
    last = stage_facts(run, n - 1) if n else None  # read without what another release may have added to it
    made_with = last.made_with.versions if last and last.made_with else begun.versions
    check_begun(begun, config, str(run), versions=made_with, allow_different_bytes=allow_different_bytes)
    if last and not allow_different_bytes:
        check_same_bytes(str(run), cluster_of(last.config), cluster_of(config.model_dump(mode="json")))
    return committed_stages(run)


def _begun(config: StreamConfig) -> RunManifest:
    refinement = REFINEMENT if config.refine.rounds else None
    return RunManifest(
        config=config, versions=versions_of(PACKAGES), refinement=refinement, checkpoints=config.checkpoints
    )


def policy(run: Path, config: StreamConfig) -> CheckpointsConfig:
    """What is kept of the reference when a run goes on with `config`. A run of an earlier build keeps all, unless the config says else."""
    if run_manifest(run).exists() and config.checkpoints == CheckpointsConfig():
        begun = parse_json(RunManifest, run_manifest(run))
        if begun.checkpoints is None:
            return CheckpointsConfig(keep="all")
    return config.checkpoints


def check_begun(
    begun: RunManifest,
    config: StreamConfig,
    where: str,
    *,
    versions: dict[str, str] | None = None,
    allow_different_bytes: bool = False,
) -> None:
    """Raise where a run cannot be continued with that config here.

    Args:
        begun: the run's manifest.
        config: the config to go on with.
        where: the run, as messages call it.
        versions: of the packages that made its last stage; by default those under which it was begun.
        allow_different_bytes: let the versions differ.

    Raises:
        ConfigError: it was begun with another config (`cluster`, `log` and `checkpoints` may differ).
        VersionError: it was made under other package versions.
    """
    other = other_versions(versions or begun.versions, versions_of(PACKAGES))
    if other and not allow_different_bytes:
        raise VersionError(
            f"{where}: begun with {other}; install those, start a new run, or resume with --allow-different-bytes"
        )
    if begun.config.refine.rounds and begun.refinement != REFINEMENT:
        raise ConfigError(
            f"{where}: was begun by another build, whose refinement gives other bytes; start a new run, or go on with that build"
        )
    differing = differing_keys(begun.config, config)
    if differing:
        raise ConfigError(
            f"{where}: was begun with another config, key {differing[0]!r} differs; resume with the run's own config"
        )


def differing_keys(one: StreamConfig, other: StreamConfig) -> list[str]:
    """The keys that must be equal in all configs of a run, but differ in these two."""
    # Compared as JSON, as the run folder holds it: a tuple among `params` is read back as a list.
    left, right = one.model_dump(mode="json"), other.model_dump(mode="json")
    for keys in (left, right):
        keys["reference"].pop("table", None)  # where the table is decides no byte of tensors or units
    return [name for name in left if name not in FREE and left[name] != right[name]]


def committed_stages(run: Path) -> list[StageManifest]:
    """The committed stages of a run, in order; their lineage is checked, their files are not (see `check_file`).

    Raises:
        CorruptArtefactError: a stage is missing between others, is a link, or does not follow from the one before.
    """
    names = FolderStore(run).names(STAGES)
    stages: list[StageManifest] = []
    parent: str | None = None
    while stage_name(len(stages)) in names:
        path = stage_manifest(run, len(stages))
        stage = parse_json(StageManifest, path)
        if stage.index != len(stages) or stage.parent_sha256 != parent:
            raise CorruptArtefactError(
                f"{path}: does not follow from the stage before it; restore the run folder from a copy"
            )
        stages.append(_sharing(stage, stages[-1]) if stages else stage)
        parent = sha256(path)
    beyond = [name for name in names if re.fullmatch(r"[0-9]{4}", name) and int(name) > len(stages)]
    if beyond:
        raise CorruptArtefactError(
            f"{stage_folder(run, len(stages))}: missing, though {beyond[0]} after it is there; restore it from a copy"
        )
    return stages


def _sharing(stage: StageManifest, before: StageManifest) -> StageManifest:
    """The manifest with the config and the schema of the one before where they are equal: they are larger than all the rest of it."""
    same = {name: getattr(before, name) for name in ("config", "log_schema")}
    return stage.model_copy(update={name: value for name, value in same.items() if getattr(stage, name) == value})


class StageDraft:
    """A stage that is being written: a temporary folder that `commit` turns into the real one. Without a commit it stays invisible.

    Each process gives the folder a new name: a worker may outlive its driver for a moment and must not write into the next worker's folder.
    """

    def __init__(self, run: Path, index: int) -> None:
        self.run, self.index = run, index
        self.folder = draft_folder(run, index)
        self._store, self._name = FolderStore(run), f"{STAGES}/{self.folder.name}"

    def begin(self) -> None:
        """Start from an empty folder; folders of interrupted attempts are removed."""
        for left in drafts(self.run, self.index):
            with suppress(OSError):  # a worker that outlives its driver may write there just now
                self._store.delete(f"{STAGES}/{left.name}")
        self._store.make(self._name)

    def commit(self, manifest: StageManifest) -> None:
        """Write the manifest and make the stage visible; its data reaches the disk before the manifest does."""
        self._store.sync_files(self._name)
        write_json(self.folder / MANIFEST, manifest)
        self.reveal()

    def reveal(self) -> None:
        """Make the stage visible, with its manifest, by one rename, after all its files have reached the disk.

        Raises:
            CorruptArtefactError: a link has been laid in the place of the folder or of one of its files.
            LockedError: another process has committed the stage meanwhile. It has the same bytes, and a resumed run continues from it.
        """
        self._store.sync_files(self._name)
        try:
            self._store.move(self._name, f"{STAGES}/{stage_name(self.index)}")
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise LockedError(
                f"{stage_folder(self.run, self.index)}: another process has committed it; wait until that ends, then go on "
                "with --resume"
            ) from error
        self._store.sync(STAGES)


def write_units(path: Path, units: Units) -> FileEntry:
    """Write units as an Arrow IPC file; the same units give the same bytes."""
    table = to_file(units)
    options = pa.ipc.IpcWriteOptions(
        metadata_version=pa.ipc.MetadataVersion.V5,
        use_legacy_format=False,
        compression=pa.Codec("zstd", compression_level=1),
        use_threads=False,
        emit_dictionary_deltas=False,
        unify_dictionaries=False,
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return file_entry(path)


def read_units(path: Path) -> Units:
    """Inverse of `write_units`. Raises CorruptArtefactError where the file cannot be read."""
    try:
        table = read_table(path, lambda schema: check_columns(full_schema(schema), str(path)))
        table.validate(full=True)
    except (OSError, MemoryError, ValueError, pa.ArrowException) as error:
        raise CorruptArtefactError(f"{path}: not a readable Arrow file ({error}); restore it from a copy") from error
    return from_arrow(full(table), str(path))
