"""A guessed schema as YAML with comments."""

from __future__ import annotations

import json
from typing import Any

import yaml

from diet_ray.logs.guess.roles import Guess, Part
from diet_ray.logs.guess.sample import Sample

FILL_IN = "FILL_IN"
"""Stands where nothing could be guessed; an ingest refuses it, because no file has such a column."""


def schema_text(name: str, guess: Guess, sample: Sample) -> str:
    """The schema file: one line per guess, with its reason, and a line `# unsure:` above what needs a look."""
    known = "" if sample.rows is None else f" with {sample.rows:,} rows in all"
    files = "1 file" if sample.files == 1 else f"{sample.files} files"
    lines = [
        f"# Guessed from {sample.table.num_rows:,} rows of {files}{known}. Look at each line; `# unsure` marks the doubtful ones.",
        "# Remove every field that is known only after the event: it would tell candidates the label.",
        f"name: {_value(name)}",
        *_time(guess.time),
        *_single("user", guess.user, "no column is named like one of users; it is needed for GAUC"),
        *_tasks(guess.tasks),
    ]
    if guess.null_words:
        words = ", ".join(_value(word) for word in ["", *guess.null_words])
        lines += _unsure("these texts were seen and usually mean that there is no value"), f"nulls: [{words}]"
    lines.append("fields:")
    for part in guess.fields:
        keys = {"name": part.column, **part.keys}
        inside = ", ".join(f"{key}: {_value(value)}" for key, value in keys.items())
        lines += [*_doubt(part, "  "), f"  - {{{inside}}}  # {part.why}"]
    for column in sample.in_some:
        lines.append(f"  # {column}: only some of the files have it")
    lines += [f"  # {part.column}: {part.why}" for part in guess.left_out]
    return "\n".join(" ".join(line.split("\n")) for line in lines) + "\n"


def doubts(guess: Guess) -> list[str]:
    """What needs a look, as lines of text."""
    parts = [*filter(None, [guess.time, guess.user]), *guess.tasks, *guess.fields]
    lines = [f"{part.column}: {part.doubt}" for part in parts if part.doubt]
    missing = [("time", guess.time), ("user", guess.user), ("tasks", guess.tasks)]
    return [f"{key}: nothing could be guessed; fill it in" for key, part in missing if not part] + lines


def _time(part: Part | None) -> list[str]:
    if part is None:
        return [_unsure("no column holds times that can be read"), f"time: {{column: {FILL_IN}, unit: timestamp}}"]
    inside = ", ".join(f"{key}: {_value(value)}" for key, value in {"column": part.column, **part.keys}.items())
    return [*_doubt(part), f"time: {{{inside}}}  # {part.why}"]


def _single(key: str, part: Part | None, missing: str) -> list[str]:
    if part is None:
        return [_unsure(missing), f"{key}: {FILL_IN}"]
    return [*_doubt(part), f"{key}: {_value(part.column)}  # {part.why}"]


def _tasks(parts: list[Part]) -> list[str]:
    if not parts:
        return [_unsure("no column is 0 or 1 in all rows; make one, such as rating >= 4"), f"tasks: [{FILL_IN}]"]
    shares = ", ".join(f"{part.column} {part.why}" for part in parts)
    names = ", ".join(_value(part.column) for part in parts)
    return [*_doubt(parts[0]), f"tasks: [{names}]  # {shares}"]


def _doubt(part: Part, indent: str = "") -> list[str]:
    return [indent + _unsure(part.doubt)] if part.doubt else []


def _unsure(doubt: str) -> str:
    return f"# unsure: {doubt}"


def _value(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value)  # JSON is YAML; PyYAML would break the line
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def block_length(guess: Guess, sample: Sample) -> str:
    """A length of blocks for `ingest --by`: days where the log has several and the first is a whole one, else a number of rows."""
    if guess.days >= 3 and guess.first_day_is_whole:
        return "day"
    rows = sample.rows or 10 * sample.table.num_rows
    return str(max(round(rows / max(guess.days, 4)), 1000))
