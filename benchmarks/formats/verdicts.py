"""The comparison: columns of an engine's file, ingested, against the plain form of the same values, row by row."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.formats.cases import CASES, FOLDER_CASES, Case, schema_of
from benchmarks.formats.engines.rows import log
from benchmarks.formats.result import EngineResult, Verdict
from diet_ray.errors import BadInputError, DietError, ResourceError
from diet_ray.logs.blocks import open_log
from diet_ray.logs.ingestion.ingest import ingest
from diet_ray.logs.ingestion.vocabulary import read_vocabulary
from diet_ray.logs.layout import edges_file, vocabulary_file
from diet_ray.logs.notes import Note
from diet_ray.schema import Schema

DATA = Path(__file__).parents[2] / "tests" / "logs" / "formats" / "data"
"""What the engines wrote, a folder per engine."""

Values = dict[str, dict[str, Any]]
"""Of each case: its value in each row, by the row's number as text, and `edges`, those of a number."""


@dataclass(frozen=True)
class Written:
    """A kind of file of an engine."""

    engine: str
    """The engine's folder."""
    kind: str
    """Such as `Parquet`."""
    path: Path
    """File or folder."""
    lacks: dict[str, str]
    """Columns that it lacks, with the engine's reason."""
    asks: list[str] | None
    """The columns to ask for; None for all."""
    home: Path | None
    """Where it must lie, if it names its own files by absolute paths."""

    @property
    def cases(self) -> list[Case]:
        """What is asked of it."""
        cases = FOLDER_CASES if "partitioned" in self.kind else CASES
        return [case for case in cases if self.asks is None or case.column in self.asks]

    @contextmanager
    def at_home(self) -> Iterator[Written]:
        """The same, where it must lie."""
        if self.home is None or self.home == self.path:
            yield self
            return
        shutil.copytree(self.path, self.home, dirs_exist_ok=True)
        try:
            yield replace(self, path=self.home)
        finally:
            shutil.rmtree(self.home)
            with suppress(OSError):  # the folder of the engine's other tables
                self.home.parent.rmdir()


def engines(data: Path = DATA) -> list[Path]:
    """The folders of all engines."""
    return sorted(path.parent for path in data.glob("*/about.json"))


def written_by(engine: Path) -> Iterator[Written]:
    """The kinds of file in the folder of an engine."""
    for kind, about in _about(engine)["kinds"].items():
        yield Written(
            engine.name,
            kind,
            engine / about["path"],
            about["lacks"],
            about.get("asks"),
            Path(about["home"]) if "home" in about else None,
        )


def engine_result(engine: Path) -> EngineResult:
    """All verdicts on an engine's files."""
    about = _about(engine)
    written = {written.kind: verdicts(written) for written in written_by(engine)}
    return EngineResult(engine=about["engine"], version=about["version"], written=written)


def verdicts(written: Written) -> dict[str, Verdict]:
    """The verdicts on one kind of file, by the cases' names.

    Raises:
        ResourceError: the extra that reads it is not installed.
    """
    found: dict[str, Verdict] = {}
    asked = [case for case in written.cases if case.column not in written.lacks]
    # A log has one time: every other type is asked for beside the epoch, in one go.
    times = [case for case in asked if case.role == "time" and case.column != "epoch"]
    with written.at_home() as placed:
        for group in ([case for case in asked if case not in times], *([case] for case in times)):
            found |= _verdicts(placed, group)
    lacking = {case.name: written.lacks[case.column] for case in written.cases if case not in asked}
    found |= {name: Verdict(verdict="not written", because=because) for name, because in lacking.items()}
    return {case.name: found[case.name] for case in written.cases}


def _verdicts(written: Written, cases: Sequence[Case]) -> dict[str, Verdict]:
    """The verdicts on cases that are ingested together; what is refused by its column's name is left out of the next attempt."""
    found: dict[str, Verdict] = {}
    while remaining := [case for case in cases if case.name not in found]:
        try:
            with tempfile.TemporaryDirectory() as work:
                separator = "," if "CSV" in written.kind else None
                values, notes = decoded(remaining, schema_of(remaining, separator), written.path, Path(work) / "log")
        except ResourceError:
            raise
        except DietError as error:
            column = error.column if isinstance(error, BadInputError) else None
            at_fault = [case for case in remaining if case.column == column] or remaining
            refusal = Verdict(verdict="refused", because=_portable(str(error), written))
            found |= dict.fromkeys([case.name for case in at_fault], refusal)
        except Exception as error:  # a traceback, which a user would see
            if len(remaining) == 1:
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                return found | {remaining[0].name: Verdict(verdict="WRONG", because=reason)}
            for case in remaining:
                found |= _verdicts(written, [case])
        else:
            found |= {case.name: _verdict(case, values, notes, written) for case in remaining}
    return found


