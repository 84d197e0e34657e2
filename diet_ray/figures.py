"""Figures as text: durations, sizes, and numbers that may be undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta


def duration(seconds: float) -> str:
    """`0:01:30`."""
    return str(timedelta(seconds=round(seconds)))


def size(n_bytes: float) -> str:
    """`1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """`0.7123`; a dash where the value is undefined. A value that rounds to zero has no sign."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def formatted(value: float, form: str) -> str:
    """The value in a format such as `.2e`; a dash where it is undefined."""
    return format(value, form) if math.isfinite(value) else "-"


def times(count: int, thing: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def mean_sd(mean: float, sd: float, separator: str = " ") -> str:
    """`0.7123 ± 0.0004`; the mean alone where the standard deviation is undefined, a dash where the mean is."""
    return number(mean, 4) + (f"{separator}± {sd:.4f}" if math.isfinite(sd) else "")
