"""Inspection of a memory: its composition, how far refinement and the reference's drift moved it, its most influential units.

The result depends on a committed stage and the stage before it; the log that was distilled, where it still is in its place, adds its
shares of positives and the values of ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diet_ray.errors import DietError
from diet_ray.logs.blocks import Log, open_log
from diet_ray.memory.dataset import Memory
from diet_ray.memory.download import OnFetch, fetch, name_of
from diet_ray.memory.layout import stage_name
from diet_ray.memory.lineage import Lineage, trace
from diet_ray.memory.pruning import bytes_of_stages
from diet_ray.memory.same_log import check_same_log
from diet_ray.memory.units import Units
from diet_ray.report.id_values import values_of
from diet_ray.settings import Metric, Settings
from diet_ray.storage.places import is_uri

TOP = 10
"""Units listed by name."""

BINS = 20
"""Bins of equal width in a histogram of soft labels."""


class Spread(Settings):
    """The distribution of N values; all figures are nan where N is 0."""

    mean: Metric
    low: Metric
    """The least value."""
    q05: Metric
    median: Metric
    q95: Metric
    high: Metric
    """The largest value."""


class BlockPart(Settings):
    """The units that came from one block."""

    block: int
    """Index of the block."""
    name: str | None
    """Its name; None where its stage is not in the folder."""
    rows: int | None
    """Its rows; None in the same case."""
    units: int
    """Units made from it."""
    share: float
    """Of all units."""
    positives: dict[str, int]
    """Per task: units whose row had label 1."""
    log_positives: dict[str, int] | None
    """Per task: rows of the block with label 1; None where the log or the block's stage is not here."""
    influence: Metric
    """Mean influence."""


class LabelPart(Settings):
    """The units whose row had one label of one task."""

    task: str
    label: int
    """0 or 1."""
    units: int
    share: float
    """Of all units."""
    soft_label: Spread
    """The probability on which students train."""
    histogram: list[int]
    """Units per bin of the soft label, from 0 to 1."""


class FieldPart(Settings):
    """One field: how far its inputs were moved."""

    field: str
    ids: int
    """Number of distinct ids among the units, without padding."""
    embedding_norm: Metric
    """Mean norm of the units' embeddings of the field."""
    delta_norm: Spread
    """Norm of the delta that refinement and alignment added to them."""
    moved: float
    """Share of units whose delta is not zero."""
    drift_ids: int
    """Number of those ids that the table of the stage before also had."""
    cosine: Metric
    """Mean over these ids of the cosine between the id's row in that table and in this one; nan without a stage before."""
    drift: Metric
    """Root mean square of the change of their rows, divided by the root mean square of the rows now; nan in the same case."""


class UnitLine(Settings):
    """One unit."""

    unit_id: int
    block: int
    """Index of its block."""
    influence: float
    weight: float
    labels: dict[str, int]
    """Per task, the row's own."""
    soft_labels: dict[str, float]
    """Per task."""
    ids: dict[str, list[int]]
    """Per field, without padding."""
    values: dict[str, list[str]] | None
    """Per field, what these ids mean in the log; None where the log is not here."""


class Inspection(Settings):
    """The contents of the memory of one stage."""

    memory: str
    """Its path or URI."""
    log: str
    """Name of the log's schema."""
    no_log: str | None
    """Why the log that was distilled could not be read, so that its shares and values are missing; None where it was read."""
    seed: int
    """The run's seed."""
    stage: int
    block: str
    """The last block distilled into it."""
    rows_seen: int
    """Rows of all blocks so far."""
    units: int
    tasks: list[str]
    memory_bytes: int
    """Bytes of its shards on disk."""
    column_bytes: int
    """Bytes of its columns, uncompressed."""
    table_bytes: int
    """Bytes of the embedding table that it needs, float32."""
    kept_bytes: int | None = None
    """Bytes of all files of this stage and those before it that are beside it; None for an archive."""
    pruned_bytes: int | None = None
    """Bytes of the files that were pruned from them (`checkpoints.keep`)."""
    refined: bool | None
    """Whether this stage's refinement was kept; None where there was none."""
    guard_before: Metric
    """Loss on the guard rows before it, nats; nan where there was none."""
    guard_after: Metric
    """The same after it."""
    blocks: list[BlockPart]
    labels: list[LabelPart]
    fields: list[FieldPart]
    weight: Spread
    influence: Spread
    helping: float
    """Share of units whose last measured influence is positive."""
    harming: float
    """Share of units whose last measured influence is negative; the influence of the rest is zero or was not measured."""
    top: list[UnitLine]
    """The units of the largest absolute influence, by which refinement chooses units; ties by the smaller id."""


