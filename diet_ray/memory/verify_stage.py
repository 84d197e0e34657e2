"""Checks of the files of one stage: memory shards, checkpoints and the optimiser's moments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open

from diet_ray.candidates.shapes import parameter_shapes
from diet_ray.config import ReferenceConfig
from diet_ray.errors import CorruptArtefactError, VersionError
from diet_ray.memory.deltas import full
from diet_ray.memory.layout import MANIFEST, OPTIMISER, PRUNED, checkpoint, memory_shard
from diet_ray.memory.manifests import StageManifest
from diet_ray.memory.pruning import Pruned
from diet_ray.memory.table_chain import ROWS, broken, links, rows_problem
from diet_ray.memory.units import COLUMNS, Units, shard_of, unit_problems
from diet_ray.schema import Schema
from diet_ray.storage.arrays import Columns
from diet_ray.storage.arrow_files import read_table
from diet_ray.storage.entries import FileEntry
from diet_ray.storage.faults import Faults, few

Shapes = dict[str, tuple[str, list[int]]]
"""safetensors dtype and shape of each tensor of a file."""

PART_BYTES = 8 << 20
"""About the bytes of a tensor that are read at once."""


def check_stage(
    folder: Path, stage: StageManifest, faults: Faults, before: StageManifest | None = None
) -> Units | None:
    """Note all faults of the files of a stage; returns its units, ordered by unit id, or None where a shard could not be read.

    `before` is the manifest of the stage before, where there is one that can be read.

    No memory is allocated by the manifest's claims: sizes, types and row counts are first compared with the files' own headers.
    """
    record = faults.manifest(Pruned, folder / PRUNED) if (folder / PRUNED).exists() else None
    names = {MANIFEST, PRUNED, *(entry.path for entry in stage.files)}
    faults.strays(folder, names, remedy="remove it by hand; diet-ray gc leaves committed stages alone")
    cluster, reference = stage.config.cluster, stage.config.reference
    memory = [memory_shard(folder, index).name for index in range(len(stage.memory))]
    _check_names(folder, "memory shards", stage.memory, memory, cluster.memory_shards, faults)
    # A run of an earlier build has all K of them, and its config has no key that says so.
    alone = len(stage.checkpoints) == 1 and stage.config.checkpoints.keep != "all"
    first = reference.checkpoints - 1 if alone else 0
    checkpoints = [checkpoint(folder, first + index).name for index in range(len(stage.checkpoints))]
    _check_names(folder, "checkpoints", stage.checkpoints, checkpoints, reference.checkpoints - first, faults)
    _check_names(folder, "optimisers", [stage.optimiser], [OPTIMISER], 1, faults)
    _check_figures(folder / MANIFEST, stage, faults)

    units = _check_memory(folder, stage, faults)
    gone = _gone(folder, stage, record, faults)
    _check_weights(folder, stage, before.n_ids if before else None, gone, faults)
    if stage.whole is not None and stage.checkpoints[-1].path not in gone:
        _check_links(folder, stage, before, faults)
    return units


def _gone(folder: Path, stage: StageManifest, record: Pruned | None, faults: Faults) -> set[str]:
    """The files that were pruned; a fault for each that cannot have been."""
    if record is None:
        return set()
    for entry in record.files:
        if entry not in stage.weights:
            faults.add(folder / PRUNED, f"names {entry.path!r}, which is no checkpoint or moments of the manifest")
    if record.after < stage.index + record.keep:
        faults.add(
            folder / PRUNED,
            f"says pruned after stage {record.after:04d} with keep {record.keep}, which keeps this stage",
        )
    return record.names


def _check_names(
    folder: Path, noun: str, entries: list[FileEntry], names: list[str], number: int, faults: Faults
) -> None:
    if len(entries) != number:
        faults.add(folder / MANIFEST, f"names {len(entries)} {noun}, its config asks for {number}")
    for entry, name in zip(entries, names, strict=True):
        if entry.path != name:
            faults.add(folder / MANIFEST, f"names {entry.path!r} where {name!r} belongs")


def _check_figures(path: Path, stage: StageManifest, faults: Faults) -> None:
    """Check what the manifest says of the stage's training and refinement."""
    if not 0 <= stage.reference_logloss < math.inf:
        faults.add(path, f"says a mean loss of {stage.reference_logloss}, which none can be")
    report, rounds = stage.refine, stage.config.refine.rounds
    if report is None:
        return
    if len(report.meta_loss) != rounds or not 0 <= report.skipped <= rounds:
        made = f"{len(report.meta_loss)} rounds of refinement, {report.skipped} of them skipped"
        faults.add(path, f"reports {made}, its config asks for {rounds}")
    if report.kept != (report.guard_after <= report.guard_before):
        what = f"says that refinement was {'' if report.kept else 'not '}kept"
        faults.add(path, f"{what}, with a loss of {report.guard_before} before and {report.guard_after} after it")


