"""Whether an older log was read by the rules of today: otherwise an append would give one value two ids.

Since the key `nulls`, an empty text is no value unless a schema says so, and numbers and booleans that are printed in several ways are one
value (`texts.py`). A log does not say by which rules it was made, but its vocabulary shows it.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import SchemaError
from diet_ray.logs.blocks import Log
from diet_ray.logs.ingestion.checks import EMPTY
from diet_ray.logs.ingestion.texts import canonical_texts
from diet_ray.schema import NO_TEXT, Schema


def reads_as_before(schema: Schema, log: Log) -> bool:
    """Whether `schema` is the log's own but for `nulls: []`, and the log may be from before that key, when an empty text was a value."""
    same = schema.model_copy(update={"nulls": log.schema.nulls}) == log.schema
    told = any(note.what == EMPTY for note in log.notes)
    return same and not schema.nulls and tuple(log.schema.nulls) == NO_TEXT and not told


def check_readings(vocabulary: pa.Table, schema: Schema, log: Log) -> None:
    """Check that all values of a log's vocabulary (schema `VOCABULARY`) would be read as they are.

    Raises:
        SchemaError: one would not. The message says how to go on.
    """
    for batch in vocabulary.to_batches():
        values = batch["value"]
        now = canonical_texts(values)
        for other, reading, remedy in (
            (
                pc.is_in(values, pa.array(schema.nulls, pa.string())),
                "no value",
                "or append with nulls: [] in the schema",
            ),
            (pc.not_equal(values, now), "{!r}", "so that they are one value"),
        ):
            at = pc.index(other, True).as_py()
            if at >= 0:
                field, value = batch["field"][at], values[at]
                raise SchemaError(
                    f"{log.path}: has the value {value.as_py()!r} of field {field.as_py()!r}, which is read as "
                    f"{reading.format(now[at].as_py())} now: ingest the log again, {remedy}"
                )
