"""The tables of docs/your-log.md: types by engines, what is refused and noted, and what engines read of an export."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common.tables import NOT_YET, filled, markdown, parsed
from benchmarks.formats.cases import CASES, FOLDER_CASES, Case
from benchmarks.formats.result import EngineResult, Matrix, Read, Verdict

COMMAND = "python -m benchmarks.formats docs"

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "formats.json"
PAGE = ROOT / "docs" / "your-log.md"

MARKS = {"read": "read", "read with a note": "note", "refused": "refused", "WRONG": "**wrong**", "not written": "-"}
"""The words of the tables' cells."""


def page(text: str) -> str:
    """The page with its part, made from the stored verdicts."""
    matrix = parsed(Matrix, RESULT)
    return filled(text, "formats", COMMAND, NOT_YET if matrix is None else "\n\n".join(_parts(matrix)))


def _parts(matrix: Matrix) -> list[str]:
    engines = list(matrix.engines.values())
    return [
        f"Versions: {', '.join(f'{engine.engine} {engine.version}' for engine in engines)}.",
        "Parquet:",
        _table(engines, CASES, lambda kind: kind == "Parquet"),
        "CSV:",
        _table(engines, CASES, lambda kind: kind == "CSV"),
        "Other files and tables:",
        _table(engines, CASES, lambda kind: kind not in ("Parquet", "CSV")),
        "Folders named after values:",
        _table(engines, FOLDER_CASES, lambda kind: True),
        "Columns that have to be tried alone:",
        markdown(["file", "", ""], _alone(engines)),
        "What is said of those that are not simply read:",
        markdown(["type", "", "words", "files"], _reasons(engines)),
        "The columns of an export, as the engines read them:",
        _exports(matrix),
    ]


def _table(engines: Sequence[EngineResult], cases: Sequence[Case], wanted: Callable[[str], bool]) -> str:
    """Types down, engines across, for the kinds of file that are wanted and were asked for all the cases."""
    names = {case.name for case in cases}
    columns = [
        (_title(engine, kind), verdicts)
        for engine in engines
        for kind, verdicts in engine.written.items()
        if verdicts.keys() == names and wanted(kind)
    ]
    rows = [[case.title, *(MARKS[found[case.name].verdict] for _, found in columns)] for case in cases]
    return markdown(["", *(title for title, _ in columns)], rows)


def _title(engine: EngineResult, kind: str) -> str:
    return engine.engine if kind in ("Parquet", "CSV") else f"{kind.removeprefix('partitioned ')}, {engine.engine}"


def _cases(verdicts: dict[str, Verdict]) -> list[Case]:
    """The cases that a kind of file was asked for, in the order of the tables."""
    whole = FOLDER_CASES if verdicts.keys() == {case.name for case in FOLDER_CASES} else CASES
    return [case for case in whole if case.name in verdicts]


def _alone(engines: Sequence[EngineResult]) -> list[list[str]]:
    """A line per type of the kinds of file that were asked for a few types alone."""
    return [
        [f"{engine.engine} {kind}", case.title, MARKS[verdicts[case.name].verdict]]
        for engine in engines
        for kind, verdicts in engine.written.items()
        for case in _cases(verdicts)
        if len(verdicts) < min(len(CASES), len(FOLDER_CASES))
    ]


def _reasons(engines: Sequence[EngineResult]) -> list[list[str]]:
    """A line per type and message: what happened, in words, and in which files."""
    files: dict[tuple[str, str, str], list[str]] = {}
    for engine in engines:
        for kind, verdicts in engine.written.items():
            written = [verdict for verdict in verdicts.values() if verdict.verdict != "not written"]
            alike = len({(verdict.verdict, verdict.because) for verdict in written}) == 1
            for case in _cases(verdicts):
                verdict = verdicts[case.name]
                if verdict.verdict in ("read", "not written"):
                    continue
                title = "all" if alike and len(written) > 1 else case.title
                places = files.setdefault((title, MARKS[verdict.verdict], _words(verdict)), [])
                if f"{engine.engine} {kind}" not in places:
                    places.append(f"{engine.engine} {kind}")
    order = ["all", *dict.fromkeys(case.title for case in (*CASES, *FOLDER_CASES))]
    return sorted(([*key, ", ".join(places)] for key, places in files.items()), key=lambda row: order.index(row[0]))


def _words(verdict: Verdict) -> str:
    """A message without the names of files and columns, which the table's other cells give."""
    words = re.sub(r"^[^ ,]+(, column '[^']*')?: | \(first in [^)]*\)", "", verdict.because)
    return words.replace("<", "&lt;")


def _exports(matrix: Matrix) -> str:
    """Columns down, engines across: the types as which they are read, and what is wrong with them."""
    names = list(dict.fromkeys(name for export in matrix.exports.values() for name in export.columns))
    rows = [[f"`{name}`", *(_read(export.columns[name]) for export in matrix.exports.values())] for name in names]
    return markdown(["", *(matrix.engines[name].engine for name in matrix.exports)], rows)


def _read(column: Read) -> str:
    return (f"**{column.because}**" if column.because else column.type).replace("<", "&lt;")
