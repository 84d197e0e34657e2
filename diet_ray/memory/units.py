"""Units: the synthetic examples of the memory, column-wise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from diet_ray.errors import CorruptArtefactError
from diet_ray.seeds import uniform_by_id
from diet_ray.storage.arrays import column_of, values_of

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = {
    "unit_id": (np.int64, False),
    "ids": (np.int32, True),
    "delta": (np.float32, True),
    "logit": (np.float32, True),
    "weight": (np.float32, False),
    "block": (np.int32, False),
    "label": (np.uint8, True),
    "influence": (np.float32, False),
}
"""numpy type of each column, and whether it has several values per unit."""


@dataclass(frozen=True)
class Units:
    """M units over S id slots, F fields of width d and T tasks, ordered by unit id."""

    unit_id: np.ndarray
    """`[M]` int64: the row from which the unit came; unique."""
    ids: np.ndarray
    """`[M, S]` int32."""
    delta: np.ndarray
    """`[M, F, d]` float32: what the unit adds to the embeddings of its ids."""
    logit: np.ndarray
    """`[M, T]` float32: the soft label is its sigmoid."""
    weight: np.ndarray
    """`[M]` float32: weight of the unit's loss."""
    block: np.ndarray
    """`[M]` int32: index of the block from which the unit came."""
    label: np.ndarray
    """`[M, T]` uint8: the row's own labels."""
    influence: np.ndarray
    """`[M]` float32: last measured gradient influence on hard targets; a positive one helps."""

    def __len__(self) -> int:
        return len(self.unit_id)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, uncompressed."""
        return sum(getattr(self, part.name).nbytes for part in fields(self))

    def take(self, index: np.ndarray) -> Units:
        """The units at the positions `index`, or where the mask `index` is true."""
        return Units(**{part.name: getattr(self, part.name)[index] for part in fields(self)})

    def inputs(self, table: Tensor, field_of_slot: np.ndarray) -> Tensor:
        """`[M, F, d]` float32: `E[ids] + delta`, the inputs of a candidate."""
        import torch

        from diet_ray.training.embedding import lookup

        return lookup(table, torch.tensor(self.ids), torch.tensor(field_of_slot)) + torch.tensor(self.delta)

    def updated(self, **columns: np.ndarray) -> Units:
        """A copy with some columns replaced."""
        return replace(self, **columns)

    @staticmethod
    def empty(n_slots: int, n_fields: int, dim: int, n_tasks: int) -> Units:
        """No units, of these shapes."""
        return Units(
            unit_id=np.zeros(0, np.int64),
            ids=np.zeros((0, n_slots), np.int32),
            delta=np.zeros((0, n_fields, dim), np.float32),
            logit=np.zeros((0, n_tasks), np.float32),
            weight=np.zeros(0, np.float32),
            block=np.zeros(0, np.int32),
            label=np.zeros((0, n_tasks), np.uint8),
            influence=np.zeros(0, np.float32),
        )

    @staticmethod
    def concat(parts: list[Units]) -> Units:
        """All units of `parts`, ordered by unit id."""
        joined = {part.name: np.concatenate([getattr(p, part.name) for p in parts]) for part in fields(Units)}
        return Units(**joined).take(np.argsort(joined["unit_id"], kind="stable"))


def shard_of(unit_id: np.ndarray, n_shards: int) -> np.ndarray:
    """`[M]` int64: the memory shard of each unit, which never changes."""
    return (uniform_by_id(unit_id, 0) * n_shards).astype(np.int64)


def split(units: Units, n_shards: int) -> list[Units]:
    """The units of each memory shard, ordered by unit id."""
    shards = shard_of(units.unit_id, n_shards)
    return [units.take(np.flatnonzero(shards == index)) for index in range(n_shards)]


def to_arrow(units: Units) -> pa.Table:
    """The units as an Arrow table; `delta` is flattened to F*d values per row."""
    _, n_fields, dim = units.delta.shape
    flat = units.updated(delta=units.delta.reshape(len(units), n_fields * dim))
    table = pa.table({part.name: column_of(getattr(flat, part.name)) for part in fields(Units)})
    return table.replace_schema_metadata({"n_fields": str(n_fields), "dim": str(dim)})


def check_columns(schema: pa.Schema, where: str) -> tuple[int, int]:
    """F and d of units in Arrow, by the schema alone, before any row is read.

    Raises:
        CorruptArtefactError: a column is missing or of another type; `where` names the file.
    """
    try:
        meta = {key.decode(): int(value) for key, value in (schema.metadata or {}).items()}
        n_fields, dim = meta["n_fields"], meta["dim"]
        if n_fields < 1 or dim < 1:
            raise ValueError(f"{n_fields} fields of width {dim}")
        widths = {name: _width(schema, name, kind, wide) for name, (kind, wide) in COLUMNS.items()}
        for name, width in (("delta", n_fields * dim), ("label", widths["logit"])):
            if widths[name] != width:
                raise ValueError(f"column {name!r} is lists of {widths[name]}, must be of {width}")
    except (KeyError, ValueError) as error:
        raise CorruptArtefactError(f"{where}: not a memory shard ({error}); restore it from a copy") from error
    return n_fields, dim


def _width(schema: pa.Schema, name: str, kind: Any, wide: bool) -> int:
    if schema.names.count(name) != 1:
        raise ValueError(f"column {name!r} is there {schema.names.count(name)} times")
    stored, wanted = schema.field(name).type, pa.from_numpy_dtype(kind)
    if wide and pa.types.is_fixed_size_list(stored) and stored.value_type == wanted and stored.list_size >= 1:
        return int(stored.list_size)
    if wide or stored != wanted:
        raise ValueError(f"column {name!r} is {stored}, must be {f'lists of {wanted}' if wide else wanted}")
    return 1


def from_arrow(table: pa.Table, where: str) -> Units:
    """Inverse of `to_arrow`; the arrays share the table's memory where it is one chunk.

    Raises:
        CorruptArtefactError: a column is missing or of another type, or lacks values; `where` names the file.
    """
    n_fields, dim = check_columns(table.schema, where)
    try:
        columns = {part.name: values_of(table[part.name]) for part in fields(Units)}
        columns["delta"] = columns["delta"].reshape(-1, n_fields, dim)
    except (ValueError, pa.ArrowException) as error:  # a column holds nulls
        raise CorruptArtefactError(f"{where}: not a memory shard ({error}); restore it from a copy") from error
    return Units(**columns)


def unit_problems(units: Units, n_ids: int) -> Iterator[tuple[str, np.ndarray, str]]:
    """The problems with the values of units.

    Args:
        units: M units.
        n_ids: number of ids in the table of their stage.

    Yields:
        The column at fault, the mask `[M]` of the units at fault, and their problem.
    """
    if not len(units):
        return
    problems = [("ids", (units.ids < 0) | (units.ids >= n_ids), f"outside [0, {n_ids})")]
    problems += [
        (name, ~np.isfinite(getattr(units, name)), "not finite") for name in ("delta", "logit", "weight", "influence")
    ]
    problems.append(("label", units.label > 1, "neither 0 nor 1"))
    for column, bad, problem in problems:
        if bad.any():
            yield column, np.logical_or.reduce(bad.reshape(len(units), -1), axis=1), problem
