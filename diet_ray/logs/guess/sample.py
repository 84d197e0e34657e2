"""A sample of the rows of a log's files, with all columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from diet_ray.errors import BadInputError
from diet_ray.logs.ingestion.folders import found_files
from diet_ray.logs.ingestion.sources import column_names, find_pieces, read_piece
from diet_ray.logs.notes import Note
from diet_ray.storage.parquet import footer

_PARTS = 16
"""Places of the files from which the rows of a sample come."""


@dataclass(frozen=True)
class Sample:
    """Some rows of a log's files."""

    table: pa.Table
    """The rows, with the columns that all files have, in the order of the first file."""
    files: int
    """Number of files."""
    rows: int | None
    """Rows of all files; None where only reading them would tell."""
    in_some: list[str]
    """Columns that only some of the files have."""
    notes: list[Note]
    """What was passed over in the folders."""


def read_sample(sources: list[Path], rows: int) -> Sample:
    """Read about `rows` rows from places spread evenly over the files, from the first to the last.

    Raises:
        BadInputError: a source is missing, damaged, without rows, or of an unknown kind, or no column is in all files.
        ResourceError: an extra that reads it is not installed.
    """
    notes: list[Note] = []
    files = found_files(sources, notes)
    names = [column_names(file) for file in files]
    shared = [name for name in dict.fromkeys(names[0]) if all(name in others for others in names)]
    if not shared:
        raise BadInputError(files[0].path, "shares no column with the other files", remedy="give files of one log")
    pieces = find_pieces(sources, shared)
    chosen = np.unique(np.linspace(0, len(pieces) - 1, _PARTS).round().astype(int)).tolist() if pieces else []
    parts = list[pa.Table]()
    for index in chosen:
        wanted = -(-rows // len(chosen))
        for _, table in read_piece(pieces[index], shared):
            parts.append(table.slice(0, wanted))
            wanted -= parts[-1].num_rows
            if wanted <= 0:
                break
    if not any(part.num_rows for part in parts):
        raise BadInputError(sources[0], "holds no rows at all", remedy="give files with rows")
    parquet = all(file.kind == "parquet" and file.deletes is None for file in files)
    return Sample(
        table=pa.table({name: _joined([part[name] for part in parts]) for name in shared}),
        files=len(files),
        rows=sum(footer(file.path).num_rows for file in files) if parquet else None,
        in_some=sorted({name for others in names for name in others} - set(shared)),
        notes=notes,
    )


def _joined(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """The values of a column; as text where files hold it in types that have no common one."""
    try:
        return pa.concat_tables([pa.table({"": part}) for part in parts], promote_options="permissive")[""]
    except pa.ArrowException:
        return pa.chunked_array([chunk for part in parts for chunk in part.cast(pa.string()).chunks])
