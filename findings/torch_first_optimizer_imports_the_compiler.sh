#!/usr/bin/env bash
# torch: the first optimiser of a process imports the compiler, several hundred modules, although nothing is compiled.
#
# Versions: torch 2.13.0 on the CPU, on Python 3.11 or later.
# Expected: `import torch` has imported what plain training needs, so that `torch.optim.SGD([parameter], lr=0.1)` only makes an object.
# Seen: the constructor imports `torch._dynamo` and more than 500 modules with it, sympy among them, in about the CPU seconds that
#       `import torch` itself takes. A process that lives for one short training (a worker, a trial of a sweep, a command) pays it each
#       time, and a profile shows it as the time of the first step. An update written with `torch.no_grad()` alone imports nothing.
# Output (the seconds are those of one machine):
#   import torch:            1.08 CPU s
#   an update without optim: 0 new modules
#   the first SGD:           823 new modules, torch._dynamo among them, 1.18 CPU s
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6' 2>/dev/null
cat > "$work/first.py" <<'PY'
import sys
import time

began = time.process_time()
import torch

imported = time.process_time() - began
parameter = torch.nn.Parameter(torch.ones(3))
before = set(sys.modules)
with torch.no_grad():
    parameter -= 0.1 * torch.ones(3)
by_hand = len(set(sys.modules) - before)
before, began = set(sys.modules), time.process_time()
torch.optim.SGD([parameter], lr=0.1)
taken, new = time.process_time() - began, set(sys.modules) - before
print(f"import torch:            {imported:.2f} CPU s")
print(f"an update without optim: {by_hand} new modules")
print(f"the first SGD:           {len(new)} new modules, torch._dynamo among them, {taken:.2f} CPU s")
raise SystemExit(not (by_hand == 0 and len(new) > 500 and "torch._dynamo" in new and taken > imported / 2))
PY
"$work/venv/bin/python" "$work/first.py"
