"""Between the passes over the rows: all values of vocabulary fields get their ids, those that a log has already and new ones."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.ingestion.block_plan import BlockPlan
from diet_ray.logs.ingestion.numbering import BATCH_ROWS, number
from diet_ray.logs.ingestion.passes import Parts, partition
from diet_ray.logs.ingestion.quarantine import REFUSED
from diet_ray.logs.ingestion.sources import Piece
from diet_ray.logs.ingestion.value_counts import COUNTS, CountFile, SameKeyError, keys_of
from diet_ray.logs.ingestion.vocabulary import VOCABULARY
from diet_ray.mapper import Mapper, Progress, in_turn
from diet_ray.schema import Schema


def partition_and_number(
    pieces: list[Piece],
    schema: Schema,
    plan: BlockPlan,
    work: Path,
    report: Progress,
    refused: pa.Table = REFUSED.empty_table(),
    *,
    known: pa.Table = VOCABULARY.empty_table(),
    each: Mapper = in_turn,
) -> tuple[Parts, pa.Table]:
    """Divide the rows among the shards (`passes.partition`), and give out the ids (`numbering.number`).

    Args:
        pieces, schema, plan, report, refused, each: as in those.
        work: folder for temporary files, which may remain after an error.
        known: the vocabulary of the log's earlier blocks, schema `VOCABULARY`.

    Returns:
        The parts, and the vocabulary, which has the values of `known` too.
    """
    for salt in count():  # one is enough, but for once in a thousand logs of 10^8 values
        try:
            parts = partition(pieces, schema, plan, work, report, refused, salt=salt, each=each)
            files, n_bytes = parts.counts, parts.n_bytes
            with CountFile(work / f"known-{salt}.counts") as counted:
                _count_known(known, schema, salt, counted)
            if counted.n_bytes:
                files, n_bytes = [*files, str(counted.path)], n_bytes + counted.n_bytes
            return parts, number(files, n_bytes, schema, work, n_blocks=len(plan.names), each=each)
        except SameKeyError:
            for file in work.iterdir():
                file.unlink()
    raise AssertionError("there is no end of salts")


def _count_known(known: pa.Table, schema: Schema, salt: int, counted: CountFile) -> None:
    """Count values as if their blocks had just enough rows of each."""
    numbers = {of.name: (index, of.least_rows) for index, of in schema.lenders}
    for batch in known.to_batches(max_chunksize=BATCH_ROWS):
        for name in batch["field"].unique().to_pylist():
            own = batch.filter(pc.equal(batch["field"], name))
            index, least = numbers[name]
            columns = {
                "key": pa.array(keys_of(own["value"], name, salt), pa.uint64()),
                "block": own["block"],
                "field": pa.array(np.full(len(own), index), pa.int32()),
                "value": own["value"],
                "rows": pa.array(np.full(len(own), least), pa.int64()),
            }
            counted.add([pa.table(columns, COUNTS)])
