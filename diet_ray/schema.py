"""The typed description of a log: its fields, tasks, time and user columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
from pydantic import Field as Key

from diet_ray.settings import Settings

if TYPE_CHECKING:
    import numpy as np

MAX_IDS: Final = 2**31 - 1
"""Size that the id space may have: ids are int32."""

Name = Annotated[str, Key(min_length=1, max_length=256)]
"""Name of a log, a column, a field or a task."""


NO_TEXT: Final = ("",)
"""The texts that mean "no value" unless a schema says otherwise."""


MAX_FIELDS: Final = 4096
"""Fields that a row may have, each place of a sequence counted."""


_WRITTEN: dict[str, Any] = {
    "buckets": 0,
    "transform": "quantile",
    "min_count": 1,
    "max_values": 1,
    "separator": None,
    "allow_negative": False,
    "of": None,
    "length": 0,
    "pool": "mean",
    "newest": "last",
}
"""The keys of all kinds, with the value that means absence: format 1 of logs and run folders writes every key for every field."""

_NEWER: dict[str, Any] = {"padding": None}
"""Keys of later releases, with the value that means absence. They are written only where they are set: hashes of older schemas stay."""

_BELONGS = {
    "transform": "numeric fields",
    "min_count": "vocabulary fields",
    "allow_negative": "hashed and vocabulary fields",
    "of": "sequences",
    "length": "sequences",
    "pool": "sequences",
    "newest": "sequences",
    "padding": "sequences and fields with several values",
}


class FieldBase(Settings):
    """What all kinds of fields have."""

    name: Name
    """Name of the field, unique in the schema."""
    kind: str
    """Kind of the field."""
    column: Name | None = None
    """Column of the log that holds it; by default the field's own name."""

    @property
    def source(self) -> str:
        """The column of the log that this field reads."""
        return self.column or self.name

    @property
    def n_slots(self) -> int:
        """Number of ids per row."""
        return 1

    @property
    def n_buckets(self) -> int:
        """Number of ids in its fixed range."""
        return 0

    @property
    def least_rows(self) -> int:
        """Rows of one block that a new value needs before it gets an id of its own."""
        return 1

    @property
    def places(self) -> list[str]:
        """Names of the fields that a net gets from it: its own name, or one name per place of an unpooled sequence."""
        return [self.name]

    @classmethod
    def refusal(cls, key: str, raw: dict[str, Any]) -> str:
        """Why a field of this kind cannot have a key of another kind."""
        return f"{key} belongs to {_BELONGS[key]}"

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, raw: Any) -> Any:
        """Drop keys of other kinds whose value means absence, as in stored files; refuse other values."""
        if not isinstance(raw, dict):
            return raw
        keys = _WRITTEN | _NEWER
        foreign = {key for key in keys if key in raw and key not in cls.model_fields}
        for key, absent in keys.items():
            if key in foreign and raw[key] != absent:
                raise ValueError(f"field {raw.get('name')!r}: {cls.refusal(key, raw)}")
        return {key: value for key, value in raw.items() if key not in foreign}

    @model_serializer(mode="wrap")
    def _all_keys(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        own = write(self)
        stored = {"name": own["name"], "kind": own["kind"], "column": own["column"]}
        stored |= {key: own.get(key, absent) for key, absent in _WRITTEN.items()}
        return stored | {key: own[key] for key, absent in _NEWER.items() if own.get(key, absent) != absent}


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _quoted(value: Any) -> Any:
    """Explain what YAML makes of null words without quotes, and of a backslash in double ones."""
    if value is None or value == "\x85":
        raise ValueError("is no text for YAML; write it in single quotes, such as 'NULL' or '\\N'")
    return value


Separator = Annotated[str, Key(min_length=1, max_length=16)]
Padding = Annotated[str, Key(max_length=256), BeforeValidator(_as_text)]
"""A text, or a number, which is kept as text."""
NullText = Annotated[str, Key(max_length=256), BeforeValidator(_quoted)]


class CategoryField(FieldBase):
    """A field of categories, one or several per row."""

    max_values: int = Key(default=1, ge=1, le=256)
    """Values kept per row; above 1 the field is multi-valued and its embeddings are mean-pooled."""
    separator: Separator | None = None
    """Splits a string column into several values; None where the column already holds lists."""
    padding: Padding | None = None
    """The value that fills up lists and means "no value", such as 0; it is dropped before the first `max_values` values are taken."""
    allow_negative: bool = False
    """Whether negative integers are ordinary category codes here; otherwise they are refused as corrupt ids."""

    @property
    def n_slots(self) -> int:
        """Number of ids per row."""
        return self.max_values

    @model_validator(mode="after")
    def _padded(self) -> Self:
        if self.padding is not None and self.max_values == 1:
            raise ValueError(f"field {self.name!r}: padding needs max_values above 1")
        return self


class HashedField(CategoryField):
    """Categories by a stateless hash."""

    kind: Literal["hashed"] = "hashed"
    """`hashed`."""
    buckets: int = Key(default=0, ge=0, le=2**30)
    """Number of hash buckets, at least 2."""

    @property
    def n_buckets(self) -> int:
        """Number of ids in its fixed range."""
        return self.buckets

    @model_validator(mode="after")
    def _enough(self) -> HashedField:
        return _with_buckets(self)


class VocabularyField(CategoryField):
    """Categories by their exact values. The vocabulary grows forward in time."""

    kind: Literal["vocabulary"] = "vocabulary"
    """`vocabulary`."""
    min_count: int = Key(default=1, ge=1)
    """Rows of one block that a new value needs before it gets an id of its own; rarer ones share `unknown`."""

    @property
    def least_rows(self) -> int:
        """Rows of one block that a new value needs before it gets an id of its own."""
        return self.min_count

    @classmethod
    def refusal(cls, key: str, raw: dict[str, Any]) -> str:
        """Why a field of this kind cannot have a key of another kind."""
        return "a vocabulary grows by itself; remove buckets" if key == "buckets" else super().refusal(key, raw)


class NumericField(FieldBase):
    """A number, by the bucket in which it lies."""

    kind: Literal["numeric"] = "numeric"
    """`numeric`."""
    buckets: int = Key(default=0, ge=0, le=2**30)
    """Number of value buckets, at least 2. The first block needs 20 values for each, or for each different value where these are few."""
    transform: Literal["quantile", "log"] = "quantile"
    """Where the bucket edges lie: at quantiles of the first block, with a bucket for each value that fills one, or evenly in log(1+x) up
    to its maximum."""

    @property
    def n_buckets(self) -> int:
        """Number of ids in its fixed range."""
        return self.buckets

    @classmethod
    def refusal(cls, key: str, raw: dict[str, Any]) -> str:
        """Why a field of this kind cannot have a key of another kind."""
        several = key in ("max_values", "separator")
        return "a numeric field holds one value" if several else super().refusal(key, raw)

    @model_validator(mode="after")
    def _enough(self) -> NumericField:
        return _with_buckets(self)


class SequenceField(FieldBase):
    """A list of values of another field, such as the items that the user saw last. It shares that field's ids and embeddings."""

    kind: Literal["sequence"] = "sequence"
    """`sequence`."""
    separator: Separator | None = None
    """Splits a string column into several values; None where the column already holds lists."""
    padding: Padding | None = None
    """The value that fills up lists and means "no value", such as 0; it is dropped before the newest `length` values are taken."""
    of: Name | None = None
    """The field whose values it lists, and whose ids and embeddings it shares."""
    length: int = Key(default=0, ge=0, le=256)
    """How many values of a row are kept, the most recent ones; at least 1."""
    pool: Literal["mean", "none"] = "mean"
    """`mean`: its embeddings are averaged; `none`: they stay separate, as `length` fields `name[0]`, the most recent one, `name[1]`, ..."""
    newest: Literal["last", "first"] = "last"
    """The end of the column's lists at which the most recent value is."""

    @property
    def n_slots(self) -> int:
        """Number of ids per row."""
        return self.length

    @property
    def places(self) -> list[str]:
        """Names of the fields that a net gets from it: its own name, or one name per place of an unpooled sequence."""
        return [place(self.name, index) for index in range(self.length)] if self.pool == "none" else [self.name]

    @classmethod
    def refusal(cls, key: str, raw: dict[str, Any]) -> str:
        """Why a field of this kind cannot have a key of another kind."""
        return f"a sequence has no {key} of its own; set it on {raw.get('of')!r}"

    @model_validator(mode="after")
    def _complete(self) -> SequenceField:
        if self.of is None or not self.length:
            raise ValueError(f"field {self.name!r}: a sequence needs of, the field that it is made of, and length >= 1")
        return self


B = TypeVar("B", HashedField, NumericField)


def _with_buckets(field: B) -> B:
    if field.buckets < 2:
        raise ValueError(f"field {field.name!r}: kind {field.kind!r} needs buckets >= 2")
    return field


Field = Annotated[HashedField | VocabularyField | NumericField | SequenceField, Key(discriminator="kind")]
"""One categorical or bucketised input of a row, or a sequence of them; its `kind` determines its keys."""


def place(name: str, index: int) -> str:
    """The field name of one place of the sequence `name`; place 0 is the most recent one."""
    return f"{name}[{index}]"


_PLACE = re.compile(r"(.*)\[[0-9]+\]", re.DOTALL)
"""The name of a place, or of a field that looks like one; the group is the sequence's name."""


def places_of(name: str, field_names: Sequence[str]) -> list[int]:
    """Positions of a field in `field_names`: `[i]`; for an unpooled sequence those of its places, in order; `[]` if it is absent."""
    if name in field_names:
        return [list(field_names).index(name)]
    pattern = re.compile(rf"{re.escape(name)}\[[0-9]+\]")
    return [index for index, other in enumerate(field_names) if pattern.fullmatch(other)]


class Time(Settings):
    """The time column of a log, by which it is cut into blocks."""

    column: Name
    """Name of the column."""
    unit: Literal["s", "ms", "us", "ns", "timestamp"] = "timestamp"
    """Number since 1970 in that unit, or `timestamp` for a date, a timestamp or ISO 8601 text: docs/your-log.md, "What a time may be"."""
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
    """A log's columns and their meaning. A row becomes `n_slots` ids, `n_fields` embeddings and `n_tasks` labels.

    `fields` holds a sequence once. For code that reads embeddings, each place of an unpooled sequence is a field of its own: `n_fields`,
    `field_names`, `field_of_slot` and `first_static_id` count every place.
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
    nulls: list[NullText] = Key(default=list(NO_TEXT), max_length=64)
    """Texts that mean "no value" in text columns of fields, user, labels and time, and in their lists: exact matches, such as
    `["", "NULL"]`. A null of the file and an empty cell or folder name (`day=`) always mean it."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out where it is the default: hashes of schemas from before the key stay.
        return {key: value for key, value in write(self).items() if key != "nulls" or tuple(value) != NO_TEXT}

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        declared = [field.name for field in self.fields]
        for noun, values in (("field", declared), ("field", self.field_names), ("task", self.tasks)):
            doubled = sorted(value for value, n in Counter(values).items() if n > 1)
            if doubled:
                raise ValueError(f"{noun} {doubled[0]!r} is given twice")
        self._check_sequences()
        if self.n_fields > MAX_FIELDS:
            raise ValueError(
                f"{self.n_fields} fields, each place of a sequence counted; at most {MAX_FIELDS} are possible"
            )
        leaks = sorted({field.source for field in self.fields} & set(self.tasks))
        if leaks:
            raise ValueError(f"column {leaks[0]!r} is both a field and a task: the label would be its own feature")
        if (
            1 + self.n_fields + sum(field.n_buckets for field in self.declared) > MAX_IDS
        ):  # the end of `first_static_id`
            raise ValueError(f"the fields' buckets take {self.first_static_id[-1]} ids, more than 2^31 - 1: take fewer")
        return self

    def differing_key(self, other: Schema) -> str | None:
        """The first key whose value differs in another schema; None where they are the same."""
        return next((key for key in Schema.model_fields if getattr(self, key) != getattr(other, key)), None)

    def _check_sequences(self) -> None:
        kinds = {other.name: other for other in self.fields}
        # How many of the F fields have the name of a place of each name, in one look at them all.
        places = Counter(match[1] for name in self.field_names if (match := _PLACE.fullmatch(name)))
        for field in self.fields:
            if not isinstance(field, SequenceField):
                continue
            of = kinds.get(field.of or "")
            if of is None:
                raise ValueError(
                    f"field {field.name!r}: of names {field.of!r}, but the schema has no field {field.of!r}"
                )
            if not isinstance(of, CategoryField) or of.max_values > 1:
                raise ValueError(
                    f"field {field.name!r}: is made of {of.name!r}, which must be a hashed or vocabulary field with one value"
                )
            if field.pool == "none" and places[field.name] != field.length:
                raise ValueError(
                    f"field {field.name!r}: another field has the name of one of its places; rename one of them"
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

    @property
    def lenders(self) -> list[tuple[int, Field]]:
        """For each of `fields`, the field whose ids it uses, with its number among the F: the field itself, or that which a sequence is
        made of."""
        numbers, declared = {name: index for index, name in enumerate(self.field_names)}, self.declared
        names = [(field.of if field.kind == "sequence" else None) or field.name for field in self.fields]
        return [(numbers[name], declared[numbers[name]]) for name in names]

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
        import numpy as np  # here, so that `status` need not wait for it

        slots = [field.n_slots // len(field.places) for field in self.declared]
        return np.repeat(np.arange(self.n_fields), slots)

    @property
    def first_static_id(self) -> np.ndarray:
        """`[F+1]` int64: start of each field's fixed id range; the last entry is the first id that vocabularies may assign.

        Id 0 is padding (empty slots of multi-valued fields and sequences), ids 1..F are the fields' `unknown` values.
        """
        import numpy as np

        sizes = [field.n_buckets for field in self.declared]
        return np.concatenate([[0], np.cumsum(sizes)]) + 1 + self.n_fields

    @property
    def columns(self) -> list[str]:
        """The columns of the log that are read, each once."""
        return list(dict.fromkeys([self.time.column, self.user, *self.tasks, *(field.source for field in self.fields)]))
