#!/usr/bin/env bash
# Hugging Face datasets: to_csv writes a long list with "..." in the place of most of its items.
#
# Versions: datasets 5.2.0, on Python 3.11 or later.
# Expected: a history of 1,500 item ids becomes a cell with 1,500 ids in some notation, or an error says that CSV has no lists.
# Seen: the cell has the six outer ids and "..." between them, as NumPy prints a long array; 1,494 ids are gone without a word. Short
#       lists are written without commas.
# Output:
#   a list of 3:    [7 8 9]
#   a list of 1500: [   0    1    2 ... 1497 1498 1499]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'datasets==5.2.0'
cat > "$work/lists.py" <<'PY'
import csv
import sys

from datasets import Dataset, disable_progress_bars

disable_progress_bars()
path = sys.argv[1]
Dataset.from_dict({"history": [[7, 8, 9], list(range(1500))]}).to_csv(path)
with open(path, newline="") as file:
    short, long = [row["history"] for row in csv.DictReader(file)]
print("a list of 3:   ", short)
print("a list of 1500:", long)
raise SystemExit(not ("..." in long and len(long) < 100))
PY
HF_HOME="$work/hf" "$work/venv/bin/python" "$work/lists.py" "$work/log.csv"
