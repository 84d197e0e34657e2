#!/usr/bin/env bash
# pyarrow's cast from list_view to list empties the last list.
#
# Versions: pyarrow 26.0.1, on Python 3.11 or later.
# Expected: casting a column of histories from the view layout (which engines such as DuckDB and Velox use in memory) to the ordinary list
#           layout keeps every list.
# Seen: no error, and the last list of the array is empty; the others are right. The length stays, so nothing looks wrong.
# Output:
#   list_view:       [['a', 'b'], ['c'], ['d', 'e']]
#   cast to list:    [['a', 'b'], ['c'], []]
#   large_list_view: [['a', 'b'], ['c'], ['d', 'e']]
#   cast to list:    [['a', 'b'], ['c'], []]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'pyarrow==26.0.1'
cat > "$work/views.py" <<'PY'
import pyarrow as pa

histories = [["a", "b"], ["c"], ["d", "e"]]
same = True
for name, view, plain in (
    ("list_view:      ", pa.list_view(pa.string()), pa.list_(pa.string())),
    ("large_list_view:", pa.large_list_view(pa.string()), pa.large_list(pa.string())),
):
    column = pa.array(histories, view)
    cast = column.cast(plain).to_pylist()
    print(name, column.to_pylist())
    print("cast to list:   ", cast)
    same = same and cast == [["a", "b"], ["c"], []]
raise SystemExit(not same)
PY
"$work/venv/bin/python" "$work/views.py"
