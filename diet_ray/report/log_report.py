"""The contents of a log: rows and labels by block, values by field, and what looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field as Key
from rich.table import Column, Table

from diet_ray.logs.blocks import BlockManifest, Log, open_log
from diet_ray.logs.ingestion import quarantine
from diet_ray.logs.layout import log_manifest_file, vocabulary_file
from diet_ray.logs.notes import Note, told
from diet_ray.schema import Field
from diet_ray.settings import Settings

_SHOWN = 12
"""Most blocks in the table for a terminal."""
_TOLD = 5
"""Most lines on what looks wrong there."""
_ENOUGH = 1000
"""Rows of a block from which its share of positives is compared with that of the others."""


class BlockReport(Settings):
    """A block of the log."""

    name: str
    rows: int
    positives: list[int]
    """Rows with label 1, per task."""
    quarantined: int
    """Rows left out because they broke a rule."""


class FieldReport(Settings):
    """A field of the log."""

    field: str
    kind: str
    values: int | None
    """Values or buckets with an id of their own; None for a sequence, which has those of another field."""
    missing: float | None
    """Share of rows without a value; None where the log does not hold it."""
    unknown: float | None
    """Share of rows with a value that is too rare for an id of its own; None where the log does not hold it."""


class LogReport(Settings):
    """A log as `ingest` and `inspect` show it."""

    log: str
    """The log's folder."""
    rows: int
    ids: int
    """Size of the id space."""
    shards: int
    quarantined: int
    """Rows left out."""
    tasks: list[str]
    blocks: list[BlockReport]
    fields: list[FieldReport]
    suspicious: list[str] = Key(default_factory=list)
    """What looks wrong, in sentences, the likeliest fault first."""
    notes: list[Note] = Key(default_factory=list)
    """What the ingest read otherwise than it stands in the files, or passed over."""


def is_log(path: str | Path) -> bool:
    """Whether a folder is a log."""
    return log_manifest_file(Path(path)).is_file()


def report_log(path: Path) -> LogReport:
    """Report on a log from its manifests and its vocabulary; no row is read.

    Raises:
        CorruptArtefactError: there is no complete log, or one of its manifests is damaged.
    """
    log = open_log(path)
    rows, fields = sum(block.rows for block in log.blocks), _fields(log)
    return LogReport(
        log=str(path),
        rows=rows,
        ids=log.blocks[-1].n_ids,
        shards=sum(len(block.shards) for block in log.blocks),
        quarantined=quarantine.count(path),
        tasks=log.schema.tasks,
        blocks=[
            BlockReport(name=b.name, rows=b.rows, positives=b.positives, quarantined=b.quarantined) for b in log.blocks
        ],
        fields=fields,
        suspicious=[*_odd_blocks(log.blocks, log.schema.tasks), *_odd_fields(fields, rows)],
        notes=log.notes,
    )


def lines_to_print(report: LogReport) -> list[str | Table]:
    """The report for a terminal."""
    first, last = report.blocks[0].name, report.blocks[-1].name
    left = (
        f"; {report.quarantined:,} rows left out, see {Path(report.log) / quarantine.FILE}"
        if report.quarantined
        else ""
    )
    lines: list[str | Table] = [
        f"{report.log}: {report.rows:,} rows in {len(report.blocks)} blocks ({first} to {last}), {report.shards} shards{left}",
        _block_table(report),
        _field_table(report),
    ]
    odd = report.suspicious
    lines += [f"look at: {line}" for line in odd[:_TOLD]]
    if len(odd) > _TOLD:
        lines.append(f"look at: {len(odd) - _TOLD} more, by diet-ray --json inspect {report.log}")
    return lines + told(report.notes)


