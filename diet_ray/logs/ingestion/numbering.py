"""Giving out ids: from the counts on disk (`value_counts.py`) to the vocabulary, in bounded memory, however many values there are.

    merge    per range of keys: sum the counts of its values, keep those that are frequent enough   -> a sorted run
    number   merge the runs into the vocabulary's order, and give out the ids                       -> vocabulary, index of ids

Ids are given out block by block, as if the blocks had arrived one after another: a value enters in the first block that has it in at least
its field's `min_count` rows. Within a block, the order is that of the fields, then that of the values' UTF-8.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field as Key

from diet_ray.errors import SchemaError
from diet_ray.logs.ingestion.id_index import IDS, KEYS, SIZES, TYPES, write_opens
from diet_ray.logs.ingestion.value_counts import COUNTS, merge_counts, one_batch
from diet_ray.logs.ingestion.vocabulary import VOCABULARY, ids_after, mapped_vocabulary
from diet_ray.mapper import Mapper, in_turn
from diet_ray.schema import MAX_IDS, Schema
from diet_ray.settings import Settings, parse_json, write_json
from diet_ray.storage.arrays import values_of

RANGE_BYTES = 32 << 20
"""Bytes of counts that a call of the merge reads."""

CHUNK_BYTES = 32 << 20
"""Bytes of values that are brought into order at a time."""

BATCH_ROWS = 1 << 18
"""Values in a batch of the vocabulary. Their text, at most 4096 bytes each, fits in one array."""

_RUN = pa.schema([COUNTS.field(name) for name in ("block", "field", "value", "key")])
_ORDER = [(name, "ascending") for name in ("block", "field", "value")]
_ROW_BYTES = 24
"""Bytes of a value in a run, beside its text."""


class CountFiles(Settings):
    """All files of counts (`value_counts.CountFile`) of an ingest."""

    files: list[str]
    least: list[int]
    """`[F]`: rows of one block that a new value of each field needs."""


class KeyRange(Settings):
    """The work of a call of the merge."""

    low: int
    """The first key."""
    end: int
    """The key behind the last one, at most 2^64."""


class Run(Settings):
    """Values that get an id, in an Arrow file: schema `_RUN`, one batch, in the order of their ids."""

    file: str
    groups: list[tuple[int, int]] = Key(default_factory=list)
    """The (block, field) of the values, ascending."""
    rows: list[int] = Key(default_factory=list)
    """Values of each group."""
    n_bytes: int
    """Bytes of all values."""


def number(
    files: list[str], n_bytes: int, schema: Schema, work: Path, *, n_blocks: int, each: Mapper = in_turn
) -> pa.Table:
    """Give out the ids of a log.

    Args:
        files: the files of counts.
        n_bytes: bytes of the counts in them.
        schema: the log's.
        work: folder for temporary files; the index of ids (`id_index.py`) appears in it.
        n_blocks: B, number of blocks of the log.
        each: calls the merge, where one call is not enough.

    Returns:
        A table of the schema `VOCABULARY`, mapped from a file in `work`.

    Raises:
        SchemaError: the id space would exceed 2^31.
        SameKeyError: two values have the same key.
    """
    n_ranges = max(1, -(-n_bytes // RANGE_BYTES))
    bounds = [(1 << 64) * at // n_ranges for at in range(n_ranges + 1)]
    write_json(work / "counts.json", CountFiles(files=files, least=[field.least_rows for field in schema.declared]))
    todo = [KeyRange(low=low, end=end).model_dump_json() for low, end in pairwise(bounds)]
    results = (each if n_ranges > 1 else in_turn)(merge_range, todo, work=str(work))
    runs = [Run.model_validate_json(result) for result in results]
    start, n_values = int(schema.first_static_id[-1]), sum(sum(run.rows) for run in runs)
    if start + n_values > MAX_IDS:
        raise SchemaError(
            f"log {schema.name!r} needs {start + n_values} ids, more than 2^31: hash its largest fields, or raise min_count"
        )
    _write_in_order(runs, schema, work)
    vocabulary = mapped_vocabulary(work / "vocabulary.arrow")
    (work / SIZES).write_bytes(ids_after(vocabulary, schema, n_blocks).astype(TYPES[SIZES]).tobytes())
    return vocabulary


def merge_range(description: str, work: str) -> bytes:
    """A call of the mapper: write the values of a `KeyRange` that get an id as a `Run`."""
    wanted, about = KeyRange.model_validate_json(description), parse_json(CountFiles, Path(work) / "counts.json")
    counts = merge_counts([part for file in about.files for part in _within(file, wanted)])
    least = np.array(about.least, np.int64)[values_of(counts["field"])]
    counts = counts.filter(pa.array(values_of(counts["rows"]) >= least))
    key = values_of(counts["key"])
    first = np.flatnonzero(
        np.append(True, key[1:] != key[:-1])[: len(key)]
    )  # by block: the first one that has it often enough
    run = one_batch(counts.take(pa.array(first)).select(_RUN.names).sort_by(_ORDER))
    file = Path(work) / f"{secrets.token_hex(8)}.run.arrow"
    with pa.ipc.new_file(str(file), _RUN) as writer:
        writer.write_batch(run)
    block, field = (run[name].to_numpy() for name in ("block", "field"))
    opens = np.flatnonzero(
        np.append(True, (np.diff(block) > 0) | (np.diff(field) > 0) | (np.diff(block) < 0))[: len(run)]
    )
    done = Run(
        file=str(file),
        groups=list(zip(block[opens].tolist(), field[opens].tolist(), strict=True)),
        rows=np.diff([*opens, len(run)]).tolist(),
        n_bytes=run.nbytes,
    )
    return done.model_dump_json().encode()


def _within(file: str, wanted: KeyRange) -> Iterator[pa.Table]:
    """The counts in a file of the keys that are wanted."""
    with pa.ipc.open_file(pa.memory_map(file)) as reader:
        for position in range(reader.num_record_batches):
            batch = reader.get_batch(position)
            keys = batch["key"].to_numpy()
            begin = int(np.searchsorted(keys, np.uint64(wanted.low)))
            end = len(keys) if wanted.end == 1 << 64 else int(np.searchsorted(keys, np.uint64(wanted.end)))
            yield pa.Table.from_batches([batch.slice(begin, end - begin)])


def _write_in_order(runs: list[Run], schema: Schema, work: Path) -> None:
    """Write the vocabulary, and the index of its ids by key."""
    batches = [_batch(run.file) for run in runs]
    names, at = pa.array(schema.field_names, pa.string()), int(schema.first_static_id[-1])
    done = np.zeros(len(runs), np.int64)
    with ExitStack() as stack:
        writer = stack.enter_context(pa.ipc.new_file(str(work / "vocabulary.arrow"), VOCABULARY))
        of_run = [stack.enter_context(Path(f"{run.file}.ids").open("wb", buffering=1 << 16)) for run in runs]
        for ends in _cuts(runs, batches):
            parts = [batch.slice(b, e - b) for batch, b, e in zip(batches, done.tolist(), ends.tolist(), strict=True)]
            table = pa.Table.from_batches(parts)
            ids = np.arange(at, at + len(table), dtype=TYPES[IDS])
            if sum(map(len, parts)) > max(map(len, parts)):
                order = pc.sort_indices(table, sort_keys=_ORDER)
                table, back = table.take(order), np.empty_like(ids)
                back[values_of(order) if isinstance(order, pa.ChunkedArray) else order.to_numpy()] = ids
            else:
                back = ids
            for file, (begin, end) in zip(of_run, pairwise(np.cumsum([0, *map(len, parts)]).tolist()), strict=True):
                file.write(back[begin:end].tobytes())
            columns = {
                "field": pc.take(names, table["field"]),
                "value": table["value"],
                "id": ids,
                "block": table["block"],
            }
            for batch in pa.table(columns, VOCABULARY).to_batches(max_chunksize=BATCH_ROWS):
                writer.write_batch(batch)
            at, done = at + len(table), ends
    with (work / KEYS).open("wb") as keys, (work / IDS).open("wb") as ids_file:
        for run, batch in zip(runs, batches, strict=True):
            key = batch["key"].to_numpy()
            order_by_key = np.argsort(key)
            keys.write(key[order_by_key].astype(TYPES[KEYS], copy=False).tobytes())
            ids_file.write(np.fromfile(f"{run.file}.ids", TYPES[IDS])[order_by_key].tobytes())
    write_opens(work)


def _batch(file: str) -> pa.RecordBatch:
    with pa.ipc.open_file(pa.memory_map(file)) as reader:
        return reader.get_batch(0)


def _cuts(runs: list[Run], batches: list[pa.RecordBatch]) -> Iterator[np.ndarray]:
    """`[R]` int64 positions in the runs, at which the vocabulary is cut into chunks of about `CHUNK_BYTES`: no value of a chunk comes
    before one of the chunk before it."""
    if len(runs) == 1:
        step = max(1, CHUNK_BYTES * len(batches[0]) // max(runs[0].n_bytes, 1))
        yield from (np.array([min(end, len(batches[0]))]) for end in range(step, len(batches[0]) + step, step))
        return
    n_values = sum(map(len, batches))
    most = max(1, CHUNK_BYTES * n_values // max(sum(run.n_bytes for run in runs), 1))
    groups = sorted({group for run in runs for group in run.groups})
    place = {group: index for index, group in enumerate(groups)}
    sizes = np.zeros((len(groups), len(runs)), np.int64)
    for r, run in enumerate(runs):
        sizes[[place[group] for group in run.groups], r] = run.rows
    ends, waiting = np.zeros(len(runs), np.int64), 0
    for size in sizes:
        if waiting and waiting + size.sum() > most:
            yield ends.copy()
            waiting = 0
        if size.sum() > most:
            yield from _cuts_within(batches, ends, size, most)
        else:
            waiting += int(size.sum())
        ends = ends + size
    if waiting:
        yield ends


def _cuts_within(batches: list[pa.RecordBatch], begin: np.ndarray, size: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Cuts of one group, the values `begin [R]` to `begin + size [R]` of the runs, into chunks of about `most` values."""
    values = [b["value"].slice(at, n) for b, at, n in zip(batches, begin.tolist(), size.tolist(), strict=True)]
    step = max(1, most // (4 * len(values)))
    samples = [part.take(pa.array(np.arange(0, len(part), step))) for part in values]
    sample = pa.concat_arrays(samples)
    sample = sample.take(pc.sort_indices(sample))
    n_chunks = -(-2 * int(size.sum()) // most)
    bounds = sample.take(pa.array(np.arange(1, n_chunks) * len(sample) // n_chunks))
    at: Any = np.stack([pc.search_sorted(part, bounds).to_numpy() for part in values], axis=1)
    for cut in at.astype(np.int64):
        yield begin + cut
    yield begin + size
