"""Checks of a run: whether its stages follow from one another, and from the log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diet_ray.config import StreamConfig
from diet_ray.logs.blocks import BlockManifest, LogManifest
from diet_ray.logs.layout import block_folder, block_manifest_file, log_manifest_file
from diet_ray.logs.verify_log import read_blocks, read_rows
from diet_ray.memory.layout import MANIFEST, is_draft, run_manifest, stage_folder, stages_folder
from diet_ray.memory.manifests import RunManifest, StageManifest
from diet_ray.memory.run_folder import differing_keys
from diet_ray.memory.units import Units
from diet_ray.memory.verify_stage import check_stage
from diet_ray.schema import Schema
from diet_ray.storage.faults import Faults, few
from diet_ray.storage.hashes import sha256

REMEDY = "restore it from a copy, or remove this stage and all after it and go on with distill --resume"
ANOTHER_LOG = "name the run's own log with --log, or restore it from a copy"


@dataclass
class _Before:
    """The stage before the one that is checked; None for what could not be read."""

    stage: StageManifest | None = None
    sha256: str | None = None
    units: Units | None = None


@dataclass(frozen=True)
class _Log:
    """The log of the run."""

    path: Path
    schema: Schema
    blocks: list[BlockManifest | None]


def check_run(run: Path, faults: Faults, log: Path | None) -> None:
    """Note all faults of the run in the folder `run`, and where it contradicts `log`.

    Memory holds two stages' units and one shard of the log.
    """
    begun = faults.manifest(RunManifest, run_manifest(run))
    source = _open(log, faults) if log else None
    config = begun.config if begun else None
    before, expected = _Before(), 0
    taken: dict[str, int] = {}
    for index in _stages(run, faults):
        if index > expected:
            faults.add(
                stages_folder(run), f"stages {expected:04d} to {index - 1:04d} are missing, {index:04d} is there"
            )
            before = _Before()
        last, before, expected = before, _Before(), index + 1
        with faults.going_on(stage_folder(run, index)):
            before = _check_stage(stage_folder(run, index), index, config, last, source, taken, faults)
            config = config or (before.stage.config if before.stage else None)


def _check_stage(
    folder: Path,
    index: int,
    config: StreamConfig | None,
    before: _Before,
    source: _Log | None,
    taken: dict[str, int],
    faults: Faults,
) -> _Before:
    """Check a stage; returns what the checks of the next one need of it. `taken` has, per block, the first stage that took it in."""
    stage = faults.manifest(StageManifest, folder / MANIFEST)
    here = None
    with faults.going_on(folder / MANIFEST):
        here = sha256(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if stage is None:
        return _Before(sha256=here)
    _check_lineage(folder / MANIFEST, stage, index, config or stage.config, before, faults)
    first = taken.setdefault(stage.block, index)
    if first != index:
        faults.add(folder / MANIFEST, f"took in block {stage.block!r}, as stage {first:04d} did")
    units = check_stage(folder, stage, faults, before.stage)
    if source is not None:
        _check_source(folder, stage, source, before, faults)
    if units is not None:
        unknown = units
        if index == 0 or before.units is not None:
            unknown = units.take(_check_inherited(folder, stage, units, before.units, faults))
        if source is not None:  # the other units were checked at the stage that added them
            _check_rows(folder, unknown, source, faults)
    return _Before(stage, here, units)


def _stages(run: Path, faults: Faults) -> list[int]:
    """Indices of the stages in the folder, in order. Anything else in it is a fault, except leftovers of an interrupted run."""
    stages, indices = stages_folder(run), list[int]()
    with faults.going_on(stages):
        if stages.is_symlink() or not stages.is_dir():
            faults.add(stages, "is a link" if stages.is_symlink() else "missing")
            return []
        for path in sorted(stages.iterdir()):
            number = int(path.name) if path.name.isdecimal() and path.name.isascii() else -1
            if number >= 0 and path.name == stage_folder(run, number).name and path.is_dir() and not path.is_symlink():
                indices.append(number)
            elif path.is_symlink() or not is_draft(path.name):
                problem = "is a link" if path.is_symlink() else "stray: no manifest names it"
                faults.add(path, problem, remedy="remove it with diet-ray gc --yes")
    return sorted(indices)


def _check_lineage(
    path: Path, stage: StageManifest, index: int, config: StreamConfig, before: _Before, faults: Faults
) -> None:
    if stage.index != index:
        faults.add(path, f"is stage {stage.index}, its folder says {index}")
    if (index == 0 and stage.parent_sha256 is not None) or (before.sha256 and before.sha256 != stage.parent_sha256):
        faults.add(path, "does not follow from the stage before it: another parent_sha256")
    differing = differing_keys(stage.config, config)
    if differing:
        faults.add(path, f"made with another config than the run's: key {', '.join(map(repr, differing))}")
    budget = stage.config.budget
    most = budget.cap if budget.cap is not None else max(1, round((budget.ratio or 0.0) * stage.rows_seen))
    if not 1 <= stage.units <= most:
        faults.add(path, f"says {stage.units} units, the budget for {stage.rows_seen} rows seen is {most}")
    least = int(stage.log_schema.first_static_id[-1])
    if stage.n_ids < least:
        faults.add(path, f"says {stage.n_ids} ids, the fixed ones of its schema alone are {least}")
    last = before.stage
    if stage.rows_seen <= (last.rows_seen if last else 0):
        faults.add(path, f"says {stage.rows_seen} rows seen, not more than the stage before")
    if last and stage.n_ids < last.n_ids:
        faults.add(path, f"says {stage.n_ids} ids, the stage before has {last.n_ids}")
    if last and stage.log_schema != last.log_schema:
        faults.add(path, "has another log_schema than the stage before")


def _check_inherited(folder: Path, stage: StageManifest, units: Units, old: Units | None, faults: Faults) -> np.ndarray:
    """Check that each unit is in the stage before, with the same ids, labels and block, or comes from this stage's block.

    Returns `[M]` bool: the units that are not in the stage before, or differ from it.
    """
    fresh = np.ones(len(units), bool)
    if old is not None:
        _, here, there = np.intersect1d(units.unit_id, old.unit_id, return_indices=True)
        for name in ("ids", "label", "block"):
            now, then = getattr(units, name)[here], getattr(old, name)[there]
            if now.shape[1:] != then.shape[1:]:
                return fresh
            bad = (now != then).reshape(len(here), -1).any(axis=1)
            if bad.any():
                faults.add(
                    folder,
                    f"{few(units.unit_id[here], bad, 'units')}: changed since the stage before",
                    part=f"column {name!r}",
                )
        fresh[here] = False
        gone = ~np.isin(old.unit_id, units.unit_id)
        if stage.config.budget.ratio is not None and gone.any():
            problem = f"{few(old.unit_id, gone, 'units')} of the stage before: gone, though budget.ratio removes none"
            faults.add(folder, problem, part="column 'unit_id'")
    bad = fresh & (units.block != stage.index)
    if bad.any():
        faults.add(
            folder,
            f"{few(units.unit_id, bad, 'units')}: of an earlier block, and not in the stage before",
            part="column 'block'",
        )
    return fresh


def _open(log: Path, faults: Faults) -> _Log | None:
    """The manifests of a log; its rows are not read."""
    manifest = faults.manifest(LogManifest, log_manifest_file(log))
    return _Log(log, manifest.log_schema, read_blocks(log, manifest, faults)) if manifest else None


def _check_source(folder: Path, stage: StageManifest, log: _Log, before: _Before, faults: Faults) -> None:
    """Check that a stage's manifest agrees with the block that the stage took in."""
    path = folder / MANIFEST
    if stage.log_schema != log.schema:
        faults.add(path, f"has another schema than the log {log.path}", remedy=ANOTHER_LOG)
    if stage.index >= len(log.blocks):
        faults.add(path, f"took in block {stage.index}, the log has {len(log.blocks)}", remedy=ANOTHER_LOG)
        return
    block = log.blocks[stage.index]
    if block is None:
        return
    manifest = block_manifest_file(log.path, block.name)
    with faults.going_on(manifest):
        if block.name != stage.block or sha256(manifest) != stage.block_sha256:
            faults.add(path, f"took in another block than {block.name!r} of the log: block_sha256", remedy=ANOTHER_LOG)
    if block.n_ids != stage.n_ids:
        faults.add(path, f"says {stage.n_ids} ids, its block says {block.n_ids}")
    rows_before = before.stage.rows_seen if before.stage else 0 if stage.index == 0 else None
    if rows_before is not None and stage.rows_seen != rows_before + block.rows:
        faults.add(path, f"says {stage.rows_seen} rows seen, with its block they are {rows_before + block.rows}")