def _fields(log: Log) -> list[FieldReport]:
    file, rows = vocabulary_file(log.path), sum(block.rows for block in log.blocks)
    own = _values_by_field(file) if file.is_file() else None
    counts = {count.field: count for count in log.counts}

    def values(field: Field) -> int | None:
        if field.kind == "sequence":
            return None
        return field.n_buckets or (own[field.name] if own is not None else None)

    return [
        FieldReport(
            field=field.name,
            kind=field.kind,
            values=values(field),
            missing=counts[field.name].missing / rows if field.name in counts else None,
            unknown=counts[field.name].unknown / rows if field.name in counts else None,
        )
        for field in log.schema.fields
    ]


def _values_by_field(vocabulary: Path) -> Counter[str]:
    """The number of values of each field; batch by batch, because a vocabulary may have more values than fit into memory."""
    counts: Counter[str] = Counter()
    with pq.ParquetFile(vocabulary) as file:
        for batch in file.iter_batches(columns=["field"]):
            for count in pc.value_counts(batch["field"]).to_pylist():
                counts[count["values"]] += count["counts"]
    return counts


def _odd_blocks(blocks: list[BlockManifest], tasks: list[str]) -> Iterator[str]:
    rows = np.array([block.rows for block in blocks])
    starts = np.array([block.time_min for block in blocks])
    usual, length = np.median(rows), np.median(np.diff(starts)) if len(blocks) > 2 else np.inf
    for before, block in pairwise(blocks):
        hours = (block.time_min - before.time_max) / 3_600_000
        if block.time_min - before.time_max > length:
            yield f"no row for {hours:,.0f} hours before block {block.name}: is a file missing?"
    for block in blocks[:-1]:  # the last one may not be over
        if block.rows < usual / 5:
            yield f"block {block.name} has {block.rows:,} rows, the median is {usual:,.0f}: is a file missing?"
    shares = np.array([block.positives for block in blocks]) / rows[:, None]
    for task, name in enumerate(tasks):
        middle = float(np.median(shares[:, task]))
        for block, share in zip(blocks, shares[:, task], strict=True):
            if share in (0, 1):
                yield f"all labels {name} of block {block.name} are {share:.0f}"
            elif block.rows >= _ENOUGH and not middle / 3 <= share <= 3 * middle:
                yield f"{share:.1%} of the labels {name} of block {block.name} are 1, the median is {middle:.1%}"


def _odd_fields(fields: list[FieldReport], rows: int) -> Iterator[str]:
    for part in fields:
        if part.missing is not None and part.missing > 0.5:
            yield f"field {part.field}: {part.missing:.0%} of the rows have no value"
        if part.unknown is not None and part.unknown > 0.5:
            yield f"field {part.field}: {part.unknown:.0%} of the rows have a value too rare for an id of its own: is min_count too high?"
        if part.kind == "vocabulary" and part.values is not None and part.values < 2:
            yield f"field {part.field}: {part.values} value has an id of its own: it tells rows apart by what is missing alone"
        if part.kind == "vocabulary" and part.values is not None and rows >= _ENOUGH and part.values > rows / 2:
            yield f"field {part.field}: {part.values:,} values in {rows:,} rows: is it an id of rows?"


def _block_table(report: LogReport) -> Table:
    tasks = report.tasks if len(report.tasks) <= 3 else report.tasks[:3]
    table = Table("block", *(Column(name, justify="right") for name in ("rows", *(f"{task} = 1" for task in tasks))))
    half = _SHOWN // 2
    for place, block in enumerate(report.blocks):
        if len(report.blocks) > _SHOWN and half <= place < len(report.blocks) - half:
            if place == half:
                table.add_row("...", *[""] * (1 + len(tasks)))
            continue
        shares = [f"{block.positives[task] / block.rows:.1%}" for task in range(len(tasks))]
        table.add_row(block.name, f"{block.rows:,}", *shares)
    return table


def _field_table(report: LogReport) -> Table:
    right = (Column(name, justify="right") for name in ("values", "missing", "too rare"))
    table = Table("field", "kind", *right)
    for part in report.fields:
        shares = ["-" if share is None else f"{share:.1%}" for share in (part.missing, part.unknown)]
        table.add_row(part.field, part.kind, "-" if part.values is None else f"{part.values:,}", *shares)
    return table