def _check_memory(folder: Path, stage: StageManifest, faults: Faults) -> Units | None:
    parts = [_check_shard(folder / entry.path, index, entry, stage, faults) for index, entry in enumerate(stage.memory)]
    read = [part for part in parts if part is not None]
    if not read:
        return None
    units = Units.concat(read)
    twice = np.unique(units.unit_id[1:][units.unit_id[1:] == units.unit_id[:-1]])
    if len(twice):
        faults.add(folder, f"{len(twice)} unit ids occur twice in the memory, the first is {int(twice[0])}")
    if len(read) < len(parts):
        return None
    if len(units) != stage.units:
        faults.add(folder / MANIFEST, f"says {stage.units} units, the memory shards hold {len(units)}")
    return units


def _check_shard(path: Path, index: int, entry: FileEntry, stage: StageManifest, faults: Faults) -> Units | None:
    if not faults.intact(path, entry.bytes, entry.sha256):
        return None
    schema, dim = stage.log_schema, stage.config.reference.dim
    n_tasks = schema.n_tasks
    widths = {"ids": schema.n_slots, "delta": schema.n_fields * dim, "logit": n_tasks, "label": n_tasks}
    wanted: Columns = {name: (kind, widths.get(name)) for name, (kind, _) in COLUMNS.items()}
    try:
        table = full(read_table(path))
    except (OSError, MemoryError, pa.ArrowException) as error:
        faults.add(path, f"not a readable Arrow file ({error})")
        return None
    meta = table.schema.metadata or {}
    shape = [meta.get(key, b"?").decode(errors="replace") for key in (b"n_fields", b"dim")]
    if shape != [str(schema.n_fields), str(dim)]:
        faults.add(path, f"says {shape[0]} fields of width {shape[1]}, the run has {schema.n_fields} of {dim}")
    columns = faults.arrays(path, table, wanted) if faults.columns(path, table.schema, wanted) else None
    if columns is None:
        return None
    columns["delta"] = columns["delta"].reshape(-1, schema.n_fields, dim)
    units = Units(**columns)
    _check_units(path, units, index, stage, faults)
    return units


def _check_units(path: Path, units: Units, index: int, stage: StageManifest, faults: Faults) -> None:
    ids = units.unit_id

    def each(bad: Any, column: str, problem: str) -> None:
        if bad.any():
            faults.add(path, f"{few(ids, bad, 'units')}: {problem}", part=f"column {column!r}")

    each(shard_of(ids, len(stage.memory)) != index, "unit_id", "belongs to another shard")
    each(np.diff(ids, prepend=ids[:1]) < 0, "unit_id", "below the one before")
    for column, bad, problem in unit_problems(units, stage.n_ids):
        each(bad, column, problem)
    each(units.weight < 0, "weight", "below 0")
    each((units.block < 0) | (units.block > stage.index), "block", f"outside the blocks 0 to {stage.index}")


def _check_links(folder: Path, stage: StageManifest, before: StageManifest | None, faults: Faults) -> None:
    """Check that the stages on which a stage's table builds are there, with their tables; damage of these is noted with each of them."""
    if before is not None and stage.whole != (before.index if before.whole is None else before.whole):
        faults.add(
            folder / MANIFEST, f"says that its table builds on stage {stage.whole}, that of the stage before does not"
        )
    try:
        found = links(folder, stage)[:-1]
        for place, link in found:
            lost = next((e for e in (link.checkpoints[-1], link.optimiser) if not (place / e.path).is_file()), None)
            if lost is not None:
                raise broken(folder, stage, link.index, f"has no {lost.path}")
    except (CorruptArtefactError, VersionError) as error:
        faults.add(folder, str(error).removeprefix(f"{folder}: ").partition("; ")[0])


def _check_weights(folder: Path, stage: StageManifest, n_before: int | None, gone: set[str], faults: Faults) -> None:
    """Check the tensors of the checkpoints and of the optimiser, except of files that are `gone`."""
    reference, schema = stage.config.reference, stage.log_schema
    n_rows = stage.n_ids
    net: Shapes | None = None
    for entry in stage.weights:
        path = folder / entry.path
        if entry.path in gone or not faults.intact(path, entry.bytes, entry.sha256):
            continue
        if stage.whole is not None:
            rows = _rows(path, stage.n_ids, n_before, faults)
            if rows is None:
                continue
            n_rows = len(rows)
        if entry.bytes < 4 * max(n_rows, 1) * reference.dim:
            faults.add(path, f"too small for {n_rows} ids of width {reference.dim}")
            continue
        table = {"table": ("F32", [n_rows, reference.dim])}
        listed: Shapes = {} if stage.whole is None else {ROWS: ("I32", [n_rows])}
        if (
            net is None
        ):  # built after the check of a file's size, which shows that a net of this width fits this machine
            net = {f"net.{name}": ("F32", shape) for name, shape in _parameters(reference, schema).items()}
        wanted = _moments(table, net) if entry is stage.optimiser else {**table, **net}
        _check_tensors(path, {**listed, **wanted}, faults)


