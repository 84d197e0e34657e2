"""The look of a table in a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Column, Table


def narrow_table(*columns: str | Column, **options: Any) -> Table:
    """A table without a frame, its columns one space apart; `options` are those of rich's `Table`."""
    return Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), **options)
