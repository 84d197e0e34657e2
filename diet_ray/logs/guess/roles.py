"""Guesses of the parts of a schema from the columns of a sample, each with its reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.errors import BadInputError
from diet_ray.logs.guess.columns import Column
from diet_ray.logs.ingestion.checks import Origin
from diet_ray.logs.ingestion.times import read_time
from diet_ray.schema import Time

_TIME_NAME = re.compile(r"(^|_)(ts|time|timestamp|date|datetime|dt|event|day|when|at)(_|$)|time|date", re.IGNORECASE)
_OTHER_TIME = re.compile(r"birth|regist|signup|expire|updat|upload|release|publish|launch|last_|first_", re.IGNORECASE)
_USERS = [
    *(
        "user",
        "member",
        "customer",
        "client",
        "visitor",
        "viewer",
        "subscriber",
        "buyer",
        "shopper",
        "person",
        "profile",
    ),
    *("player", "account", "household", "cookie", "device", "session"),
]
"""Words by which columns of users are named, the likeliest first."""
_USER_NAME = re.compile(rf"^({'|'.join(_USERS)})s?[_ ]?(id|key|hash|no|code|pseudo_id)?$|^(uid|msno)$", re.IGNORECASE)
_LABEL_NAME = re.compile(
    r"click|like|purchas|bought|buy|conver|order|label|target|view|play|watch|follow|share|forward|comment|hate|cart|favo|install|"
    r"success|skip|finish|complete|dismiss|subscri|response|clk",
    re.IGNORECASE,
)
_CODE_NAME = re.compile(
    r"(^|_)(ids?|code|key|hash|type|category|cat|class|brand|zip|level|hour|weekday|dow|month|gender|sex|country|region|city|os|lang)(_|$)",
    re.IGNORECASE,
)

_UNITS = ("s", "ms", "us", "ns")
_FIRST, _LAST = (np.datetime64(year, "ms").astype(np.int64) for year in ("1990", "2100"))

FEW = 50
"""Up to so many different whole numbers are taken for codes."""
_LEAKS = 0.95
"""AUC of one column alone from which it is taken for something that is known only after the event."""
_MOST = 16
"""Most values per row that a guess keeps."""
_ROWS_PER_BUCKET = 40
"""Rows of the first block per bucket that a guess leaves."""


@dataclass(frozen=True)
class Part:
    """A part of the schema: its keys, the reason for it, and what to look at where the guess may be wrong."""

    column: str
    keys: dict[str, Any]
    why: str
    doubt: str = ""


@dataclass(frozen=True)
class Guess:
    """Guesses of all parts."""

    time: Part | None
    user: Part | None
    tasks: list[Part]
    fields: list[Part]
    left_out: list[Part]
    """Columns that are no fields, and why."""
    null_words: list[str]
    """Texts that mean "no value" in some column."""
    days: int
    """Days on which the sample has rows, in the time's zone; 0 without a time."""
    first_day_is_whole: bool
    """Whether the first day has at least half as many rows as the median one."""


