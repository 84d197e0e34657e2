"""What a launch starts from: the units of a memory, the table that embeds them, and Adam's moments of the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diet_ray.config import ReferenceConfig
from diet_ray.errors import ConfigError, CorruptArtefactError
from diet_ray.memory.dataset import Memory, load_memory
from diet_ray.memory.download import OnFetch, fetch
from diet_ray.memory.layout import MANIFEST
from diet_ray.memory.moments import TableMoments, check_moments, load_moments
from diet_ray.report.export_manifest import EMBEDDINGS, MOMENTS, ExportManifest, is_export
from diet_ray.schema import Schema
from diet_ray.settings import parse_json
from diet_ray.storage.arrays import Columns, column_problems, values_of
from diet_ray.storage.entries import check_file
from diet_ray.storage.parquet import batches
from diet_ray.storage.places import is_uri
from diet_ray.storage.tensors import load_tensors
from diet_ray.training.embedding import lookup


@dataclass(frozen=True)
class Start:
    """What a launch starts from: a table with its moments, and M units over S slots, F fields of width d and T tasks."""

    schema: Schema
    """Of the log."""
    reference: ReferenceConfig
    """How a candidate learns, batch by batch, where it sets nothing itself."""
    table: Tensor
    """`[n_ids, d]` float32."""
    moments: TableMoments
    """Adam's moments of the table."""
    ids: Tensor
    """`[M, S]` int64."""
    delta: Tensor
    """`[M, F, d]` float32."""
    soft_label: Tensor
    """`[M, T]` float32, 0 to 1."""
    weight: Tensor
    """`[M]` float32."""

    @staticmethod
    def of_memory(memory: Memory, moments: TableMoments) -> Start:
        """The units of a memory, and its table."""
        stage, units = memory.stage, memory.units
        return Start(
            stage.log_schema,
            stage.config.reference,
            memory.table,
            moments,
            torch.tensor(units.ids, dtype=torch.int64),
            torch.tensor(units.delta),
            memory.soft_label,
            memory.weight,
        )


def load_start(path: str | Path, *, on_fetch: OnFetch | None = None) -> Start:
    """Load what a launch starts from.

    Args:
        path: the run folder or a stage's folder; the URI of an archive or of one of its stages; or an export with moments and ids.
        on_fetch: called with the progress of a download.

    Raises:
        ConfigError: an export was made without moments or without ids, or see `fetch`.
        DietError: see `fetch`, `load_memory` and `load_moments`.
    """
    if not is_uri(str(path)) and is_export(Path(path)):
        return _of_export(Path(path))
    folder = fetch(path, moments=True, on_fetch=on_fetch)
    memory = load_memory(folder)
    return Start.of_memory(memory, load_moments(folder, memory.stage))


_AGAIN = "export the memory again"


def _of_export(folder: Path) -> Start:
    """What `diet-ray export MEMORY --out FOLDER --moments` wrote."""
    about = parse_json(ExportManifest, folder / MANIFEST)
    if about.n_ids is None or about.launch is None:
        lacking = "table" if about.n_ids is None else "moments of the table"
        raise ConfigError(
            f"{folder}: an export without {lacking}, from which nothing can be launched; export the memory with --moments and with its ids"
        )
    paths = {entry.path: check_file(folder, entry) for entry in about.files}
    shape: tuple[int, int] = (about.n_ids, about.dim)
    table = _tensors(paths, EMBEDDINGS, folder).get("table")
    if table is None or table.dtype != torch.float32 or tuple(table.shape) != shape:
        raise CorruptArtefactError(f"{folder / EMBEDDINGS}, tensor 'table': not torch.float32 {list(shape)}; {_AGAIN}")
    tensors = _tensors(paths, MOMENTS, folder)
    columns: Columns = {
        "ids": (np.int32, len(about.slots)),
        "x": (np.float32, len(about.fields) * about.dim),
        **{f"soft_label_{task}": (np.float32, None) for task in about.tasks},
        "weight": (np.float32, None),
    }
    units = [_units(path, columns) for name, path in sorted(paths.items()) if name.endswith(".parquet")]
    joined = {name: np.concatenate([part[name] for part in units]) for name in columns}
    ids = torch.tensor(joined["ids"], dtype=torch.int64)
    if len(ids) != about.units or not 0 <= int(ids.min()) <= int(ids.max()) < about.n_ids:
        raise CorruptArtefactError(
            f"{folder / MANIFEST}: says {about.units} units of ids below {about.n_ids}, the files differ; {_AGAIN}"
        )
    x = torch.tensor(joined["x"]).view(len(ids), len(about.fields), about.dim)
    return Start(
        about.launch.log_schema,
        about.launch.reference,
        table,
        check_moments(tensors, shape, folder / MOMENTS, _AGAIN),
        ids,
        x - lookup(table, ids, torch.tensor(about.slots)),
        torch.tensor(np.stack([joined[f"soft_label_{task}"] for task in about.tasks], axis=1)),
        torch.tensor(joined["weight"]),
    )


def _tensors(paths: dict[str, Path], name: str, folder: Path) -> dict[str, Tensor]:
    if name not in paths:
        raise CorruptArtefactError(f"{folder / MANIFEST}: lists no {name}; {_AGAIN}")
    return load_tensors(paths[name])


def _units(path: Path, columns: Columns) -> dict[str, np.ndarray]:
    """The columns of one file of units."""
    try:
        table = pa.Table.from_batches(list(batches(path, list(columns))))
    except (OSError, pa.ArrowException) as error:
        raise CorruptArtefactError(f"{path}: not a readable Parquet file ({error}); {_AGAIN}") from error
    for name, problem in column_problems(table.schema, columns):
        raise CorruptArtefactError(f"{path}, column {name!r}: {problem}; {_AGAIN}")
    return {name: values_of(table[name]) for name in columns}