def _rows(path: Path, n_ids: int, n_before: int | None, faults: Faults) -> np.ndarray | None:
    """The ids of the rows in a file; None, and a fault, where they cannot be."""
    try:
        with safe_open(path, framework="np") as file:
            header = file.get_slice(ROWS)
            shape = header.get_shape()
            if header.get_dtype() != "I32" or len(shape) != 1:
                faults.add(
                    path, f"is {header.get_dtype()} {shape}, must be I32 of one dimension", part=f"tensor {ROWS!r}"
                )
                return None
            rows: np.ndarray = file.get_tensor(ROWS)
    except (OSError, MemoryError, SafetensorError) as error:
        faults.add(path, f"not a readable file of changed rows ({error})")
        return None
    problem = rows_problem(rows, n_before, n_ids)
    if problem:
        faults.add(path, problem, part=f"tensor {ROWS!r}")
        return None
    return rows


def _parameters(reference: ReferenceConfig, schema: Schema) -> dict[str, list[int]]:
    """The shape of each parameter of the committee. The default reference is not built: that would need torch."""
    sizes = {"n_fields": schema.n_fields, "dim": reference.dim, "n_tasks": schema.n_tasks}
    members = [parameter_shapes(net, **sizes) for net in reference.nets]
    if any(member is None for member in members):
        from diet_ray.training.reference import Committee

        built = Committee(reference.nets, schema, reference.dim, seed=0)
        return {name: list(weight.shape) for name, weight in built.named_parameters()}
    return {
        f"members.{i}.net.{name}": shape for i, member in enumerate(members) for name, shape in (member or {}).items()
    }


def _moments(table: Shapes, net: Shapes) -> Shapes:
    """The optimisers' tensors for each parameter; SparseAdam counts its steps in an integer."""
    shapes: Shapes = {}
    for name, (kind, shape) in {**table, **net}.items():
        shapes[f"{name}/exp_avg"] = shapes[f"{name}/exp_avg_sq"] = (kind, shape)
        shapes[f"{name}/step"] = ("I64" if name in table else "F32", [])
    return shapes


def _check_tensors(path: Path, wanted: Shapes, faults: Faults) -> None:
    """Compare a file's header with the shapes `wanted`, then look for numbers that are not finite, a bounded part of a tensor at a time."""
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            for name in sorted(wanted.keys() - names):
                faults.add(path, "missing", part=f"tensor {name!r}")
            for name in sorted(names - wanted.keys()):
                faults.add(path, "does not belong here", part=f"tensor {name!r}")
            for name in sorted(names & wanted.keys()):
                header = file.get_slice(name)
                stored = (header.get_dtype(), list(header.get_shape()))
                if stored != wanted[name]:
                    actual, expected = (f"{kind} {shape}" for kind, shape in (stored, wanted[name]))
                    faults.add(path, f"is {actual}, must be {expected}", part=f"tensor {name!r}")
                    continue
                finite = positive = True
                for values in _parts(file, name, stored[1]):
                    finite = finite and bool(np.isfinite(values).all())
                    positive = positive and not (values < 0).any()
                if not finite:
                    faults.add(path, "not finite", part=f"tensor {name!r}")
                if name.endswith("/exp_avg_sq") and not positive:
                    faults.add(path, "below 0, which no mean of squares is", part=f"tensor {name!r}")
                if name.endswith("/step") and (values < 1).any():
                    faults.add(
                        path, f"says {values.item():g} steps, a stage takes at least one", part=f"tensor {name!r}"
                    )
                if name == "table" and ROWS not in wanted and header[:1].any():
                    faults.add(path, "row 0, the padding, is not zero", part="tensor 'table'")
    except (OSError, MemoryError, SafetensorError) as error:
        faults.add(path, f"not a readable safetensors file ({error})")


def _parts(file: Any, name: str, shape: list[int]) -> Iterator[np.ndarray]:
    """A tensor of an open file in parts along its first dimension; one part where it has no number."""
    if not shape or not shape[0]:
        yield file.get_tensor(name)
        return
    n = max(1, PART_BYTES // max(1, 8 * math.prod(shape[1:])))
    for start in range(0, shape[0], n):
        yield file.get_slice(name)[start : min(start + n, shape[0])]  # a slice that goes beyond the end is an error
