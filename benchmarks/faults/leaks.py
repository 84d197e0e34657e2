"""Leaks in a run of two hundred stages: object store, file descriptors, threads, actors and memory of processes must not grow.

    python -m benchmarks.faults.leaks run --stages 200    # writes benchmarks/results/leaks.json
    python -m benchmarks.faults.leaks docs                # its table into docs/faults.md

The blocks are alike and the memory is capped, so that all stages do the same work. Each stage is measured at its commit. Growth is the
median of the slopes between all pairs of stages (Theil-Sen), without the first quarter of the stages, in which caches fill.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from benchmarks.common.tables import NOT_YET, filled, markdown
from benchmarks.faults.killing import ended
from benchmarks.faults.small_cluster import PATIENCE, TITLES, Driver, Place, Stuck, parent, title

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "leaks.json", ROOT / "docs" / "faults.md"

WARM = 0.25
"""Share of the stages in which caches may fill."""

PARTS = {
    "driver": "",
    "worker": TITLES["worker"],
    "owners": TITLES["owner"],
    "controller": TITLES["controller"],
}
"""The processes that exist during the whole run, by the titles that Ray gives them."""

LIMITS = {"MB": 0.05, "descriptors": 0.02, "threads": 0.02, "actors": 0.02, "processes": 0.05}
"""Growth per stage above which a quantity counts as a leak: 0.05 MB are 10 MB in 200 stages."""


def sample(place: Place, driver: Driver) -> dict[str, float]:
    """All quantities now, by the names of part and quantity."""
    quantities: dict[str, float] = {}
    for part in PARTS:
        pids = [driver.process.pid] if part == "driver" else of_part(place, PARTS[part])
        for name, value in (("MB", megabytes), ("descriptors", descriptors), ("threads", threads)):
            quantities[f"{part} {name}"] = sum(value(pid) for pid in pids)
    titles = [title(pid) for pid in of_part(place, "")]
    quantities["Ray processes"] = len(titles)
    # A scorer that is just ending is not a leak.
    busy = [name for name in titles if not name.startswith(("ray::IDLE", TITLES["scorer"]))]
    quantities["Ray actors"] = len([name for name in busy if name.startswith("ray::")])
    quantities["GCS MB"] = megabytes(place.gcs())
    quantities["raylets MB"] = sum(megabytes(pid) for pid in place.raylets())
    quantities["object store MB"] = stored(place) / 1e6
    return quantities


def of_part(place: Place, prefix: str) -> list[int]:
    """The children of the cluster's raylets whose title begins with `prefix`."""
    raylets = set(place.raylets())
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if parent(pid) in raylets and title(pid).startswith(prefix)]


def megabytes(pid: int) -> float:
    """Private memory of a process, without mapped memory such as the object store: RssAnon, in MB."""
    return _status(pid, "RssAnon") * 1024 / 1e6


def threads(pid: int) -> float:
    """Number of threads."""
    return _status(pid, "Threads")


def descriptors(pid: int) -> float:
    """Number of open file descriptors."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def stored(place: Place) -> int:
    """Bytes in the object stores of all nodes."""
    import ray
    from ray._private.internal_api import node_stats

    if not ray.is_initialized():
        ray.init(address=place.cluster.address, log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    stats = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats for node in alive]
    return sum(int(stat.object_store_bytes_used) for stat in stats)


def measure(stages: int) -> dict[str, Any]:
    """Run `stages` stages and sample at each commit.

    Raises:
        AssertionError, Stuck: the run does not finish.
    """
    import ray

    samples: list[dict[str, float]] = []
    with Place(nodes=1) as place:
        driver = place.distil(place.folder / "run", place.log(stages), workers=1, memory_shards=2)
        began = last_commit = time.monotonic()
        while driver.process.poll() is None:  # the driver may end before its last stage can be sampled
            if time.monotonic() - last_commit > PATIENCE:
                raise Stuck(f"{driver.run}: no stage was committed for {PATIENCE:g} s")
            committed = [event for event in driver.news() if event["kind"] == "committed"]
            if committed:
                last_commit = time.monotonic()
                samples.append({"stage": committed[-1]["stage"], **sample(place, driver)})
                if len(samples) % 10 == 0:
                    print(f"{committed[-1]['stage'] + 1} stages, {last_commit - began:.0f} s", flush=True)
            time.sleep(0.02)
        assert ended(driver) == 0
        seconds = round(time.monotonic() - began)
        ray.shutdown()
    return {"stages": stages, "cores": os.cpu_count(), "samples": whole(samples), "seconds": seconds}


def whole(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """The samples without those that were taken while the driver was ending."""
    return [sample for sample in samples if sample["driver threads"] and sample["worker threads"]]


def slopes(result: dict[str, Any]) -> dict[str, tuple[float, float, float, float, float]]:
    """Per quantity: the medians at the begin and at the end after the warm-up, and the slope per stage with its 95 % interval."""
    samples = [sample for sample in result["samples"] if sample["stage"] >= WARM * result["stages"]]
    stage = np.array([sample["stage"] for sample in samples], dtype=np.float64)
    growth = {}
    for name in samples[0]:
        if name == "stage":
            continue
        values = np.array([sample[name] for sample in samples])
        tenth = max(len(values) // 10, 1)
        slope, _, low, high = theilslopes(values, stage)
        growth[name] = (float(np.median(values[:tenth])), float(np.median(values[-tenth:])), slope, low, high)
    return growth


def leaking(result: dict[str, Any]) -> list[str]:
    """The quantities that grow by more than `LIMITS`. Those of Ray's own servers are reported but not judged."""
    leaks = []
    for name, (*_, slope, _low, _high) in slopes(result).items():
        limit = next(limit for quantity, limit in LIMITS.items() if name.endswith(quantity))
        if slope > limit and not name.startswith(("GCS", "raylets")):
            leaks.append(name)
    return leaks


def document(result: dict[str, Any]) -> str:
    """The table of a result."""
    rows = [
        [name, f"{first:.1f}", f"{last:.1f}", f"{slope:+.4f} ({low:+.4f} to {high:+.4f})"]
        for name, (first, last, slope, low, high) in slopes(result).items()
    ]
    leaks = leaking(result)
    text = (
        f"{result['stages']} stages in {result['seconds']} s, measured at {len(result['samples'])} commits; the first {WARM:.0%} of the "
        f"stages are not counted. In the processes of the run, {', '.join(leaks) if leaks else 'no quantities'} grow by more than the "
        "limits of `benchmarks/faults/leaks.py`.\n\n"
    )
    return text + markdown(["what", "then", "at the end", "growth per stage (95 % interval)"], rows)


def page(text: str, path: Path = RESULT) -> str:
    """docs/faults.md with the table of a result, or with a note that there is none."""
    part = document(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else NOT_YET
    return filled(text, "figures", "python -m benchmarks.faults.leaks docs", part)


def main() -> None:
    """Run the benchmark, or write its table into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["run", "docs"])
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.do == "run":
        options.out.write_text(json.dumps(measure(options.stages), indent=1) + "\n", encoding="utf-8")
    else:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), options.out), encoding="utf-8")


def _status(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return float(next((line.split()[1] for line in lines if line.startswith(f"{name}:")), 0))


if __name__ == "__main__":
    main()
