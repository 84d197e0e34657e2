#!/usr/bin/env bash
# Ray Train: a driver that is killed leaves a process on the cluster for ever, one for each such driver.
#
# Versions: ray 2.60.0 with Ray Train's default (V2) controller, on Python 3.11 or later; a cluster with its dashboard, as `ray start` makes it.
# Expected: when a driver is killed, Ray ends all actors of its job. The detached actor PlacementGroupCleaner, which watches the controller
#           so that it can free the workers' resources, sees within seconds that the controller is dead, and ends too.
# Seen: worker and controller end, the cleaner stays. It does see the death, but its watching thread calls `ray.actor.exit_actor()`, which
#       ends that thread and not the process. Each killed driver (out of memory, a lost node, SIGKILL) so costs a process of some 200 MB
#       on the head node until the cluster is stopped.
# Output:
#   while it trains:       PlacementGroupCleaner RayTrainWorker TrainController
#   30 s after the kill:   PlacementGroupCleaner
#   60 s after the kill:   PlacementGroupCleaner
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[default,train]==2.60.0' 'torch==2.13.0' psutil 2>/dev/null
cat > "$work/driver.py" <<'PY'
import sys
import time

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train(config):
    open(config["started"], "w").close()
    time.sleep(3600)


address, started, records = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
TorchTrainer(
    train,
    train_loop_config={"started": started},
    scaling_config=ScalingConfig(num_workers=1),
    run_config=RunConfig(name="run", storage_path=records),
).fit()
PY
cat > "$work/watch.py" <<'PY'
import os
import subprocess
import sys
import time

import psutil
import ray

OF_TRAIN = ("PlacementGroupCleaner", "RayTrainWorker", "TrainController")


def actors():
    """The actors of Ray Train whose processes live."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            title = (process.cmdline() or [""])[0]
            if process.status() != psutil.STATUS_ZOMBIE:
                found |= {name for name in OF_TRAIN if title.startswith(f"ray::{name}")}
        except psutil.Error:
            continue
    return sorted(found)


work = sys.argv[1]
cluster = ray.init(num_cpus=2, include_dashboard=True, log_to_driver=False, logging_level="ERROR", _temp_dir=work + "/r")
started = work + "/started"
script = [sys.executable, work + "/driver.py", cluster.address_info["address"], started, work + "/runs"]
driver = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
until = time.monotonic() + 300
while not os.path.exists(started):
    assert driver.poll() is None and time.monotonic() < until, "the driver did not begin to train"
    time.sleep(1)
before = actors()
print("while it trains:      ", *before, flush=True)
driver.kill()
driver.wait()
after = []
for seconds in (30, 60):
    time.sleep(30)
    after = actors()
    print(f"{seconds} s after the kill:  ", *after, flush=True)
ray.shutdown()
raise SystemExit(not (before == sorted(OF_TRAIN) and after == ["PlacementGroupCleaner"]))
PY
RAY_USAGE_STATS_ENABLED=0 "$work/venv/bin/python" "$work/watch.py" "$work"
