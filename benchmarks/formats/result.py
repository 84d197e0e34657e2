"""The figures of the matrix, as they are stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diet_ray.settings import Settings

VerdictName = Literal["read", "read with a note", "refused", "WRONG", "not written"]


class Verdict(Settings):
    """What became of one type of one file."""

    verdict: VerdictName
    """`WRONG`: another value than the one written came out, and nothing was said. `not written`: the engine has no such type there."""
    because: str = ""
    """The notes, the refusal, the first difference, or the engine's reason."""


class Read(Settings):
    """What an engine made of one column of an export."""

    type: str
    """Its type, in the engine's words."""
    because: str = ""
    """The difference to what pyarrow reads; empty where there is none."""


class EngineResult(Settings):
    """The outcome of one engine."""

    engine: str
    """Its name."""
    version: str
    """Version that wrote the files."""
    written: dict[str, dict[str, Verdict]] = Field(default_factory=dict)
    """By the kind of file and the case's name."""


class ExportResult(Settings):
    """What an engine reads of an export."""

    columns: dict[str, Read] = Field(default_factory=dict)
    """By the column's name."""


class Matrix(Settings):
    """All of it."""

    engines: dict[str, EngineResult] = Field(default_factory=dict)
    """By the engine's folder."""
    exports: dict[str, ExportResult] = Field(default_factory=dict)
    """By the engine's folder."""
