#!/usr/bin/env bash
# DuckDB writes the sum of a BIGINT column to Parquet as a double.
#
# Versions: duckdb 2.0.1, pyarrow 26.0.1, on Python 3.11 or later.
# Expected: COPY of `SELECT sum(id)`, or of any HUGEINT, writes an exact type such as DECIMAL(38, 0), or refuses what does not fit.
# Seen: the column is DOUBLE, and an integer above 2^53 comes back as its neighbour. Inside DuckDB the value is exact.
# Output:
#   in DuckDB:      9007199254740993 HUGEINT
#   in the Parquet: 9007199254740992.0 double
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'duckdb==2.0.1' 'pyarrow==26.0.1'
cat > "$work/sums.py" <<'PY'
import sys

import duckdb
import pyarrow.parquet as pq

path = sys.argv[1]
query = "SELECT sum(part) AS id FROM (VALUES (9007199254740992), (1)) AS parts(part)"
((value, kind),) = duckdb.sql(f"SELECT id, typeof(id) FROM ({query})").fetchall()
duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
column = pq.read_table(path)["id"]
print("in DuckDB:     ", value, kind)
print("in the Parquet:", column[0].as_py(), column.type)
raise SystemExit(not (value == 2**53 + 1 and column[0].as_py() == 2.0**53))
PY
"$work/venv/bin/python" "$work/sums.py" "$work/sums.parquet"
