"""The made-up log that every engine writes, and what a script of an engine reports. Only the standard library is imported here.

A script is called as `python with_ENGINE.py write FOLDER`, or as `python with_ENGINE.py read EXPORT` for the columns of an export.
"""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

N = 20
"""Rows of the log."""

DELETED = 4
"""Rows after the log's that tables with versions hold for a while; their files stay in the folder."""

ZONE = ZoneInfo("Europe/Berlin")
"""The zone of local times and days. The log crosses the change to summer time, on 2024-03-31."""

_START = datetime(2024, 3, 29, 23, 30, tzinfo=UTC)
_NEXT_AFTER_2_53 = 2**53 + 1

COLUMNS = {
    "n": "int64",
    "epoch": "int64",
    "at_utc": "instant",
    "at_local": "wall clock",
    "day": "date",
    "user": "text",
    "item": "int64",
    "shop": "int64 or null",
    "seller": "int64 or null",
    "serial": "uint64",
    "code": "decimal(20,0)",
    "session": "uuid",
    "brand": "text or null",
    "title": "text",
    "device": "enum",
    "price": "decimal(10,2)",
    "cost": "float64",
    "count": "int64 or null",
    "watched": "duration",
    "click": "boolean",
    "buy": "int64",
    "tags": "list of text or null",
    "history": "list of int64",
}
"""The columns and their types, in words that each script translates for its engine."""

PARTITIONED = ("n", "epoch", "item", "buy", "day", "city")
"""The columns of the log in folders: `day` and `city` are in the folders' names."""

DEVICES = ("mobile", "desktop", "tv")


def log(n: int = N) -> dict[str, list[Any]]:
    """The values of all columns as Python objects, and of `city`; row 0 is the earliest."""
    at = [_START + timedelta(hours=2, milliseconds=37) * row for row in range(n)]
    local = [moment.astimezone(ZONE) for moment in at]
    item = [_NEXT_AFTER_2_53 - row % 6 for row in range(n)]
    titles = ['5" pipe', "a, b; c", "back\\slash", 'say "hi", ok', "it's", "NULLs"]
    price = [Decimal(row * 1373 + 29) / 100 for row in range(n)]
    return {
        "n": list(range(n)),
        "epoch": [milliseconds(moment) for moment in at],
        "at_utc": at,
        "at_local": [moment.replace(tzinfo=None) for moment in local],
        "day": [moment.date() for moment in local],
        "user": [f"{row * 7 % 11:03d}" for row in range(n)],
        "item": item,
        "shop": [None if row % 3 == 1 else row % 4 for row in range(n)],
        "seller": [None if row % 4 == 3 else _NEXT_AFTER_2_53 - row % 5 for row in range(n)],
        "serial": [2**64 - 1 - row % 5 for row in range(n)],
        "code": [Decimal(10**19 + row % 3) for row in range(n)],
        "session": [uuid.uuid5(uuid.NAMESPACE_OID, str(row // 2)) for row in range(n)],
        "brand": [("Nike", "", None, "Ångström")[row % 4] for row in range(n)],
        "title": [titles[row % 6] for row in range(n)],
        "device": [DEVICES[row * row % 3] for row in range(n)],
        "price": price,
        "cost": [float(value) for value in price],
        "count": [None if row % 5 == 2 else row * 3 % 17 for row in range(n)],
        "watched": [timedelta(milliseconds=row * 1700 + 250) for row in range(n)],
        "click": [row % 3 == 0 for row in range(n)],
        "buy": [int(row % 4 == 0) for row in range(n)],
        "tags": [(["new", "sale"], [], None, ["sale"], ["it's", "new", "5%"])[row % 5] for row in range(n)],
        "history": [item[max(0, row - row % 5) : row] for row in range(n)],
        "city": [None if row % 2 else "São Paulo/Sé" for row in range(n)],
    }


def milliseconds(moment: datetime) -> int:
    """Time since the epoch in ms."""
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


class Written:
    """What an engine wrote, and which columns it could not write. It ends as `about.json` in the folder of its files."""

    def __init__(self, engine: str, version: str, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = {"engine": engine, "version": version, "kinds": {}}
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        kind: str,
        name: str,
        columns: Iterable[str],
        write: Callable[[list[str], Path], None],
        **more: Any,
    ) -> None:
        """Write the columns in one go; where that fails, those that the engine can write alone. `more` goes into the report."""
        names, path = list(columns), self.folder / name
        asked = more.get("asks", () if "partitioned" in kind else COLUMNS)
        lacks = {column: "has no such type" for column in asked if column not in names}
        if _problem(write, names, path) is not None:
            problems = {column: _problem(write, [column], path) for column in names}
            lacks |= {column: problem for column, problem in problems.items() if problem is not None}
            names = [column for column in names if problems[column] is None]
            problem = _problem(write, names, path)
            if problem is not None:
                raise SystemExit(f"{kind}: each column can be written alone, but not all together: {problem}")
        self.about["kinds"][kind] = {"path": name, "lacks": lacks} | more

    def close(self) -> None:
        """Write what was found."""
        text = json.dumps(self.about, indent=1, ensure_ascii=False)
        (self.folder / "about.json").write_text(text + "\n", encoding="utf-8")


def _problem(write: Callable[[list[str], Path], None], names: list[str], path: Path) -> str | None:
    """Write; the engine's own words where it cannot, and nothing is left of the attempt."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    try:
        write(names, path)
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return None


def column_report(kind: object, values: list[Any]) -> dict[str, Any]:
    """What an engine has of a column of an export: its type in the engine's words, number of rows, lengths of lists, sum, first row."""
    lists = [[value] if isinstance(value, int | float) else [float(part) for part in value] for value in values]
    return {
        "type": str(kind),
        "rows": len(lists),
        "widths": sorted({len(value) for value in lists}),
        "sum": float(sum(number for value in lists for number in value)),
        "first": [float(number) for number in lists[0]],
    }


def main(write: Callable[[Path], None], read: Callable[[Path], dict[str, Any]] | None = None) -> None:
    """Do what the command line says: write the log into a folder, or report the columns of an export."""
    task, folder = sys.argv[1], Path(sys.argv[2])
    if task == "write":
        write(folder)
    elif read is None:
        raise SystemExit("this engine does not read exports")
    else:
        print(json.dumps(read(folder)))