def inspect(path: str | Path, *, on_fetch: OnFetch | None = None) -> Inspection:
    """Inspect the memory of a run (its last committed stage) or of one of its stages, given as a folder or by its archive's URI.

    `on_fetch` is called with the progress of the download of an archive. Raises the errors of `load_memory`.
    """
    lineage = trace(fetch(path, table_before=True, on_fetch=on_fetch))
    memory, units, stage = lineage.memory, lineage.memory.units, lineage.memory.stage
    tasks = stage.log_schema.tasks
    soft = memory.soft_label.numpy()
    report = stage.refine
    folders = [(lineage.folder.parent / stage_name(before.index), before) for before in lineage.stages[:-1]]
    here = None if is_uri(str(path)) else bytes_of_stages([*folders, (lineage.folder, stage)])
    top = np.lexsort((units.unit_id, -np.abs(units.influence)))[:TOP]
    log, values, no_log = _of_log(lineage, units.ids[top])
    return Inspection(
        memory=name_of(path),
        log=stage.log_schema.name,
        no_log=no_log,
        seed=stage.config.seed,
        stage=stage.index,
        block=stage.block,
        rows_seen=stage.rows_seen,
        units=len(units),
        tasks=tasks,
        memory_bytes=sum(entry.bytes for entry in stage.memory),
        column_bytes=units.nbytes,
        table_bytes=memory.table_bytes,
        kept_bytes=here[0] if here else None,
        pruned_bytes=here[1] if here else None,
        refined=report.kept if report else None,
        guard_before=report.guard_before if report else float("nan"),
        guard_after=report.guard_after if report else float("nan"),
        blocks=_blocks(lineage, log),
        labels=[_label(units, soft, tasks, task, label) for task in range(len(tasks)) for label in (0, 1)],
        fields=_fields(lineage),
        weight=spread(units.weight),
        influence=spread(units.influence),
        helping=float((units.influence > 0).mean()),
        harming=float((units.influence < 0).mean()),
        top=[_line(memory, values, soft, int(m)) for m in top],
    )


def spread(values: np.ndarray) -> Spread:
    """Mean, extremes and quantiles (linear between values) of `values [N]`."""
    if not len(values):
        return Spread.model_validate(dict.fromkeys(Spread.model_fields, float("nan")))
    quantiles = np.quantile(values.astype(np.float64), [0, 0.05, 0.5, 0.95, 1], method="linear")
    low, q05, median, q95, high = (float(value) for value in quantiles)
    return Spread(mean=float(values.mean(dtype=np.float64)), low=low, q05=q05, median=median, q95=q95, high=high)


def drift(before: Tensor, now: Tensor) -> tuple[float, float]:
    """How far rows of a table moved: mean cosine, and rms of the change divided by the rms now; nan where there are no rows.

    Args:
        before: `[N, d]` float32.
        now: `[N, d]` float32, the same rows later.
    """
    if not len(now):
        return float("nan"), float("nan")
    old, new = before.double(), now.double()
    cosine = torch.nn.functional.cosine_similarity(old, new, dim=1).mean()
    return float(cosine), float((new - old).pow(2).mean().sqrt() / new.pow(2).mean().sqrt())


