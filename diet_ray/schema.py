"""The typed description of a log: its fields, tasks, time and user columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import Field as Key
from pydantic import field_validator, model_validator

from diet_ray.settings import Settings

MAX_IDS: Final = 2**31 - 1
"""Size that the id space may have: ids are int32."""

Name = Annotated[str, Key(min_length=1, max_length=256)]
"""Name of a log, a column, a field or a task."""


MAX_FIELDS: Final = 4096
"""Fields that a row may have, each place of a sequence counted."""


class Field(Settings):
    """One categorical or bucketised input of a row, or a sequence of them."""

    name: Name
    """Name of the field, unique in the schema."""
    kind: Literal["hashed", "vocabulary", "numeric", "sequence"]
    """`hashed`: stateless hash into `buckets`; `vocabulary`: exact values, growing forward in time; `numeric`: bucketised; `sequence`: a
    list of values of another field, such as what the user saw last."""
    column: Name | None = None
    """Column of the log that holds it; by default the field's own name."""
    buckets: int = Key(default=0, ge=0, le=2**30)
    """Number of hash buckets (`hashed`) or of value buckets (`numeric`); unused by `vocabulary`."""
    transform: Literal["quantile", "log"] = "quantile"
    """Where the bucket edges of a `numeric` field lie: at quantiles of the first block, or evenly in log(1+x) up to its maximum."""
    min_count: int = Key(default=1, ge=1)
    """`vocabulary`: rows of one block that a new value needs before it gets an id of its own; rarer ones share `unknown`."""
    max_values: int = Key(default=1, ge=1, le=256)
    """Values kept per row; above 1 the field is multi-valued and its embeddings are mean-pooled."""
    separator: Annotated[str, Key(min_length=1, max_length=16)] | None = None
    """Splits a string column into several values; None where the column already holds lists."""
    allow_negative: bool = False
    """Whether negative integers are ordinary category codes here; otherwise they are refused as corrupt ids."""
    of: Name | None = None
    """`sequence`: the field whose values it lists, and whose ids, and so embeddings, it shares."""
    length: int = Key(default=0, ge=0, le=256)
    """`sequence`: how many values of a row are kept, the most recent ones."""
    pool: Literal["mean", "none"] = "mean"
    """`sequence`: its embeddings are averaged, or kept side by side as `length` fields `name[0]`, the most recent one, `name[1]`, ..."""
    newest: Literal["last", "first"] = "last"
    """`sequence`: at which end of the column's lists the most recent value stands."""

    @property
    def source(self) -> str:
        """The column of the log that this field reads."""
        return self.column or self.name

    @property
    def n_slots(self) -> int:
        """Ids that it has per row."""
        return self.length if self.kind == "sequence" else self.max_values

    @property
    def places(self) -> list[str]:
        """Names of the fields that a net sees of it: its own, or those of an unpooled sequence's places."""
        apart = self.kind == "sequence" and self.pool == "none"
        return [place(self.name, index) for index in range(self.length)] if apart else [self.name]

    @model_validator(mode="after")
    def _consistent(self) -> Field:
        if self.kind == "sequence":
            return self._sequence()
        for key in ("of", "length", "pool", "newest"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"field {self.name!r}: {key} belongs to sequences")
        if self.kind in ("hashed", "numeric") and self.buckets < 2:
            raise ValueError(f"field {self.name!r}: kind {self.kind!r} needs buckets >= 2")
        if self.kind == "vocabulary" and self.buckets:
            raise ValueError(f"field {self.name!r}: a vocabulary grows by itself; remove buckets")
        if self.kind == "numeric" and (self.max_values > 1 or self.separator):
            raise ValueError(f"field {self.name!r}: a numeric field holds one value")
        if self.kind != "numeric" and self.transform != "quantile":
            raise ValueError(f"field {self.name!r}: transform belongs to numeric fields")
        if self.kind != "vocabulary" and self.min_count != 1:
            raise ValueError(f"field {self.name!r}: min_count belongs to vocabulary fields")
        return self

    def _sequence(self) -> Field:
        if self.of is None or not self.length:
            raise ValueError(f"field {self.name!r}: a sequence needs of, the field that it is made of, and length >= 1")
        for key in ("buckets", "transform", "min_count", "max_values", "allow_negative"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"field {self.name!r}: a sequence has no {key} of its own; set it on {self.of!r}")
        return self


def place(name: str, index: int) -> str:
    """The name under which a net sees one place of the sequence `name`, counted from the most recent one."""
    return f"{name}[{index}]"


def places_of(name: str, field_names: Sequence[str]) -> list[int]:
    """Where a field stands among `field_names`: `[i]`, for an unpooled sequence the positions of its places in order, `[]` if nowhere."""
    if name in field_names:
        return [list(field_names).index(name)]
    pattern = re.compile(rf"{re.escape(name)}\[[0-9]+\]")
    return [index for index, other in enumerate(field_names) if pattern.fullmatch(other)]