def guess(columns: list[Column], *, rows: int | None) -> Guess:
    """Guess which columns are the time, the user, the labels and the fields.

    Args:
        columns: those of a sample.
        rows: the rows of the whole log, if known: they bound the number of buckets.
    """
    time, stamp, others = _time(columns)
    rest = [column for column in columns if time is None or column.name != time.column]
    tasks = _tasks(rest)
    labels = {part.column for part in tasks}
    rest = [column for column in rest if column.name not in labels]
    user = _user(rest)
    targets = {column.name: column.numbers for column in columns if column.name in labels}
    fields, left_out = list[Part](), list[Part]()
    per_day = np.unique(stamp // 86_400_000, return_counts=True)[1]
    first_is_whole = rows != len(stamp) or 2 * per_day[0] >= np.median(
        per_day
    )  # a part of the rows says nothing about that
    buckets = 16 if rows is None else int(min(max(rows / max(len(per_day), 4) / _ROWS_PER_BUCKET, 2), 32))
    for column in rest:
        part = _field(column, user.column if user else None, rest, buckets)
        doubt = others.get(column.name) or _leak(column, targets)
        if not part.keys or column.name in others:
            left_out.append(Part(column.name, {}, doubt or part.why))
        else:
            fields.append(Part(column.name, part.keys, part.why, doubt or part.doubt))
    words = sorted({word for column in rest for word in column.null_words})
    return Guess(time, user, tasks, fields, left_out, words, len(per_day), bool(first_is_whole))


# --- the time


def _time(columns: list[Column]) -> tuple[Part | None, np.ndarray, dict[str, str]]:
    """The time; `[N]` int64, the times of the sample in ms, empty without one; and why each other column that could be a time is none."""
    found = list[tuple[float, int, Column, str, np.ndarray]]()
    for place, column in enumerate(columns):
        for unit in ("timestamp", *_UNITS):
            stamp = _stamp(column, unit)
            if stamp is None:
                continue
            named = bool(_TIME_NAME.search(column.name)) - 2 * bool(_OTHER_TIME.search(column.name))
            whole_days = bool((stamp % 86_400_000 == 0).all())
            if unit == "timestamp" or named > 0:
                found.append((named + 2 * (unit == "timestamp") - 1.5 * whole_days, -place, column, unit, stamp))
            break
    if not found:
        return None, np.zeros(0, np.int64), {}
    found.sort(key=lambda item: item[:2], reverse=True)
    _, _, best, unit, stamp = found[0]
    why = f"{_moment(stamp.min())} to {_moment(stamp.max())} UTC in the sample"
    zone = _zone(best.array.type)
    naive = unit == "timestamp" and zone is None
    doubt = "times without a zone: set timezone to the one in which they were written" if naive else ""
    others = [item[2].name for item in found[1:]]
    if others:
        doubt = "; ".join(filter(None, [doubt, f"other times: {', '.join(others)}"]))
    part = Part(best.name, {"unit": unit, "timezone": zone or "UTC"}, why, doubt)
    reason = "another time; make it a number, such as the hours since then, if it is known at the event"
    return part, stamp, dict.fromkeys(others, reason)


def _zone(kind: pa.DataType) -> str | None:
    """The zone that a type of timestamps names, if it is an IANA zone."""
    zone = getattr(kind, "tz", None)
    try:
        return None if zone is None else Time(column="-", timezone=zone).timezone
    except ValueError:  # an offset, such as +01:00
        return "UTC"


def _stamp(column: Column, unit: Any) -> np.ndarray | None:
    """The times of a column, ms since the epoch, if all can be read in that unit and lie between 1990 and 2100."""
    if (column.kind == "time") != (unit == "timestamp") or column.kind not in ("time", "integer", "float"):
        return None
    table = pa.table({column.name: column.array})
    try:
        stamp = read_time(table, Time(column=column.name, unit=unit), Origin("", np.arange(len(table))))
    except BadInputError:
        return None
    return stamp if len(stamp) and stamp.min() >= _FIRST and stamp.max() < _LAST else None


def _moment(stamp: int) -> str:
    return str(np.datetime64(int(stamp), "ms").astype("datetime64[m]")).replace("T", " ")


# --- labels and user


def _tasks(columns: list[Column]) -> list[Part]:
    binary = [column for column in columns if column.is_binary and len(column.distinct) > 1]
    named = [column for column in binary if _LABEL_NAME.search(column.name)]
    doubt = "" if len(named) == 1 else "keep only what candidates shall predict; a label cannot be a field"
    if not named and binary:
        named, doubt = binary[-1:], "its name tells no label"
    return [Part(column.name, {}, f"{100 * column.numbers.mean():.1f} % positive", doubt) for column in named]


def _user(columns: list[Column]) -> Part | None:
    able = [c for c in columns if c.kind in ("integer", "text") and not c.array.null_count and len(c.distinct) > 1]
    named = [column for column in able if _USER_NAME.search(column.name)]
    if not named:
        return None
    best = min(named, key=lambda column: next((k for k, word in enumerate(_USERS) if word in column.name.lower()), 0))
    others = [column.name for column in named if column is not best]
    return Part(best.name, {}, f"{len(best.distinct):,} in the sample", f"or {', '.join(others)}" if others else "")


# --- fields


def _field(column: Column, user: str | None, columns: list[Column], buckets: int) -> Part:
    n, distinct = len(column.members), 0 if column.kind == "unusable" else len(column.distinct)
    missing = f", {100 * column.missing:.0f} % missing" if column.missing >= 0.005 else ""
    if column.kind == "unusable":
        return Part(column.name, {}, column.why_unusable)
    if distinct == 1 and not missing:
        return Part(column.name, {}, "one value in all rows")
    if column.kind == "list":
        return _several(column, columns, missing)
    if column.kind == "time":
        return Part(column.name, {}, "another time")
    if column.name != user and column.kind in ("integer", "text") and n > 100 and distinct > 0.98 * n:
        return Part(column.name, {}, "nearly every row has a value of its own, as an id of rows has")
    few = column.kind == "integer" and distinct <= FEW
    is_code = few or column.name == user or _CODE_NAME.search(column.name) or _USER_NAME.search(column.name)
    if column.kind == "float" or (column.kind == "integer" and not is_code):
        return _numeric(column, buckets, missing)
    keys: dict[str, Any] = {"kind": "vocabulary"}
    if distinct > 1000:
        keys["min_count"] = 2
    if column.kind == "integer" and float(np.nanmin(column.numbers)) < 0:
        keys["allow_negative"] = True
    doubt = "whole numbers taken for codes; for amounts take kind: numeric" if few and distinct > 2 else ""
    return Part(column.name, keys, f"{distinct:,} values in the sample{missing}", doubt)


def _numeric(column: Column, buckets: int, missing: str) -> Part:
    values = column.numbers[np.isfinite(column.numbers)]
    low, middle, high = (float(value) for value in np.quantile(values, (0, 0.5, 1))) if len(values) else (0.0, 0.0, 0.0)
    keys: dict[str, Any] = {"kind": "numeric", "buckets": min(buckets, max(len(column.distinct), 2))}
    doubt = "" if len(values) == len(column.members) else "has NaN or infinities, which an ingest refuses: write nulls"
    return Part(column.name, keys, f"{low:g} to {high:g}, median {middle:g}{missing}", doubt)


def _several(column: Column, columns: list[Column], missing: str) -> Part:
    lengths = column.lengths
    usual, most = (int(value) for value in np.quantile(lengths, (0.95, 1))) if len(lengths) else (1, 1)
    keep = min(max(usual, 1), _MOST)
    cut = f"keeps {keep} of up to {most} values" if most > keep else ""
    separator = {} if column.separator is None else {"separator": column.separator}
    lender = _lender(column, columns)
    if lender is not None:
        keys = {"kind": "sequence", "of": lender.name, "length": keep, **separator, "pool": "mean"}
        order = "is the newest value the last one? else newest: first; are all its values from before the event?"
        return Part(
            column.name, keys, f"lists of values of {lender.name}{missing}", "; ".join(filter(None, [order, cut]))
        )
    keys = {"kind": "vocabulary", "max_values": max(keep, 2), **separator}
    return Part(column.name, keys, f"{len(column.distinct):,} values, up to {most} per row{missing}", cut)


def _lender(column: Column, columns: list[Column]) -> Column | None:
    """The column whose values the lists of `column` repeat, such as the items of a history."""
    values = column.distinct
    for other in columns:
        if other.kind in ("integer", "text") and len(values) >= FEW and len(other.distinct) >= FEW:
            shared = pc.is_in(values.cast(pa.string()), other.distinct.cast(pa.string()))
            if pc.mean(shared.cast(pa.float64())).as_py() > 0.5:
                return other
    return None


def _leak(column: Column, targets: dict[str, np.ndarray]) -> str:
    """A warning where the column alone orders the rows of a label nearly without a fault."""
    if column.kind not in ("integer", "float", "boolean") or len(column.distinct) > 1 << 20:
        return ""
    for task, label in targets.items():
        known = np.isfinite(column.numbers)
        auc = _auc(column.numbers[known], label[known] > 0)
        if max(auc, 1 - auc) > _LEAKS:
            return f"alone it tells {task} with an AUC of {max(auc, 1 - auc):.2f}: is it known before the event?"
    return ""


def _auc(values: np.ndarray, positive: np.ndarray) -> float:
    n = int(positive.sum())
    if not 0 < n < len(values):
        return 0.5
    ranks = pd.Series(values).rank().to_numpy()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n)))
