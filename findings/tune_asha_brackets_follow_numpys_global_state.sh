#!/usr/bin/env bash
# Ray Tune's ASHA with several brackets draws each trial's bracket from NumPy's global generator.
#
# Versions: ray[tune] 2.60.0, numpy 2.4.6, on Python 3.11 or later.
# Expected: a scheduler that decides at random takes a seed, or draws from a generator of its own; the same experiment, with the same
#           reports in the same order, stops the same trials.
# Seen: two schedulers with equal arguments give the same 40 trials other brackets, so that other trials are stopped. Only
#       `numpy.random.seed` makes them equal, so any library that seeds or draws from the global generator decides which trials stop. With
#       one bracket nothing is decided, but every trial still takes a number from the global generator.
# Output:
#   three brackets, twice: the same trials stop at the same steps: False
#   three brackets, twice after numpy.random.seed(7): True
#   one bracket, twice: True
#   one bracket leaves the global generator alone: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[tune]==2.60.0' 'numpy==2.4.6'
cat > "$work/brackets.py" <<'PY'
from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import ASHAScheduler


def outcome(brackets: int) -> list[str]:
    """What the scheduler says of 40 trials after 1 to 9 steps; the loss of trial k is k at every step."""
    scheduler = ASHAScheduler(
        time_attr="step", metric="loss", mode="min", max_t=9, grace_period=1, reduction_factor=3, brackets=brackets
    )
    trials = [SimpleNamespace(trial_id=f"trial-{k:02d}") for k in range(40)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    said, running = [], list(enumerate(trials))
    for step in range(1, 10):
        for k, trial in list(running):
            answer = scheduler.on_trial_result(None, trial, {"step": step, "loss": float(k)})
            if answer == "STOP":
                running.remove((k, trial))
                said.append(f"{trial.trial_id}@{step}")
    return said


first, second = outcome(3), outcome(3)
np.random.seed(7)
seeded = outcome(3)
np.random.seed(7)
seeded_again = outcome(3)
np.random.seed(7)
before = np.random.random()
np.random.seed(7)
one_bracket = outcome(1)
after = np.random.random()
print("three brackets, twice: the same trials stop at the same steps:", first == second)
print("three brackets, twice after numpy.random.seed(7):", seeded == seeded_again)
print("one bracket, twice:", one_bracket == outcome(1))
print("one bracket leaves the global generator alone:", before == after)
raise SystemExit((first == second, seeded == seeded_again, before == after) != (False, True, False))
PY
"$work/venv/bin/python" "$work/brackets.py"
