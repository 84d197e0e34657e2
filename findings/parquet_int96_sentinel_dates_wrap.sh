#!/usr/bin/env bash
# pyarrow reads an INT96 timestamp after the year 2262 as another date, without an error.
#
# Versions: pyarrow 26.0.1, on Python 3.11 or later.
# Expected: a "never ends" date such as 9999-12-31 in a file with INT96 timestamps (Spark's and Hive's default) comes back as it is, or the
#           read fails, because INT96 is turned into nanoseconds, which end in 2262. A cast of the same value to nanoseconds does fail.
# Seen: it wraps round. 9999-12-31 comes back as 1816-03-29, so an open end lies before every beginning. With
#       coerce_int96_timestamp_unit="us" it is right.
# Output:
#   written: 9999-12-31 00:00:00
#   read:    1816-03-29 05:56:08.066277376
#   read with coerce_int96_timestamp_unit="us": 9999-12-31 00:00:00
#   a cast to nanoseconds fails: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'pyarrow==26.0.1'
cat > "$work/wrap.py" <<'PY'
import sys
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1]
when = datetime(9999, 12, 31)
column = pa.array([when], pa.timestamp("us"))
pq.write_table(pa.table({"valid_to": column}), path, use_deprecated_int96_timestamps=True)
read = str(pq.read_table(path)["valid_to"].cast(pa.string())[0])
right = pq.read_table(path, coerce_int96_timestamp_unit="us")["valid_to"][0].as_py()
try:
    column.cast(pa.timestamp("ns"))
    fails = False
except pa.ArrowInvalid:
    fails = True
print("written:", when)
print("read:   ", read)
print('read with coerce_int96_timestamp_unit="us":', right)
print("a cast to nanoseconds fails:", fails)
raise SystemExit(not (read.startswith("1816-03-29") and right == when and fails))
PY
"$work/venv/bin/python" "$work/wrap.py" "$work/log.parquet"
