#!/usr/bin/env bash
# fastparquet leaves out the rows whose partition value is null.
#
# Versions: fastparquet 2026.9.0, pandas 3.1.1, on Python 3.11 or later.
# Expected: rows without a value of the partition column go to the partition __HIVE_DEFAULT_PARTITION__, as Hive, Spark and pyarrow write
#           them, or the write is refused.
# Seen: they are in no file. Writing 4 rows, 2 of them without a city, gives a data set of 2 rows, without a warning.
# Output:
#   written: 4 rows
#   read:    2 rows
#   folders: ['city=Oslo', 'city=Rome']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'fastparquet==2026.9.0' 'pandas==3.1.1'
cat > "$work/partitions.py" <<'PY'
import sys
from pathlib import Path

import fastparquet
import pandas as pd

folder = Path(sys.argv[1])
rows = pd.DataFrame({"row": [1, 2, 3, 4], "city": ["Oslo", None, "Rome", None]})
fastparquet.write(str(folder), rows, file_scheme="hive", partition_on=["city"])
read = fastparquet.ParquetFile(str(folder)).to_pandas()
print("written:", len(rows), "rows")
print("read:   ", len(read), "rows")
print("folders:", sorted(path.name for path in folder.iterdir() if path.is_dir()))
raise SystemExit(len(read) != 2)
PY
"$work/venv/bin/python" "$work/partitions.py" "$work/log"
