"""Three nodes: the shards of the memory, the workers and the scorers are spread over them, and the result is one node's."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from diet_ray.memory.dataset import load_memory
from tests.support.small_run import config, local_run, stage_bytes
from tests.support.synthetic import write_log
from tests.support.watched import run

SCRIPT = """
import json, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from diet_ray.config import StreamConfig
from diet_ray.engine import distil
from diet_ray.engine.owners import OwnedShards
from diet_ray.memory.events import read_events
from diet_ray.storage.background import repeating

stream = StreamConfig.model_validate_json(Path(sys.argv[1]).read_text())
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(2):
    nodes.add_node(num_cpus=1)
    print("a node", flush=True)
ray.init(address=nodes.address, log_to_driver=False)

def nodes_of_owners() -> list[str]:
    shards = OwnedShards(3)
    owners = ray.get([owner.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for owner in shards.owners])
    shards.close()
    print("the memory", flush=True)
    return owners

# A node learns a moment later of nodes that have just joined. Until then it places an owner on a node that it knows.
late = time.monotonic() + 120
while len(set(owners := nodes_of_owners())) < 3 and time.monotonic() < late:
    time.sleep(1)

run, shown = Path(sys.argv[2]), 0

def show() -> bool:  # a child that prints nothing is given up
    global shown
    events, shown = read_events(run / "events.jsonl", shown)
    for event in events:
        print(event, flush=True)
    return True

with repeating(1.0, show, "shown"):
    distil(run, stream)
print(json.dumps({"nodes": len(ray.nodes()), "owners": owners}))
ray.shutdown()
nodes.shutdown()
"""


@pytest.mark.ray
def test_three_nodes_give_what_one_process_gives(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", blocks=2, n=400)
    stream = config(log, workers=2, cpus_per_worker=1, scorers=2, cpus_per_scorer=0.5, memory_shards=3)
    (tmp_path / "stream.json").write_text(stream.model_dump_json())
    done = run(
        [sys.executable, "-u", "-c", SCRIPT, tmp_path / "stream.json", tmp_path / "run"],
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["nodes"] == 3
    assert len(set(found["owners"])) == 3  # a shard on each node
    local = local_run(tmp_path / "local", stream)
    assert list(stage_bytes(tmp_path / "run")) == list(stage_bytes(local))
    here, there = load_memory(local).units, load_memory(tmp_path / "run").units
    assert np.array_equal(here.unit_id, there.unit_id)
    np.testing.assert_allclose(there.delta, here.delta, rtol=0, atol=1e-5)
    np.testing.assert_allclose(there.logit, here.logit, rtol=0, atol=1e-5)