def _check_rows(folder: Path, units: Units, log: _Log, faults: Faults) -> None:
    """Check that each unit's row is in its block, with the same ids and labels."""
    for index in np.unique(units.block).tolist():
        block = log.blocks[index] if 0 <= index < len(log.blocks) else None
        if block is None:
            continue
        of_block = units.take(units.block == index)
        missing, whole = np.ones(len(of_block), bool), True
        for shard in block.shards:
            rows = read_rows(block_folder(log.path, block.name) / shard.path, shard, log.schema, faults)
            if rows is None:
                whole = False
                continue
            _, here, there = np.intersect1d(of_block.unit_id, rows.row_id, return_indices=True)
            missing[here] = False
            for name, theirs in (("ids", rows.ids), ("label", rows.labels)):
                ours = getattr(of_block, name)[here]
                if ours.shape[1:] != theirs.shape[1:]:
                    continue  # the schemas differ, which is noted already
                bad = (ours != theirs[there]).any(axis=1)
                if bad.any():
                    faults.add(
                        folder,
                        f"{few(of_block.unit_id[here], bad, 'units')}: not those of the row in block {block.name!r}",
                        part=f"column {name!r}",
                    )
        if whole and missing.any():
            faults.add(
                folder,
                f"{few(of_block.unit_id, missing, 'units')}: no row of block {block.name!r}",
                part="column 'unit_id'",
            )