_TOLD = ("read as a value; if it means no value", "neighbouring ids have become one")
"""Notes that say of a value that it may be read otherwise than it was meant."""


def _verdict(case: Case, values: Values, notes: list[Note], written: Written) -> Verdict:
    difference = _difference(values[case.name], expected()[case.name], case)
    # That so few rows fit buckets badly is no matter of the engine.
    noted = [str(note) for note in notes if note.column in (None, case.column) and "are fitted on" not in note.what]
    if difference:
        # What the engine has lost or spells in a way of its own cannot be known, but it can be told.
        told = any(note.column == case.column and any(word in note.what for word in _TOLD) for note in notes)
        noted.insert(0, difference)
        return Verdict(verdict="read with a note" if told else "WRONG", because=_portable("; ".join(noted), written))
    if noted:
        return Verdict(verdict="read with a note", because=_portable("; ".join(noted), written))
    return Verdict(verdict="read")


def decoded(cases: Sequence[Case], schema: Schema, source: Path, out: Path) -> tuple[Values, list[Note]]:
    """Ingest a source. Returns the values of its cases as the log has them, with what ids stand for in their place, and its notes."""
    notes = ingest(schema, [source], out, by="day").notes
    opened, vocabulary = open_log(out), read_vocabulary(vocabulary_file(out)).to_pylist()
    meaning = {entry["id"]: entry["value"] for entry in vocabulary} | {0: "padding"}
    meaning |= dict.fromkeys(range(1, schema.n_fields + 1), "unknown")
    edges = json.loads(edges_file(out).read_text(encoding="utf-8"))["edges"]
    fields = [schema.declared[field].name for field in schema.field_of_slot]
    values: Values = {case.name: {"edges": edges.get(case.column)} for case in cases}
    for block in opened.blocks:
        rows = opened.read_block(block)
        for index, ids in enumerate(rows.ids.tolist()):
            row = meaning[ids[0]]
            for case in cases:
                match case.role:
                    case "time":
                        value: Any = int(rows.time[index])
                    case "user":
                        value = int(rows.user[index])
                    case "label":
                        value = int(rows.labels[index, schema.tasks.index(case.column)])
                    case _:
                        of_case = [number for number, name in zip(ids, fields, strict=True) if name == case.column]
                        first = schema.first_static_id[schema.declared.index(_field(schema, case.column))]
                        value = [meaning.get(number, f"bucket {number - first}") for number in of_case]
                values[case.name][row if row not in values[case.name] else f"{row}, once more"] = value
    return values, notes


def _field(schema: Schema, name: str) -> Any:
    return next(field for field in schema.declared if field.name == name)


@cache
def expected() -> Values:
    """The values of all cases, from their plain form."""
    values: Values = {}
    of_folders = [case for case in FOLDER_CASES if case.name not in {other.name for other in CASES}]
    others = [case for case in (*CASES, *of_folders) if case.role != "time"]
    times = [replace(case, unit="ms") for case in CASES if case.role == "time"]
    for group in (others, *([case] for case in times)):
        columns = {name: pa.array(log()[name]) for name in ("n", "epoch", "buy", "item")}
        columns |= {case.column: case.plain() for case in group}
        with tempfile.TemporaryDirectory() as work:
            pq.write_table(pa.table(columns), Path(work) / "plain.parquet")
            values |= decoded(group, schema_of(group), Path(work) / "plain.parquet", Path(work) / "log")[0]
    return values


def _difference(found: dict[str, Any], wanted: dict[str, Any], case: Case) -> str:
    """The first difference; empty where there is none."""
    if found.keys() != wanted.keys():
        return f"{len(found) - 1} rows for {len(wanted) - 1}"
    for row, value in wanted.items():
        if row != "edges" and found[row] != value:
            return f"row {row} has {found[row]}, not {value}"
    return "" if case.ordered or found["edges"] == wanted["edges"] else "its numbers differ in their last bits"


def _about(engine: Path) -> dict[str, Any]:
    return dict(json.loads((engine / "about.json").read_text(encoding="utf-8")))


def _portable(text: str, written: Written) -> str:
    """A message without the place of the files on this machine."""
    return re.sub(r"\s+", " ", text.replace(f"{written.path.parent}/", ""))
