"""What the ids of a log mean: the values of its vocabularies, and the ranges of its numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import CorruptArtefactError
from diet_ray.logs.blocks import Log
from diet_ray.logs.ingestion.edges import Edges
from diet_ray.logs.ingestion.vocabulary import read_vocabulary
from diet_ray.logs.layout import edges_file, vocabulary_file
from diet_ray.schema import Schema
from diet_ray.settings import parse_json

UNKNOWN = "(unknown)"
"""Of a value that is missing, or too rare for an id of its own."""


def values_of(log: Log, ids: Iterable[int]) -> dict[int, str]:
    """The value of each id of a log, as text; padding, id 0, has none.

    A number's id stands for a range, and the id of a hash for all values of its bucket.

    Raises:
        CorruptArtefactError: the log's vocabulary or its edges cannot be read.
    """
    wanted = sorted({*ids} - {0})
    first = int(log.schema.first_static_id[-1])
    fixed = [number for number in wanted if number < first]
    edges = _edges(log) if any(number > log.schema.n_fields for number in fixed) else {}
    values = {number: _fixed(log.schema, edges, number) for number in fixed}
    if len(fixed) < len(wanted):
        file = vocabulary_file(log.path)
        try:
            vocabulary = read_vocabulary(file)
        except (OSError, pa.ArrowException) as error:
            raise CorruptArtefactError(f"{file}: cannot be read ({error}); see diet-ray verify {log.path}") from error
        rows = vocabulary.filter(pc.is_in(vocabulary["id"], pa.array(wanted, pa.int32())))
        values |= dict(zip(rows["id"].to_pylist(), rows["value"].to_pylist(), strict=True))
    return values


def _edges(log: Log) -> dict[str, list[float]]:
    if all(field.kind != "numeric" for field in log.schema.fields):
        return {}
    return parse_json(Edges, edges_file(log.path)).edges


def _fixed(schema: Schema, edges: dict[str, list[float]], number: int) -> str:
    """The value of an id below those of vocabularies."""
    if number <= schema.n_fields:
        return UNKNOWN
    index = int(np.searchsorted(schema.first_static_id, number, side="right")) - 1
    field, bucket = schema.declared[index], number - int(schema.first_static_id[index])
    if field.kind != "numeric":
        return f"bucket {bucket}"
    inner = edges[field.name]
    if not inner:
        return "any number"
    if bucket == 0:
        return f"below {inner[0]:g}"
    return f"{inner[bucket - 1]:g} or more" if bucket >= len(inner) else f"{inner[bucket - 1]:g} to {inner[bucket]:g}"