def _of_log(lineage: Lineage, ids: np.ndarray) -> tuple[Log | None, dict[int, str] | None, str | None]:
    """The log that was distilled and the values of `ids` in it, or why it cannot be read."""
    path = lineage.memory.stage.config.log
    try:
        log = open_log(path)
        check_same_log(log, lineage.stages, remedy="put the log that was distilled there")
        return log, values_of(log, ids.ravel().tolist()), None
    except (DietError, OSError) as error:  # the log may be on another machine; the memory can be shown without it
        return None, None, str(error)


def _blocks(lineage: Lineage, log: Log | None) -> list[BlockPart]:
    units, tasks = lineage.memory.units, lineage.memory.stage.log_schema.tasks
    names, rows = {stage.index: stage.block for stage in lineage.stages}, lineage.rows
    parts = []
    order = np.argsort(units.block, kind="stable")  # once: a memory may have units of many thousand blocks
    blocks, begins = np.unique(units.block[order], return_index=True)
    for block, index in zip(blocks.tolist(), np.split(order, begins)[1:], strict=True):
        part = units.take(index)
        parts.append(
            BlockPart(
                block=block,
                name=names.get(block),
                rows=rows.get(block),
                units=len(part),
                share=len(part) / len(units),
                positives={task: int(part.label[:, t].sum()) for t, task in enumerate(tasks)},
                log_positives=dict(zip(tasks, log.blocks[block].positives, strict=True))
                if log and block in names
                else None,
                influence=float(part.influence.mean(dtype=np.float64)),
            )
        )
    return parts


def _label(units: Units, soft: np.ndarray, tasks: list[str], task: int, label: int) -> LabelPart:
    values = soft[units.label[:, task] == label, task]
    return LabelPart(
        task=tasks[task],
        label=label,
        units=len(values),
        share=len(values) / len(units),
        soft_label=spread(values),
        histogram=np.histogram(values, bins=BINS, range=(0, 1))[0].tolist(),
    )


def _fields(lineage: Lineage) -> list[FieldPart]:
    memory, units = lineage.memory, lineage.memory.units
    schema, previous = memory.stage.log_schema, lineage.previous()
    slots = schema.field_of_slot
    lengths = memory.embed(units.ids).norm(dim=2).mean(dim=0)
    deltas = np.linalg.norm(units.delta.astype(np.float64), axis=2)
    parts = []
    for f, name in enumerate(schema.field_names):
        ids = np.setdiff1d(units.ids[:, slots == f], [0])  # 0 is padding
        shared_ids = ids[ids < previous.n_ids] if previous is not None else ids[:0]
        now = memory.rows.take(shared_ids)
        cosine, moved = drift(now if previous is None else previous.take(shared_ids), now)
        parts.append(
            FieldPart(
                field=name,
                ids=len(ids),
                embedding_norm=float(lengths[f]),
                delta_norm=spread(deltas[:, f]),
                moved=float((deltas[:, f] > 0).mean()),
                drift_ids=len(shared_ids),
                cosine=cosine,
                drift=moved,
            )
        )
    return parts


def _line(memory: Memory, values: dict[int, str] | None, soft: np.ndarray, m: int) -> UnitLine:
    """The unit at place `m`."""
    units, schema = memory.units, memory.stage.log_schema
    slots = schema.field_of_slot
    ids = {name: [int(i) for i in units.ids[m, slots == f] if i != 0] for f, name in enumerate(schema.field_names)}
    return UnitLine(
        unit_id=int(units.unit_id[m]),
        block=int(units.block[m]),
        influence=float(units.influence[m]),
        weight=float(units.weight[m]),
        labels={task: int(units.label[m, t]) for t, task in enumerate(schema.tasks)},
        soft_labels={task: float(soft[m, t]) for t, task in enumerate(schema.tasks)},
        ids=ids,
        values={name: [values.get(i, str(i)) for i in of_field] for name, of_field in ids.items()}
        if values is not None
        else None,
    )
