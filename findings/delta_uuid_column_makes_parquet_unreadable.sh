#!/usr/bin/env bash
# A Delta table that delta-rs writes from a column of Arrow UUIDs has Parquet files that pyarrow cannot open, not even for other columns.
#
# Versions: deltalake 1.6.6, pyarrow 26.0.1, on Python 3.11 or later.
# Expected: writing a valid Arrow table succeeds and can be read back, or the write says that the type is not supported.
# Seen: the write succeeds. Opening its Parquet file with pyarrow fails on the stored Arrow schema ("Invalid storage type for UuidType"),
#       although only the column of integers is asked for, and so does delta-rs' own to_pyarrow_table.
# Output:
#   written: 2 rows
#   the integers, by pyarrow.parquet: ArrowInvalid
#   the table, by deltalake: ArrowInvalid
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'deltalake==1.6.6' 'pyarrow==26.0.1'
cat > "$work/uuids.py" <<'PY'
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

folder = sys.argv[1]
table = pa.table({"row": [1, 2], "session": pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes], pa.uuid())})
write_deltalake(folder, table)
file = next(Path(folder).glob("*.parquet"))


def outcome(read) -> str:
    try:
        return f"{read().num_rows} rows"
    except Exception as error:
        return type(error).__name__


print("written:", len(table), "rows")
by_pyarrow = outcome(lambda: pq.read_table(file, columns=["row"]))
by_deltalake = outcome(lambda: DeltaTable(folder).to_pyarrow_table())
print("the integers, by pyarrow.parquet:", by_pyarrow)
print("the table, by deltalake:", by_deltalake)
raise SystemExit("rows" in by_pyarrow or "rows" in by_deltalake)
PY
"$work/venv/bin/python" "$work/uuids.py" "$work/table"