class Time(Settings):
    """The time column of a log, by which it is cut into blocks."""

    column: Name
    """Name of the column."""
    unit: Literal["s", "ms", "us", "ns", "timestamp"] = "timestamp"
    """Integer epoch in that unit, or `timestamp` for a date or time type (a text column is parsed as ISO 8601)."""
    timezone: str = "UTC"
    """IANA zone in which days and weeks begin; also the zone of timestamps that carry none."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"no IANA time zone {zone!r}, such as 'Europe/Paris'") from error
        return zone


class Schema(Settings):
    """A log's columns and what they mean. A row becomes `n_slots` ids, `n_fields` embeddings and `n_tasks` labels.

    To whom reads embeddings, each place of an unpooled sequence is a field of its own: `n_fields`, `field_names`, `field_of_slot` and
    `first_static_id` count them all, while `fields` holds the sequence once.
    """

    name: Name
    """Name of the log."""
    time: Time
    """The column that orders the rows."""
    user: Name
    """Column that identifies the user; used for GAUC only unless it is also a field."""
    tasks: list[Name] = Key(min_length=1, max_length=64)
    """Binary label columns (0/1 integers or booleans), one task each."""
    fields: list[Field] = Key(min_length=2, max_length=MAX_FIELDS)
    """The inputs, in order."""

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        declared = [field.name for field in self.fields]
        for what, values in (("field", declared), ("field", self.field_names), ("task", self.tasks)):
            doubled = sorted({value for value in values if values.count(value) > 1})
            if doubled:
                raise ValueError(f"{what} {doubled[0]!r} is given twice")
        for field in self.fields:
            if field.of is not None:
                self._check_sequence(field)
        if self.n_fields > MAX_FIELDS:
            raise ValueError(
                f"{self.n_fields} fields, each place of a sequence counted; at most {MAX_FIELDS} are possible"
            )
        leaks = sorted({field.source for field in self.fields} & set(self.tasks))
        if leaks:
            raise ValueError(f"column {leaks[0]!r} is both a field and a task: the label would be its own feature")
        if self.first_static_id[-1] > MAX_IDS:
            raise ValueError(f"the fields' buckets take {self.first_static_id[-1]} ids, more than 2^31 - 1: take fewer")
        return self

    def _check_sequence(self, field: Field) -> None:
        kinds = {other.name: other for other in self.fields}
        of = kinds.get(field.of or "")
        if of is None:
            raise ValueError(f"field {field.name!r}: the schema has no field {field.of!r} that it could be made of")
        if of.kind not in ("hashed", "vocabulary") or of.max_values > 1:
            raise ValueError(
                f"field {field.name!r}: is made of {of.name!r}, which must be a hashed or vocabulary field with one value"
            )
        if field.pool == "none" and len(places_of(field.name, self.field_names)) != field.length:
            raise ValueError(
                f"field {field.name!r}: another field is called like a place of it; give one of them another name"
            )

    @property
    def n_fields(self) -> int:
        """F, the number of fields."""
        return len(self.field_names)

    @property
    def field_names(self) -> list[str]:
        """The F fields, in order."""
        return [name for field in self.fields for name in field.places]

    @property
    def declared(self) -> list[Field]:
        """`[F]`: the field of the schema to which each of the F fields belongs; all places of a sequence have one."""
        return [field for field in self.fields for _ in field.places]

    def lender(self, field: Field) -> tuple[int, Field]:
        """The field whose ids `field` has, and its number among the F: itself, or the one that a sequence is made of."""
        name = field.of or field.name
        index = self.field_names.index(name)
        return index, self.declared[index]

    @property
    def n_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.tasks)

    @property
    def n_slots(self) -> int:
        """S, the number of ids per row: one per field, `max_values` for a multi-valued one, `length` for a sequence."""
        return sum(field.n_slots for field in self.fields)

    @property
    def field_of_slot(self) -> np.ndarray:
        """`[S]` int64: the field to which each id slot of a row belongs, non-decreasing."""
        slots = [field.n_slots // len(field.places) for field in self.declared]
        return np.repeat(np.arange(self.n_fields), slots)

    @property
    def first_static_id(self) -> np.ndarray:
        """`[F+1]` int64: start of each field's fixed id range; the last entry is the first id that vocabularies may hand out.

        Id 0 is padding (empty slots of multi-valued fields and sequences), ids 1..F are the fields' `unknown` values.
        """
        sizes = [field.buckets for field in self.declared]
        return np.concatenate([[0], np.cumsum(sizes)]) + 1 + self.n_fields

    @property
    def columns(self) -> list[str]:
        """The columns of the log that are read, each once."""
        return list(dict.fromkeys([self.time.column, self.user, *self.tasks, *(field.source for field in self.fields)]))
