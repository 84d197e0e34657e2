"""Checks of a log's quarantine: the list of the rows that were left out of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diet_ray.logs.blocks import BlockManifest
from diet_ray.logs.ingestion.quarantine import FILE, QUARANTINE
from diet_ray.schema import Schema
from diet_ray.storage.faults import Faults
from diet_ray.storage.parquet import batches

_ALWAYS = ("file", "row", "column", "reason")
"""Columns without nulls."""


def check_quarantine(path: Path, schema: Schema, blocks: Sequence[BlockManifest | None], faults: Faults) -> None:
    """Note all faults of the quarantine of the log in the folder `path`; `blocks` are its manifests. The file is read in batches."""
    file = path / FILE
    claimed = {block.name: block.quarantined for block in blocks if block is not None}
    if file.is_symlink() or (file.exists() and not file.is_file()):
        faults.add(file, "is a link, or no file")
        return
    if not file.exists():
        if any(claimed.values()):
            faults.add(file, f"missing, though {sum(claimed.values())} rows were left out of the blocks")
        return
    counts: Counter[str] = Counter()
    times = _times(blocks)
    last: tuple[str, int] | None = None
    try:
        columns = pq.read_schema(file)
        if not columns.equals(QUARANTINE):
            faults.add(file, f"its columns are {columns.names}, must be {QUARANTINE.names} in their types")
            return
        for batch in batches(file, QUARANTINE.names):
            empty = [name for name in _ALWAYS if batch[name].null_count]
            for name in empty:
                faults.add(file, "has missing values", part=f"column {name!r}")
            if empty:
                return
            last = _check_order(file, batch, last, faults)
            _check_columns(file, batch, schema, faults)
            _check_times(file, batch, times, faults)
            counts.update(batch["block"].drop_null().to_pylist())
    except (OSError, MemoryError, pa.ArrowException) as error:
        faults.add(file, f"not a readable Parquet file ({error})")
        return
    for name in sorted(counts.keys() - claimed.keys()) if None not in blocks else []:
        faults.add(file, f"names block {name!r}, which the log does not have", part="column 'block'")
    for name in claimed:
        if counts[name] != claimed[name]:
            problem = f"names {counts[name]} rows of block {name!r}, its manifest says {claimed[name]}"
            faults.add(file, problem, part="column 'block'")


def _check_order(
    file: Path, batch: pa.RecordBatch, last: tuple[str, int] | None, faults: Faults
) -> tuple[str, int] | None:
    """Check that the rows of each file are in ascending order, so that each is named once. Returns the last row."""
    if not len(batch):
        return last
    # The last row of the batch before is put in front, so that the first row is compared with it.
    names = pa.concat_arrays([pa.array([last[0] if last else None], pa.string()), batch["file"]])
    rows = np.concatenate([[last[1] if last else -1], batch["row"].to_numpy()])
    same = pc.equal(names[1:], names[:-1]).fill_null(False).to_numpy(zero_copy_only=False)
    bad = (rows[1:] < 0) | (same & (rows[1:] <= rows[:-1]))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        problem = f"{int(bad.sum())} are below 0 or not above the one before, the first is {int(rows[1 + at])}"
        faults.add(file, f"{problem} of {names[1 + at].as_py()}", part="column 'row'")
    return names[-1].as_py(), int(rows[-1])


def _check_columns(file: Path, batch: pa.RecordBatch, schema: Schema, faults: Faults) -> None:
    for name in sorted(set(pc.unique(batch["column"]).to_pylist()) - set(schema.columns)):
        faults.add(file, f"names {name[:100]!r}, which the schema does not have", part="column 'column'")


def _times(blocks: Sequence[BlockManifest | None]) -> pa.Table:
    """Columns `block`, `first`, `end`: the seconds of each block whose manifest can be read, from its first one up to the next block's."""
    known = [(block, after) for block, after in zip(blocks, [*blocks[1:], None], strict=True) if block is not None]
    return pa.table(
        {
            "block": pa.array([block.name for block, _ in known], pa.string()),
            "first": pa.array([block.time_min // 1000 for block, _ in known], pa.int64()),
            "end": pa.array(
                [after.time_min // 1000 if after else block.time_max // 1000 + 1 for block, after in known], pa.int64()
            ),
        }
    )


def _check_times(file: Path, batch: pa.RecordBatch, times: pa.Table, faults: Faults) -> None:
    """Check that the rows listed for a block have a time within it."""
    number = pc.index_in(batch["block"], times["block"].combine_chunks(), skip_nulls=True)
    own = batch.filter(number.is_valid())
    number = number.drop_null().to_numpy()
    second = pc.fill_null(own["time"], -(2**62)).to_numpy() // 1000
    first, end = (times[name].to_numpy()[number] for name in ("first", "end"))
    n_rows, n_bad = (
        np.bincount(some, minlength=len(times)) for some in (number, number[(second < first) | (second >= end)])
    )
    _check_unnamed(file, batch.filter(batch["block"].is_null()), times, faults)
    for at in np.flatnonzero(n_bad):
        problem = f"{n_bad[at]} of {n_rows[at]} rows of block {times['block'][int(at)].as_py()!r}: outside its times"
        faults.add(file, problem, part="column 'time'")


def _check_unnamed(file: Path, batch: pa.RecordBatch, times: pa.Table, faults: Faults) -> None:
    """Check that rows listed for no block have no time, or one outside all blocks."""
    if not len(times):
        return
    second = batch["time"].drop_null().to_numpy() // 1000
    first, end = (times[name].to_numpy() for name in ("first", "end"))
    block = np.searchsorted(first, second, side="right") - 1  # -1 takes the last block, which ends no earlier
    bad = (block >= 0) & (second < end[block])
    if bad.any():
        faults.add(file, f"missing for {int(bad.sum())} rows, whose times are within a block", part="column 'block'")
