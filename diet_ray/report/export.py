"""Export of a memory as Parquet and safetensors with a card and a manifest. Reading it does not need diet_ray.

    OUT/units-00000.parquet       the units (columns: `ExportManifest.columns`)
    OUT/embeddings.safetensors    `table [n_ids, d]` float32, which embeds real rows; absent where ids are left out
    OUT/moments.safetensors       Adam's moments of the table, only on demand; candidates can then be launched from the export
    OUT/README.md                 the card; it may be edited, so the manifest has no checksum of it
    OUT/manifest.json             ExportManifest, written last

The same memory and options give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.errors import ConfigError
from diet_ray.memory.dataset import Memory
from diet_ray.memory.download import OnFetch, fetch
from diet_ray.memory.layout import MANIFEST
from diet_ray.memory.lineage import trace
from diet_ray.memory.moments import load_moments
from diet_ray.memory.units import Units
from diet_ray.report.card import card
from diet_ray.report.export_manifest import EMBEDDINGS, MOMENTS, ExportManifest, LaunchKeys
from diet_ray.seeds import derive_seed, uniform_by_id
from diet_ray.settings import write_json
from diet_ray.storage.arrays import column_of
from diet_ray.storage.entries import FileEntry, file_entry
from diet_ray.storage.hashes import sha256
from diet_ray.storage.parquet_writing import write_parquet
from diet_ray.storage.tensors import save_tensors
from diet_ray.storage.whole_folder import appearing

FILE_UNITS = 100_000
"""Most units in one Parquet file."""


def export_memory(
    path: str | Path,
    out: Path,
    *,
    units: int | None = None,
    ids: bool = True,
    moments: bool = False,
    trust: Callable[[ExportManifest], str] | None = None,
    licence: str | None = None,
    on_fetch: OnFetch | None = None,
) -> ExportManifest:
    """Export the memory of a run (its last committed stage) or of one of its stages.

    Args:
        path: the run folder or the stage's, or the URI of an archive or of one of its stages.
        out: folder to make. It appears complete or not at all.
        units: how many units to keep (see `prune`); by default all.
        ids: whether to export ids, unit ids and the table. Without them the units are shuffled, since their order reveals time.
        moments: whether to export Adam's moments of the table, twice its bytes, so that candidates can be launched from the export.
        trust: returns the card's section on how far to trust the export, Markdown; see `diet_ray.judge.fidelity.words.trust_in`.
        licence: of the source log, for the card.
        on_fetch: called with the progress of the download of an archive.

    Raises:
        ConfigError: `out` exists, `units` is out of range, moments are wanted without ids, or the archive cannot be reached.
        CorruptArtefactError: there is no committed stage, or a file is damaged.
    """
    if moments and not ids:
        raise ConfigError("--moments: they are of the table, which --without-ids leaves out; leave out one of the two")
    lineage = trace(fetch(path, lineage=True, moments=moments, on_fetch=on_fetch))
    memory, stage = lineage.memory, lineage.memory.stage
    if units is not None and not 1 <= units <= len(memory):
        raise ConfigError(f"--units: {units} asked for, but the memory has {len(memory)}; ask for 1 to {len(memory)}")
    kept = np.arange(len(memory)) if units is None else prune(memory.units, units)
    if not ids:
        kept = kept[
            np.argsort(
                uniform_by_id(memory.units.unit_id[kept], derive_seed(stage.config.seed, "export")), kind="stable"
            )
        ]
    with appearing(out, "export") as folder:
        files = [_write(folder, memory, part, number, ids) for number, part in enumerate(_parts(kept))]
        if ids:
            save_tensors(folder / EMBEDDINGS, {"table": memory.rows.as_pieces()})
            files.append(file_entry(folder / EMBEDDINGS))
        if moments:
            save_tensors(folder / MOMENTS, load_moments(lineage.folder, stage).tensors())
            files.append(file_entry(folder / MOMENTS))
        schema = stage.log_schema
        manifest = ExportManifest(
            diet_ray=version("diet_ray"),
            log=schema.name,
            stage=stage.index,
            stage_sha256=sha256(lineage.folder / MANIFEST),
            blocks={entry.index: entry.block for entry in lineage.stages},
            rows_seen=stage.rows_seen,
            memory_units=len(memory),
            units=len(kept),
            fields=schema.field_names,
            slots=schema.field_of_slot.tolist(),
            tasks=schema.tasks,
            dim=stage.config.reference.dim,
            n_ids=stage.n_ids if ids else None,
            student=stage.config.student,
            launch=LaunchKeys(log_schema=schema, reference=stage.config.reference) if moments else None,
            licence=licence,
            columns=_columns(memory, ids),
            files=files,
        )
        (folder / "README.md").write_text(card(manifest, lineage, trust(manifest) if trust else None), encoding="utf-8")
        write_json(folder / "manifest.json", manifest)
    return manifest


def prune(units: Units, n: int) -> np.ndarray:
    """`[n]` int64, ascending: positions of the units that stay in a smaller memory.

    Every combination of labels keeps its share, to within half a unit for two combinations and (G - 1) / 2 units for G. This is the
    method of Sainte-Lague: a smaller result is always a subset of a larger one. Within a combination, units leave in the same order as
    under a cap (`diet_ray.distill.fuse`): first the lowest influence, then the older block, then the smaller id.
    """
    best_first = np.lexsort((units.unit_id, units.block, units.influence))[::-1]
    _, group = np.unique(units.label[best_first], axis=0, return_inverse=True)
    rank = np.zeros(len(units))
    for label in range(int(group.max()) + 1):
        members = np.flatnonzero(group == label)
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(best_first[np.argsort(rank, kind="stable")[:n]])


def _parts(kept: np.ndarray) -> list[np.ndarray]:
    return [kept[start : start + FILE_UNITS] for start in range(0, len(kept), FILE_UNITS)]


def _write(folder: Path, memory: Memory, index: np.ndarray, number: int, ids: bool) -> FileEntry:
    units, soft = memory.units.take(index), memory.soft_label.numpy()[index]
    columns = {"unit_id": units.unit_id, "ids": units.ids} if ids else {}
    columns |= {"block": units.block, "x": memory.x.numpy()[index].reshape(len(index), -1)}
    for t, task in enumerate(memory.stage.log_schema.tasks):
        columns |= {f"soft_label_{task}": soft[:, t], f"label_{task}": units.label[:, t]}
    columns["weight"] = units.weight
    path = folder / f"units-{number:05d}.parquet"
    write_parquet(pa.table({name: column_of(values) for name, values in columns.items()}), path)
    return file_entry(path)


def _columns(memory: Memory, ids: bool) -> dict[str, str]:
    schema, (n_fields, dim) = memory.stage.log_schema, memory.x.shape[1:]
    columns = {}
    if ids:
        columns["unit_id"] = "int64: id of the log row from which the unit was made; unique"
        columns["ids"] = (
            f"list of {schema.n_slots} int32: the row's ids, in the order of the manifest's `slots`; 0 is padding"
        )
    columns["block"] = "int32: index of the block from which the unit was made"
    columns["x"] = f"list of {n_fields * dim} float32: {n_fields} fields of {dim}, field by field; the input of a net"
    for task in schema.tasks:
        columns[f"soft_label_{task}"] = "float32, 0 to 1: the target"
        columns[f"label_{task}"] = "uint8: the label of the row, 0 or 1"
    columns["weight"] = "float32: weight of the unit's loss"
    return columns
